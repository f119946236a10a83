// What quadratics prove about a node, and where they would have it cut: majorants of several kinds, the ellipsoid each
// leaves, on the narrower ranges again, until that does not help any more (docs/mathematics.md#contraction).
#pragma once

#include <functional>
#include <utility>

#include "preluflow/robustness/ellipsoid.hpp"
#include "preluflow/robustness/node.hpp"
#include "preluflow/robustness/node_majorant.hpp"
#include "preluflow/robustness/node_multipliers.hpp"
#include "preluflow/robustness/sides.hpp"

namespace preluflow {

class QuadraticBound {
 public:
  // `stop` is asked between majorants: what is proved until then counts.
  QuadraticBound(const Sides& sides, double p, double span_slack, Index rank, std::function<bool()> stop)
      : p_(p), stop_(std::move(stop)), F_(sides, p, span_slack), multipliers_(rank), ellipsoid_(rank), best_(rank) {}

  // Raises the node's bound and narrows its ranges, in so many passes at most; `enough` is all that is asked of the
  // bound. False if the node holds no error within reach.
  bool bound(Node& node, double reach, double enough, int passes);

  // Moves the centre of a node that was cut along `term` into the range that is left there, at the length given.
  void into(Node& node, double length) const;

  double found() const { return best_bound_; }  // the largest bound of bound()'s own; negative: none

  // Chooses where to cut the node: across the direction in which F is bent most, for the width it has there, if
  // possible at the witness; or along a neuron's value. False if nothing would be gained.
  bool choose_cut(Node& node, double reach, const Eigen::VectorXd& witness);

 private:
  bool follow(Node& node, int kind, double reach, double enough, double& gained);
  bool multipliers(const Node& node, const Eigen::VectorXd& touch, double enough, const Kind& kind, double& l,
                   Eigen::VectorXd& w);
  double widest_direction(Node& node, double reach);
  bool known(const Eigen::VectorXd& n) const;

  double p_;
  std::function<bool()> stop_;
  NodeMajorant F_;
  NodeMultipliers multipliers_;
  Ellipsoid ellipsoid_, best_;  // best: the one with the largest bound of the node, if `any_`
  bool any_ = false;
  double best_bound_ = 0.0;
};

}  // namespace preluflow
