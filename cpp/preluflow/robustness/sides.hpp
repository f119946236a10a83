// A margin as branch and bound sees it from one point: the neurons of either side that can be active within reach, in a
// unit of length of its own.
#pragma once

#include "preluflow/robustness/trust_region.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// Neurons of one side: at x + d, ||d|| <= reach, the k-th sees z_k + <column k, d>, and its term is a_k times the p-th
// power of what is positive of that.
struct Side {
  Eigen::MatrixXd columns;  // (rank, count)
  Eigen::VectorXd a, z;     // (count,) a infinite for a rival beyond float64
  Eigen::VectorXd length;   // (count,) of the columns, rounded up; 0 for constants
  Index count() const { return a.size(); }
  void gather(const std::vector<Index>& which, const Eigen::MatrixXd& directions, const Side& all);

  // The side's sum at x + d, and at x + t d for known changes = <columns, d>.
  double value(const Eigen::VectorXd& d, double p) const;
  double along(const Eigen::VectorXd& changes, double t, double p) const;
};

// Both sides: m >= own - rival at every ||d|| <= reach, values and contributions being moved against the pair's first
// class by what float64 may have done (docs/mathematics.md#rounding-branch-and-bound). The unit of length is the value
// of the neuron with the largest own term at x, whose term is 1: no power of a unit that is large or tiny is taken.
struct Sides {
  // reach in the point's unit; false if no own neuron is surely active at x, or float64 cannot hold the values. With
  // `along` (rank,), not 0, perturbations e are those of the slice through it: <e, along> = 0
  // (docs/mathematics.md#slice).
  bool set(const Neurons& net, const Span& span, const Pair& pair, const Point& point, double reach,
           const Eigen::VectorXd& along);

  Side own, rival;
  double unit = 1.0;  // in the point's unit
};

}  // namespace preluflow
