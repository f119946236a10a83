// A part of the perturbations within reach that branch and bound looks at: ranges of what neurons see, and of <n, d>
// for directions n. All ranges hold of every error in the part that is within reach.
#pragma once

#include <vector>

#include "preluflow/types.hpp"

namespace preluflow {

// A tangent of the own side, and where the root of the chords' sum is touched (node_bounds.hpp).
struct Cut {
  Index tangent;
  double touch;
};

struct Node {
  double bound = 0.0;          // errors of the node are not shorter
  Eigen::VectorXd low, high;   // (terms,) ranges of rivals' values, of own neurons', and along the directions
  Eigen::MatrixXd directions;  // (rank, count) unit vectors
  std::vector<Cut> cuts;       // those that mattered

  // Hints from the node it was cut from: where errors are expected, the multipliers of the ball (0: none) and of
  // directions, and the kind of quadratics that served best (-1: none).
  Eigen::VectorXd centre, pressed;
  double multiplier = 0.0;
  int kind = -1;
  int stalled = 0;  // cuts in a row that raised the bound by next to nothing

  Index term = 0;  // to cut along, at `at`
  double at = 0.0;

  bool operator<(const Node& other) const { return bound > other.bound; }  // the least bound on top of the heap

  void add_direction(const Eigen::VectorXd& along, double from, double to) {
    const Index count = directions.cols(), terms = low.size();
    directions.conservativeResize(along.size(), count + 1);
    directions.col(count) = along;
    low.conservativeResize(terms + 1);
    high.conservativeResize(terms + 1);
    low(terms) = from;
    high(terms) = to;
  }
};

}  // namespace preluflow
