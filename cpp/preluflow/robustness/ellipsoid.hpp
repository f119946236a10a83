// Where a majorant leaves room for errors. Where F <= v0 + l ||d||^2 - ||L^T (d - centre)||^2 with F >= 0 at errors,
// those within reach lie in an ellipsoid; with the ranges of the node it bounds their length from below and narrows the
// ranges (docs/mathematics.md#contraction).
#pragma once

#include "preluflow/robustness/cholesky.hpp"
#include "preluflow/robustness/half_spaces.hpp"
#include "preluflow/robustness/node_majorant.hpp"

namespace preluflow {

class Ellipsoid {
 public:
  explicit Ellipsoid(Index rank) : factors_(rank), spaces_(rank) {}

  // Proves what F is at most, by the multiplier l of the ball or a little more; false if that proves nothing.
  bool set(const NodeMajorant& F, double reach, double l);

  // Takes the ranges of the node into account: how far they are from the centre, in the ellipsoid's norm.
  void meet(const Node& node, const NodeMajorant& F);

  // No error of the node within reach is shorter.
  double bound() const;

  // Narrows the node's ranges; false if no error is left. Raises `gained` to the largest share that one lost.
  bool narrow(Node& node, const NodeMajorant& F, double& gained);

  // The range of <n, d> for errors, n a unit vector; for what narrow() was called with.
  void range(const Eigen::VectorXd& n, double& low, double& high) const;

  double multiplier() const { return l_; }
  const Eigen::VectorXd& centre() const { return centre_; }

 private:
  bool try_multiplier(const NodeMajorant& F, double reach, double l, double& v0);
  double slop(const NodeMajorant& F, Index k) const;
  void add_violated(const Node& node, const NodeMajorant& F, const Eigen::VectorXd& y, std::vector<bool>& used);

  double l_ = 0.0, v0_ = 0.0, reach_ = 0.0;
  double apart_ = 0.0;   // of the ranges from the centre, at least
  double turned_ = 0.0;  // what rounding of the direction to them may add to the radius' square
  double radius_ = 0.0;  // of the ellipsoid's norm, around the centre
  double lost_ = 0.0;    // by rounding of a value, per width of it
  Cholesky factors_;     // L
  ColumnMatrix white_;   // (terms, rank) L^-1 column_k in row k
  Eigen::VectorXd centre_, half_, residual_, seen_, width_;
  HalfSpaces spaces_;
};

}  // namespace preluflow
