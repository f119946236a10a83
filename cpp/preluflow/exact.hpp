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

#include "preluflow/parallel.hpp"
#include "preluflow/tight.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// x (n, rank): parts of unit vectors in the span, y (n,). Raises lower (n,), shortens d (n, rank), in units of ||x_i||;
// nodes (n,) looked at, at most `most_nodes` and for about `most_seconds` for each point: where that was not enough,
// lower is what the open nodes allow. nodes of a point left when asked to stop is not written, its lower holds all the
// same.
struct ExactOptions {
  double gap;
  Index most_nodes;
  double most_seconds;
};
void exact_radii(Team& team, const SpanNetwork& net, const double* x, const double* y, Index n,
                 const ExactOptions& options, const Interrupt& interrupt, double* lower, double* d, Index* nodes);

}  // namespace preluflow
