// A tighter certified radius of f(x) = sum_j sign_j a_j sigma(<x,u_j>)^p where the tangent form of margin.hpp is loose.
//
// On a ball of radius r, -y f(x + d) = sum_j -+a_j sigma(z_j + <u_j,d>)^p is bounded above by a quadratic: each term is
// by one in <u_j,d> on its range [z_j - r ||u_j||, z_j + r ||u_j||]. For rivals the quadratic touches sigma^p at a
// contact c and has the largest curvature found on the range; for own neurons, whose terms are concave, the least. The
// maximum over the ball of the sum, c0 + <b,d> + d^T Q d, is below 0, and r certified, if for some l >
// max(lambda_max(Q), 0)
//
//   c0 + l r^2 + b^T (l - Q)^-1 b / 4 < 0                              (S-lemma; nothing is lost in this step)
//
// Contacts are at first the values at the witness, scaled to r, where the bound is then exact; while it is not below 0
// they move towards the values at its maximiser. Because f is homogeneous the same
// may be said on the slice <y,x> = ||x||^2 of the cone over the ball, a ball of radius tan(asin(r/||x||)) ||x|| in
// which neurons aligned with x do not move: exact for orthogonal neurons. All forms are tried and the best radius is
// kept. (docs/mathematics.md#trust-region and what follows it there.)
#pragma once

#include <cstdint>
#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/parallel.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// A view; coordinates are those of an orthonormal basis of the neurons' span, of dimension rank. Contributions come as
// logarithms; `slack` and `doubt` as in margin.hpp, slack of values <u_j,x> of a unit vector x found in the span.
struct SpanNetwork {
  const double* directions;  // (h, rank) unit rows
  const double* log_a;       // (h,) finite
  const double* sign;        // (h,) +-1
  Index width;               // h
  Index rank;
  double p;  // >= 1
  double slack, doubt;
};

// A point in the span, in units of its own length there, and the network as it sees it: contributions relative to the
// largest own term at the point, values and contributions already moved against y by what float64 may have done.
struct SpanPoint {
  // x (rank,) the part of a unit vector that lies in the span; false if no own neuron is active there.
  bool set(const SpanNetwork& net, const double* x, double y);

  double size = 0.0;       // ||x||
  double blur = 0.0;       // 1 / size: the length of the whole vector in these units
  Eigen::VectorXd x;       // (rank,) unit
  Eigen::VectorXd a;       // (h,) 0 for an own neuron that is left out, infinite for a rival beyond float64
  Eigen::VectorXd margin;  // (h,) what is added to values: -slack of own, +slack of rivals, times blur
  std::vector<bool> own;   // (h,)
};

// x, d (n, rank): parts of unit vectors in the span and witnesses, y (n,). Raises lower (n,), all in units of ||x_i||;
// points whose lower is at least (1 - tolerance) ||d|| are left alone. done (n,) becomes 1 where it has not been asked
// to stop.
void tighten(Team& team, const SpanNetwork& net, const double* x, const double* d, const double* y, Index n,
             double tolerance, const Interrupt& interrupt, double* lower, std::uint8_t* done);

}  // namespace preluflow
