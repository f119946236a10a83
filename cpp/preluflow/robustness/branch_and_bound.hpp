// The radius of a point to a stated gap, by branch and bound over what the rival neurons see.
//
// A node holds a range of <u_k, x + d> + o_k for every rival k, and a bound from below on ||d|| of its errors
// (chord_bound.hpp, quadratic_bound.hpp). The node with the least bound is cut in two, until every node is at least (1
// - gap) times the shortest error known (docs/mathematics.md#branch-and-bound).
#pragma once

#include "preluflow/robustness/trust_region.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

struct ExactOptions {
  double gap;
  Index most_nodes;     // for each point and pair
  double most_seconds;  // likewise, about
};

// What a search did, for whoever debugs it.
struct ExactTrace {
  Index nodes = 0;      // looked at
  double first = 0.0;   // the bound of all that is within reach, before anything was cut, in the point's unit
  Index witnesses = 0;  // shorter errors found
  bool closed = false;  // whether no node was left that is not within the gap
};

// x (rank,): the part of the point that lies in the span, d (rank,) a witness of this pair or 0: none is known; both in
// the point's unit. `limit` is the shortest witness of the point against any class: nothing beyond it is looked at.
//
// Raises lower to what is proved of this pair, at most min(limit, ||d||) (and ||x|| where errors are a cone), and
// replaces d by any shorter error found within that. Returns the nodes looked at, 0 where nothing can be said (tanh; a
// term of normalised input; no own neuron; no limit and no witness), or -1 if it was asked to stop. Where options were
// not enough, lower is what the open nodes allow; after a stop it holds all the same.
Index exact_radius(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
                   double limit, const ExactOptions& options, const Interrupt& interrupt, double& lower, double* d,
                   ExactTrace* trace = nullptr);

}  // namespace preluflow
