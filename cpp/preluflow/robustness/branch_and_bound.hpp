// The radius of a point to a stated gap, by branch and bound over what the rival neurons see.
//
// A node holds a range [low_k, high_k] of <u_k, x + d> for every rival k. Within it sigma^p, which is convex, lies
// below its chord, and an own neuron's above its tangents, so errors of the node, y f(x + d) <= 0, satisfy linear
// inequalities <c_i, d> <= -e_i, one for each tangent of the own side, and those of the ranges. For any weights w >= 0
//
//   ||d|| >= sum w_i e_i / ||sum w_i c_i||
//
// bounds the node from below; the best weights are the multipliers of the shortest d that satisfies them all. The node
// with the least bound is cut in two at the shortest d, along the rival whose chord is farthest from its sigma^p there,
// until every node is at least (1 - gap) times the shortest error found (docs/mathematics.md#branch-and-bound).
#pragma once

#include "preluflow/robustness/trust_region.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

struct ExactOptions {
  double gap;
  Index most_nodes;     // for each point and pair
  double most_seconds;  // likewise, about
};

// x (rank,): the part of the point that lies in the span. Raises lower, shortens the witness d (rank,), in the point's
// unit; returns the nodes looked at, or -1 if it was asked to stop. Where a limit was not enough, lower
// is what the open nodes allow; after a stop it holds all the same.
Index exact_radius(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
                   const ExactOptions& options, const Interrupt& interrupt, double& lower, double* d);

}  // namespace preluflow
