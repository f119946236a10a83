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

// The value at l and w, by d = A^-1 b_w/2; false if A is not positive definite.
bool NodeMultipliers::try_at(const NodeMajorant& F, const Node& node, double enough, double l, const VectorXd& w) {
  if (!resolvent_->factorise(l, w.data())) return false;
  at_ = resolvent_->moments();
  half_.setConstant(1 + w.size(), 0.5);
  double value = F.quadratic.c0 + l * enough * enough;
  for (Index i = 0; i < w.size(); ++i) {
    const double low = node.low(F.neurons() + i), high = node.high(F.neurons() + i);
    if (!(w(i) > 0.0)) {
      half_(1 + i) = 0.0;
      continue;
    }
    half_(1 + i) *= w(i) * (low + high);
    value -= w(i) * low * high;
  }
  value_ = value + half_.dot(at_.first * half_);
  return std::isfinite(value_);
}

// The value's first and second derivatives in (l, w): enough^2 - ||d||^2 and (s - low)(high - s), s = <n,d>;
// 2 u^T A^-1 u' with u = -d and u = ((low + high)/2 - s) n.
void NodeMultipliers::derive(const NodeMajorant& F, const Node& node, double enough) {
  const Index count = w_.size();
  const VectorXd seen = at_.first * half_, moved = at_.second * half_;  // <b,d> and <n,d>, and so of A^-1 d
  const double square = half_.dot(moved);
  length_ = std::sqrt(std::max(square, 0.0));
  first_.resize(count + 1);
  first_(0) = enough * enough - square;
  VectorXd scale(count + 1);
  scale(0) = -1.0;
  second_ = at_.first;
  second_(0, 0) = resolvent_->third(half_);
  for (Index i = 0; i < count; ++i) {
    const double low = node.low(F.neurons() + i), high = node.high(F.neurons() + i), s = seen(1 + i);
    first_(i + 1) = (s - low) * (high - s);
    scale(i + 1) = 0.5 * (low + high) - s;
    second_(0, 1 + i) = second_(1 + i, 0) = moved(1 + i);
  }
  second_ = 2.0 * scale.asDiagonal() * second_ * scale.asDiagonal();
  for (Index i = 0; i <= count; ++i) second_(i, i) += kRidge * second_(i, i) + 1e-300;
}

// Newton's step where no w becomes negative and l keeps a share of itself: those that would not are held where that
// ends, and the others step again. A finite `held_l` is the step in l; with `held_w` no w moves.
VectorXd NodeMultipliers::newton(double held_l, bool held_w) const {
  const Index count = w_.size();
  VectorXd step = VectorXd::Zero(count + 1), least(count + 1);
  least << (kLeast - 1.0) * l_, -w_;
  std::vector<Index> free;
  if (std::isfinite(held_l))
    step(0) = held_l;
  else
    free.push_back(0);
  for (Index i = 0; i < count && !held_w; ++i)
    if (w_(i) > 0.0 || first_(i + 1) < 0.0) free.push_back(i + 1);
  for (bool again = true; again && !free.empty();) {
    for (Index i : free) step(i) = 0.0;
    const VectorXd right = -(first_ + second_ * step)(free);
    const VectorXd solution = second_(free, free).ldlt().solve(right);
    std::vector<Index> left;
    for (std::size_t i = 0; i < free.size(); ++i) {
      const double by = solution(static_cast<Index>(i));
      const bool inside = by >= least(free[i]);
      step(free[i]) = inside ? by : least(free[i]);
      if (inside) left.push_back(free[i]);
    }
    again = left.size() < free.size();
    free = std::move(left);
  }
  return step;
}

// Halves a step until V falls; false if it does not, or if the step promises next to nothing.
bool NodeMultipliers::descend(const NodeMajorant& F, const Node& node, double enough, const VectorXd& step) {
  if (!step.allFinite() || !(-first_.dot(step) > kSettled * l_ * enough * enough)) return false;
  const double before = value_;
  double share = 1.0;
  for (int halving = 0; halving < kHalvings; ++halving, share *= 0.4) {
    const double l = std::max(l_ + share * step(0), kLeast * l_);
    const VectorXd w = (w_ + share * step.tail(w_.size())).cwiseMax(0.0);
    if (!try_at(F, node, enough, l, w) || !(value_ < before)) continue;
    l_ = l;
    w_ = w;
    return true;
  }
  value_ = before;
  return false;
}

bool NodeMultipliers::search(const NodeMajorant& F, const Node& node, double enough, double l, const VectorXd& w,
                             bool held) {
  const Index count = F.terms() - F.neurons();
  w_.setZero(count);
  w_.head(std::min(count, w.size())) = w.head(std::min(count, w.size())).cwiseMax(0.0);
  l_ = l > 0.0 ? l
               : std::max(F.quadratic.b.norm() / (2.0 * enough), 1e-3 * std::abs(F.quadratic.c0) / (enough * enough));
  if (!(l_ > 0.0)) return false;
  resolvent_ = GramResolvent::suits(F.quadratic) ? static_cast<Resolvent*>(&by_products_) : &by_factors_;
  resolvent_->take(F.quadratic, F.columns.rightCols(count));
  for (int k = 0; !try_at(F, node, enough, l_, w_); l_ *= 2.0)
    if (++k > kDoublings) return false;
  for (int k = 0; k < kSteps && value_ >= 0.0; ++k) {
    derive(F, node, enough);
    const VectorXd step = newton(kFree, held);
    // Far beyond the ball V is nearly a pole in l, which Newton's step for 1/||d|| = 1/enough takes at once, unless it
    // is a direction's w that takes it.
    const double faster = 2.0 * length_ * length_ / (enough * (length_ + enough));
    if (length_ > enough && step(0) > 0.0 && descend(F, node, enough, newton(faster * step(0), held))) continue;
    if (!descend(F, node, enough, step)) break;
  }
  return true;
}

}  // namespace preluflow
