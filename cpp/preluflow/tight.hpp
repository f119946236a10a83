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
// kept. (mathematics.md, section 7, trust-region form; the slice and neuron-wise own terms are ours.)
#pragma once

#include "preluflow/parallel.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// A view; coordinates are those of an orthonormal basis of the neurons' span, of dimension rank.
struct SpanNetwork {
  const double* directions;  // (h, rank) unit rows
  const double* a;           // (h,) > 0
  const double* sign;        // (h,) +-1
  Index width;               // h
  Index rank;
  double p;  // >= 1
};

// x, d (n, rank): points and witnesses, y (n,), norms (n,) of the points in input coordinates, whose rounding it is.
// Raises lower (n,); points whose lower is at least (1 - tolerance) ||d|| are left alone.
void tighten(Team& team, const SpanNetwork& net, const double* x, const double* d, const double* y, const double* norms,
             Index n, double tolerance, double* lower);

}  // namespace preluflow
