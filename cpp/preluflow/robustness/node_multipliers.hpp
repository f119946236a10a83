// Nearly the best multipliers for a node's majorant: l of the ball ||d|| <= enough, w of the node's directions.
//
// With A = l - Q + sum w_i n_i n_i^T positive definite, F(d) <= c0 - sum w_i low_i high_i + l ||d||^2
// + b_w^T A^-1 b_w/4, b_w = b + sum w_i (low_i + high_i) n_i, at every d of the node, which is convex in (l, w)
// (docs/mathematics.md#node-multipliers). What is found is a hint: any l and w >= 0 prove something.
#pragma once

#include "preluflow/robustness/node.hpp"
#include "preluflow/robustness/node_majorant.hpp"
#include "preluflow/robustness/resolvent.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

class NodeMultipliers {
 public:
  explicit NodeMultipliers(Index rank) : by_factors_(rank) {}

  // Newton's method from l and w (directions,), where these are positive; with `held` w stays as it is. False if no l
  // makes A positive definite.
  bool search(const NodeMajorant& F, const Node& node, double enough, double l, const Eigen::VectorXd& w, bool held);

  double l() const { return l_; }
  double value() const { return value_; }  // V(l, w)
  const Eigen::VectorXd& w() const { return w_; }

 private:
  bool try_at(const NodeMajorant& F, const Node& node, double enough, double l, const Eigen::VectorXd& w);
  void derive(const NodeMajorant& F, const Node& node, double enough);
  Eigen::VectorXd newton(double held_l, bool held_w) const;
  bool descend(const NodeMajorant& F, const Node& node, double enough, const Eigen::VectorXd& step);

  double l_ = 0.0, value_ = 0.0, length_ = 0.0;  // of V; ||d||
  Eigen::MatrixXd second_;
  Eigen::VectorXd w_, first_;
  Eigen::VectorXd half_;  // (1 + directions,) d is A^-1 (b and the directions, times these)
  ResolventMoments at_;
  DenseResolvent by_factors_;
  GramResolvent by_products_;
  Resolvent* resolvent_ = nullptr;
};

}  // namespace preluflow
