// A tighter certified radius of m(x) = sum_j side_j a_j phi(<x,u_j> + o_j) where the tangent form of tangent.hpp is
// loose.
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

#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/robustness/pair.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// The neurons in coordinates of an orthonormal basis of their span. A view.
struct Span {
  const double* directions;  // (h, rank)
  Index rank;
  double slack;  // of <u_j,d> for a unit vector d in the span
};

// A point in the span, in its own unit (Point), and a pair of classes as it sees it: contributions relative to the
// largest own term at the point, values and contributions already moved against the pair's first class by what float64
// may have done.
struct SpanPoint {
  // x (rank,) the part of the point that lies in the span; `reach`: no perturbation is longer. False if no own neuron
  // is active there.
  bool set(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
           double reach = 1.0);

  Eigen::VectorXd x;      // (rank,)
  Eigen::VectorXd z;      // (h,) values of own neurons lowered, of rivals raised
  Eigen::VectorXd a;      // (h,) 0 for an own neuron that is left out, infinite for a rival beyond float64
  std::vector<bool> own;  // (h,)
  double extent = 0.0;    // max |z_j|
};

// x, d (rank,): the part of the point that lies in the span, and a witness. Raises lower, all in the point's unit; a
// point whose lower is at least (1 - tolerance) ||d|| is left alone. False if it was asked to stop.
bool tighten(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
             const double* d, double tolerance, const Interrupt& interrupt, double& lower);

}  // namespace preluflow
