#include "preluflow/robustness/node_multipliers.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr int kSteps = 30;         // of Newton's method,
constexpr int kHalvings = 8;       // of one of them,
constexpr int kDoublings = 40;     // of l until A is positive definite
constexpr double kSettled = 1e-6;  // of l enough^2: a step that promises less is the last
constexpr double kLeast = 0.2;     // of l: no step goes lower
constexpr double kFree = std::numeric_limits<double>::infinity();
constexpr double kRidge = 1e-10;  // relatively, on the second derivatives

}  // namespace

// Sets A, b_w, d = A^-1 b_w/2 and the value; false if A is not positive definite.
bool NodeMultipliers::try_at(const NodeMajorant& F, const Node& node, double enough, double l, const VectorXd& w) {
  A_.triangularView<Eigen::Lower>() = -F.Q;
  A_.diagonal().array() += l;
  b_ = F.b;
  double value = F.c0 + l * enough * enough;
  for (Index i = 0; i < w.size(); ++i) {
    if (!(w(i) > 0.0)) continue;
    const double low = node.low(F.neurons() + i), high = node.high(F.neurons() + i);
    A_.selfadjointView<Eigen::Lower>().rankUpdate(F.columns.col(F.neurons() + i), w(i));
    b_ += (w(i) * (low + high)) * F.columns.col(F.neurons() + i);
    value -= w(i) * low * high;
  }
  llt_.compute(A_);
  if (llt_.info() != Eigen::Success) return false;
  d_ = 0.5 * b_;
  llt_.solveInPlace(d_);
  value_ = value + 0.5 * b_.dot(d_);
  return std::isfinite(value_);
}

// The value's first and second derivatives in (l, w): enough^2 - ||d||^2 and (s - low)(high - s), s = <n,d>;
// 2 u^T A^-1 u' with u = -d and u = ((low + high)/2 - s) n.
void NodeMultipliers::derive(const NodeMajorant& F, const Node& node, double enough) {
  const Index count = w_.size();
  U_.resize(d_.size(), count + 1);
  first_.resize(count + 1);
  U_.col(0) = -d_;
  first_(0) = enough * enough - d_.squaredNorm();
  for (Index i = 0; i < count; ++i) {
    const double low = node.low(F.neurons() + i), high = node.high(F.neurons() + i);
    const double s = F.columns.col(F.neurons() + i).dot(d_);
    first_(i + 1) = (s - low) * (high - s);
    U_.col(i + 1) = (0.5 * (low + high) - s) * F.columns.col(F.neurons() + i);
  }
  llt_.matrixL().solveInPlace(U_);
  second_.noalias() = 2.0 * U_.transpose() * U_;
  for (Index i = 0; i <= count; ++i) second_(i, i) += kRidge * second_(i, i) + 1e-300;
}

// Newton's step where no w becomes negative: those that would are held at 0 and the others step again.
VectorXd NodeMultipliers::newton(double held_l, bool held_w) const {
  const Index count = w_.size();
  VectorXd step = VectorXd::Zero(count + 1);
  std::vector<Index> free;
  if (std::isfinite(held_l))
    step(0) = held_l;
  else
    free.push_back(0);
  for (Index i = 0; i < count && !held_w; ++i)
    if (w_(i) > 0.0 || first_(i + 1) < 0.0) free.push_back(i + 1);
  while (!free.empty()) {
    const auto size = static_cast<Index>(free.size());
    Eigen::MatrixXd part(size, size);
    VectorXd right(size);
    VectorXd held = step;
    for (Index i : free) held(i) = 0.0;
    for (Index i = 0; i < size; ++i) {
      const Index at = free[static_cast<std::size_t>(i)];
      right(i) = -first_(at) - second_.row(at).dot(held);
      for (Index j = 0; j < size; ++j) part(i, j) = second_(at, free[static_cast<std::size_t>(j)]);
    }
    const VectorXd solution = part.ldlt().solve(right);
    std::vector<Index> left;
    for (Index i = 0; i < size; ++i) {
      const Index at = free[static_cast<std::size_t>(i)];
      const bool below = at > 0 && !(w_(at - 1) + solution(i) >= 0.0);
      step(at) = below ? -w_(at - 1) : solution(i);
      if (!below) left.push_back(at);
    }
    if (left.size() == free.size()) break;
    free = std::move(left);
  }
  return step;
}

bool NodeMultipliers::search(const NodeMajorant& F, const Node& node, double enough, double l, const VectorXd& w,
                             bool held) {
  const Index count = F.terms() - F.neurons();
  w_.setZero(count);
  w_.head(std::min(count, w.size())) = w.head(std::min(count, w.size())).cwiseMax(0.0);
  l_ = l > 0.0 ? l : std::max(F.b.norm() / (2.0 * enough), 1e-3 * std::abs(F.c0) / (enough * enough));
  if (!(l_ > 0.0)) return false;
  for (int k = 0; !try_at(F, node, enough, l_, w_); l_ *= 2.0)
    if (++k > kDoublings) return false;
  VectorXd next;
  for (int k = 0; k < kSteps && value_ >= 0.0; ++k) {
    derive(F, node, enough);
    VectorXd step = newton(kFree, held);
    // Far beyond the ball the value is nearly a pole in l, which Newton's step for 1/||d|| = 1/enough takes at once.
    const double length = d_.norm();
    if (length > enough && step(0) > 0.0)
      step = newton(step(0) * 2.0 * length * length / (enough * (length + enough)), held);
    if (!step.allFinite() || !(-first_.dot(step) > kSettled * l_ * enough * enough)) break;
    const double before = value_;
    double share = 1.0, l_next = l_;
    bool lower = false;
    for (int halving = 0; halving < kHalvings && !lower; ++halving, share *= 0.4) {
      l_next = std::max(l_ + share * step(0), kLeast * l_);
      next = (w_ + share * step.tail(count)).cwiseMax(0.0);
      lower = try_at(F, node, enough, l_next, next) && value_ < before;
    }
    if (!lower) {
      value_ = before;
      break;
    }
    l_ = l_next;
    w_ = next;
  }
  return true;
}

}  // namespace preluflow
