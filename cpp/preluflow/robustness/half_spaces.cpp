#include "preluflow/robustness/half_spaces.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

}  // namespace

double length_of(const VectorXd& v) {
  const double largest = v.size() ? v.cwiseAbs().maxCoeff() : 0.0;
  return largest > 0.0 && std::isfinite(largest) ? largest * (v / largest).norm() : largest;
}

void HalfSpaces::add(const Eigen::Ref<const VectorXd>& c, double e, double rounding) {
  if (count_ == e_.size()) {
    c_.conservativeResize(Eigen::NoChange, 2 * count_);
    M_.conservativeResize(2 * count_, 2 * count_);
    e_.conservativeResize(2 * count_);
    rounding_.conservativeResize(2 * count_);
  }
  c_.col(count_) = c;
  e_(count_) = e;
  rounding_(count_) = rounding;
  for (Index i = 0; i <= count_; ++i) M_(i, count_) = M_(count_, i) = c_.col(i).dot(c);
  ++count_;
}

VectorXd HalfSpaces::shortest(double scale, double inside, const VectorXd& start, VectorXd& d) const {
  const VectorXd e = e_.head(count_).array() + inside;
  const VectorXd weights = min_norm_weights(M_.topLeftCorner(count_, count_), e, scale, start);
  d.noalias() = -c_.leftCols(count_) * weights;
  return weights;
}

double HalfSpaces::bound(const VectorXd& weights, double reach) const {
  const double total = weights.sum();
  if (!(total > 0.0)) return 0.0;
  // <sum, d> <= -level; of directions lost in rounding, `reach` bounds what they may contribute.
  const double level = weights.dot(e_.head(count_));
  const double rounding =
      weights.dot(rounding_.head(count_)) +
      kEpsilon * static_cast<double>(8 + count_) * (weights.dot(e_.head(count_).cwiseAbs()) + total * reach);
  const double length = (c_.leftCols(count_) * weights).norm() + kEpsilon * static_cast<double>(8 + count_) * total;
  return std::max((level - rounding) / length, 0.0);
}

}  // namespace preluflow
