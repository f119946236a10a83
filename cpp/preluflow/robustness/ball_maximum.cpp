#include "preluflow/robustness/ball_maximum.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kShift = 1e-6;    // l - Q is kept above this share of l: what that costs is as small a share of l r^2
constexpr double kNarrow = 1.002;  // bracket of l that is narrow enough
constexpr double kNear = 1e-3;     // a maximiser so near the sphere, relatively in ||d||^2, is on it
constexpr int kSteps = 30;         // of the search for l
constexpr int kSlabSteps = 14;     // of that for l and mu
constexpr double kStride = 4.0;    // by which multipliers change at most in a step
constexpr int kInverse = 8;        // inverse iterations for the steepest direction

}  // namespace

void Quadratic::clear() {
  c0 = grow = cross = scale = bends = 0.0;
  curved = 0;
  b.setZero();
}

void Quadratic::form_Q() {
  for (Index k = 0; k < curved; ++k) weighted.col(k) = bend(k) * columns.col(k);
  Q.setZero();
  Q.triangularView<Eigen::Lower>() = weighted.leftCols(curved) * columns.leftCols(curved).transpose();
  Q.diagonal().array() += grow;
}

struct BallMaximum::Problem {
  const Quadratic& quadratic;
  double radius;
  const Slab& slab;
  double allowance;
  double length;  // ||b||, across the span too

  double rank() const { return static_cast<double>(quadratic.b.size()); }
  double ends() const { return slab.low + slab.high; }
};

// Whether l - Q + mu v v^T, v = along, is not only positive but above a floor, rounding of the factors included
// (docs/mathematics.md#rounding-trust-region).
bool BallMaximum::factorise(const Problem& problem) {
  const Quadratic& quadratic = problem.quadratic;
  const double bends = quadratic.bends + mu_, rank = problem.rank();
  const double floor = kShift * l_ + 4.0 * kEpsilon * rank * bends;
  const double lost = kEpsilon * (rank + 2.0) * (rank * l_ + bends);  // by the factors and Q in rounding
  room_ = floor - lost;
  gap_across_ = l_ - quadratic.grow;
  if (!(room_ > 0.0) || (quadratic.grow != 0.0 && !(gap_across_ > floor))) return false;
  A_.triangularView<Eigen::Lower>() = -quadratic.Q;
  A_.diagonal().array() += l_ - floor;
  if (mu_ > 0.0) A_.selfadjointView<Eigen::Lower>().rankUpdate(*problem.slab.along, mu_);
  llt_.compute(A_);
  ++factorisations_;
  return llt_.info() == Eigen::Success;
}

// The bound that l and mu prove by the solution for A less its floor: any d bounds the maximum, exactly
// (docs/mathematics.md#approximate-maximiser),
// max_d <b,d> - d^T A d <= <b,d'> - d'^T A d' + ||b - 2 A d'||^2 / (4 lambda_min(A)), lambda_min(A) >= room.
double BallMaximum::dual(const Problem& problem) {
  const Quadratic& quadratic = problem.quadratic;
  const Slab& slab = problem.slab;
  Eigen::VectorXd& b = along_;
  b = quadratic.b;
  if (mu_ > 0.0) b += mu_ * problem.ends() * *slab.along;
  d_ = 0.5 * b;
  llt_.solveInPlace(d_);
  residual_.noalias() = quadratic.Q.selfadjointView<Eigen::Lower>() * d_;
  across_ = quadratic.cross == 0.0 ? 0.0 : 0.5 * quadratic.cross / gap_across_;
  const double bowed = d_.dot(residual_), square = d_.squaredNorm();
  length_ = std::hypot(std::sqrt(square), across_);
  const double inside = std::min(1.0, problem.radius / std::max(length_, 1e-300));
  value_on_ball_ = quadratic.c0 + inside * (quadratic.b.dot(d_) + quadratic.cross * across_) +
                   inside * inside * (bowed + quadratic.grow * across_ * across_);
  const double s = slab.along == nullptr ? 0.0 : slab.along->dot(d_);
  const double bow = l_ * square - bowed + mu_ * s * s;  // d'^T A d'
  residual_ = b - 2.0 * (l_ * d_ - residual_);
  if (mu_ > 0.0) residual_ -= 2.0 * mu_ * s * *slab.along;
  const double ball = problem.radius * problem.radius, step = length_;
  const double slabs = mu_ * (std::abs(slab.low) + std::abs(slab.high) + step);
  const double unit = kEpsilon * static_cast<double>(64 + 4 * d_.size());
  const double rounding =
      problem.allowance + unit * (l_ * (ball + step * step) + problem.length * step + quadratic.bends * step * step +
                                  slabs * (std::abs(slab.low) + std::abs(slab.high) + step));
  return quadratic.c0 + l_ * ball - mu_ * slab.low * slab.high + b.dot(d_) - bow +
         residual_.squaredNorm() / (4.0 * room_) + 0.5 * quadratic.cross * across_ + rounding;
}

// Whether a point of the ball, and of the slab, is above 0: no multipliers will do then.
bool BallMaximum::hopeless(const Problem& problem) const {
  if (!(value_on_ball_ > 0.0)) return false;
  if (problem.slab.along == nullptr) return true;
  const double s = problem.slab.along->dot(d_) * std::min(1.0, problem.radius / std::max(length_, 1e-300));
  return s >= problem.slab.low && s <= problem.slab.high;
}

// Newton's step for 1/||d|| = 1/r, safeguarded by l too small and l large enough.
void BallMaximum::next_on_ball(const Problem& problem) {
  residual_ = d_;
  llt_.matrixL().solveInPlace(residual_);
  const double curvature = residual_.squaredNorm() + (across_ == 0.0 ? 0.0 : across_ * across_ / gap_across_);
  const double newton =
      l_ + length_ * length_ / std::max(curvature, 1e-300) * (length_ - problem.radius) / problem.radius;
  const double upper = std::isfinite(enough_) ? enough_ : 16.0 * l_;
  if (newton > too_small_ * 1.0005 && newton < 0.9995 * upper)
    l_ = newton;
  else
    l_ = std::isfinite(enough_) ? std::sqrt(std::max(too_small_, 1e-6 * enough_) * enough_) : 2.0 * l_;
}

// Newton's step for 1/r = 1/||d|| and (s - low) (high - s) = 0, s = <along,d>; mu no less than 0
// (docs/mathematics.md#slabs).
void BallMaximum::next_on_slab(const Problem& problem) {
  const Eigen::VectorXd& v = *problem.slab.along;
  const Eigen::VectorXd by_l = llt_.solve(d_), by_mu = llt_.solve(v);
  const double s = v.dot(d_), off = 0.5 * problem.ends() - s, cube = length_ * length_ * length_;
  const double first = 1.0 / problem.radius - 1.0 / length_, second = (s - problem.slab.low) * (problem.slab.high - s);
  const double first_l = -(d_.dot(by_l) + (across_ == 0.0 ? 0.0 : across_ * across_ / gap_across_)) / cube;
  const double first_mu = off * d_.dot(by_mu) / cube;
  const double second_l = -2.0 * off * v.dot(by_l), second_mu = 2.0 * off * off * v.dot(by_mu);
  const double determinant = first_l * second_mu - first_mu * second_l;
  double l = l_ - first / first_l, mu = 0.0;
  if (std::abs(determinant) > 1e-12 * std::abs(first_l * second_mu)) {
    const double to_mu = mu_ - (first_l * second - second_l * first) / determinant;
    if (to_mu > 0.0) {
      mu = std::min(to_mu, kStride * mu_ + l_);
      l = l_ - (second_mu * first - first_mu * second) / determinant;
    }
  }
  l_ = std::min(std::max(l, l_ / kStride), l_ * kStride);
  mu_ = mu;
}

// Other multipliers, after a bound that is not below 0; false if these are the best.
bool BallMaximum::next(const Problem& problem) {
  good_l_ = l_;
  good_mu_ = mu_;
  const double square = problem.radius * problem.radius, fall = square - length_ * length_;  // derivative in l
  if (problem.slab.along == nullptr) {
    (fall > 0.0 ? enough_ : too_small_) = l_;
    if (std::abs(fall) < kNear * square || enough_ < too_small_ * kNarrow) return false;
    next_on_ball(problem);
    return true;
  }
  const double s = problem.slab.along->dot(d_), width = problem.slab.high - problem.slab.low;
  const double second = (s - problem.slab.low) * (problem.slab.high - s);
  if (std::abs(fall) < kNear * square && (std::abs(second) < kNear * width * width || (mu_ == 0.0 && second > 0.0)))
    return false;
  next_on_slab(problem);
  return true;
}

// Where no neuron is curved.
bool BallMaximum::linear(const Quadratic& quadratic, double radius) {
  d_ = quadratic.b;
  bound_ = value_on_ball_ = quadratic.c0 + radius * quadratic.b.norm();
  length_ = d_.norm();
  d_ *= radius / std::max(length_, 1e-300);
  l_ = length_ / (2.0 * radius);
  return bound_ < 0.0;
}

// docs/mathematics.md#trust-region, docs/mathematics.md#rounding-trust-region
bool BallMaximum::below_zero(Quadratic& quadratic, double radius, const Slab& slab, double allowance) {
  const bool whole = slab.along == nullptr;
  quadratic.c0 += allowance;
  d_.setZero();
  across_ = 0.0;
  bound_ = value_on_ball_ = quadratic.c0;
  good_l_ = good_mu_ = 0.0;
  if (!std::isfinite(quadratic.scale) || (whole && !(quadratic.c0 < 0.0))) return false;  // the bound at the centre
  if (whole && quadratic.curved == 0 && quadratic.grow == 0.0) return linear(quadratic, radius);
  quadratic.form_Q();
  const Problem problem{quadratic, radius, slab, allowance, std::hypot(quadratic.b.norm(), quadratic.cross)};
  bound_ = kInfinity;
  too_small_ = 0.0;
  enough_ = kInfinity;
  if (!(l_ > 0.0)) l_ = std::max(problem.length / (2.0 * radius), 1e-3 * std::abs(quadratic.c0) / (radius * radius));
  if (whole) mu_ = 0.0;
  for (int k = 0; k < (whole ? kSteps : kSlabSteps); ++k) {
    if (!factorise(problem)) {
      if (whole) {
        too_small_ = l_;
        if (enough_ < too_small_ * kNarrow) return false;
        l_ = std::isinf(enough_) ? 2.0 * l_ : std::sqrt(too_small_ * enough_);
      } else {
        l_ = good_l_ > 0.0 ? 0.5 * (l_ + good_l_) : 1.5 * l_;
        mu_ = good_l_ > 0.0 ? 0.5 * (mu_ + good_mu_) : 2.0 * mu_ + 0.5 * l_;
      }
      continue;
    }
    const double value = dual(problem);
    bound_ = std::min(bound_, value);
    if (value < 0.0) return true;
    if (hopeless(problem) || !next(problem)) return false;
  }
  return false;
}

Eigen::VectorXd BallMaximum::steepest(const Quadratic& quadratic) {
  const Slab whole;
  const Problem problem{quadratic, 1.0, whole, 0.0, 0.0};
  Eigen::VectorXd v = Eigen::VectorXd::LinSpaced(quadratic.b.size(), 1.0, 2.0).normalized();
  l_ = good_l_ > 0.0 ? good_l_ : l_;
  mu_ = 0.0;
  while (!factorise(problem)) l_ *= 1.5;
  for (int k = 0; k < kInverse; ++k) {
    llt_.solveInPlace(v);
    v.normalize();
  }
  return v;
}

}  // namespace preluflow
