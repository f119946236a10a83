// F(d) = c0 + <b, d> + d^T Q d >= -m(x + d) in a node: every neuron's term is bounded by a quadratic that touches it,
// on the node's range of its value (docs/mathematics.md#curvature, docs/mathematics.md#node-quadratics).
#pragma once

#include <vector>

#include "preluflow/robustness/contacts.hpp"
#include "preluflow/robustness/node.hpp"
#include "preluflow/robustness/quadratic.hpp"
#include "preluflow/robustness/sides.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// Where quadratics touch.
struct Kind {
  bool mixed;    // at the best contacts for a mixture of perturbations, or
  double share;  // at given values, of rivals (p >= 2) this share of the way down to the least value of their range
  double
      press;  // along directions F may have this share of the curvature that the ball makes up for; negative: the best
};

class NodeMajorant {
 public:
  NodeMajorant(const Sides& sides, double p, double span_slack);
  NodeMajorant(const NodeMajorant&) = delete;  // its products are its own
  NodeMajorant& operator=(const NodeMajorant&) = delete;

  Index neurons() const { return neurons_; }
  Index terms() const { return z.size(); }
  bool is_rival(Index k) const { return k < rivals_; }

  void take(const Node& node);  // its directions, beside the neurons

  // With contacts where the values at `touch` are, or the best for `mixture`; false if a term is beyond float64.
  bool build(const Node& node, double reach, const Eigen::VectorXd& touch, const Kind& kind, const Moments& mixture);

  // The multiplier of the ball for which `touch` would be the maximiser.
  double multiplier(const Eigen::VectorXd& touch) const;

  // The weights of directions (directions,) that leave F this share of the curvature that the multiplier makes up for.
  void wanted(const Eigen::VectorXd& touch, double share, Eigen::VectorXd& weights) const;

  // Adds w (s - low)(high - s) along each direction, s = <n, d>: it is not negative in the node, and takes curvature
  // from F. weights (directions,), not negative.
  void press(const Node& node, double reach, const Eigen::VectorXd& weights);

  // By how much the curvatures of term k's quadratics from above and from below differ on its range, times its weight.
  double spread(const Node& node, Index k, double value) const;

  double unit() const { return unit_; }  // what float64 may have done to a value, relative to its parts

  Eigen::MatrixXd columns;       // (rank, terms) rivals, own neurons, directions
  ColumnMatrix rows;             // (terms, rank) the same
  Eigen::VectorXd a, z, length;  // (terms,) 0, 0 and 1 for directions
  Quadratic quadratic;           // F, its columns those of the neurons that are curved, Q formed
  double allowance = 0.0;        // for rounding; in c0 already

 private:
  double mixed_contact(const Node& node, Index k, const Moments& mixture) const;
  bool add_neuron(const Node& node, double reach, Index k, double contact, double share);
  void allow();

  double p_, unit_;
  Index rivals_, neurons_;
  std::vector<double> gram_;  // (neurons, neurons)
  InnerProducts products_;
};

}  // namespace preluflow
