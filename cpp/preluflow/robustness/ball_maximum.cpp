#include "preluflow/robustness/ball_maximum.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kShift = 1e-6;    // l - Q is kept above this share of l: what that costs is as small a share of l r^2
constexpr double kNarrow = 1.002;  // bracket of l that is narrow enough
constexpr double kNear = 1e-3;     // a maximiser so near the sphere, relatively in ||d||^2, is on it
constexpr int kSteps = 30;         // of the search for l
constexpr int kSlabSteps = 6;      // of that for l and mu
constexpr double kStride = 4.0;    // a mu beyond this times l has done what it can
constexpr double kSettled = 0.02;  // a mu that changes by less, relatively, is the best
constexpr double kPole = 1e-3;     // of the way to where A is singular is left, in mu
constexpr double kBeside = 0.02;   // of a slab's width: a maximiser so near it refutes a bound all the same
constexpr int kDoublings = 40, kHalvings = 50;  // of the search for mu
constexpr int kInverse = 8;                     // inverse iterations for the steepest direction

// The slab's, if there is one.
Eigen::Map<const Eigen::MatrixXd> directions_of(const Slab& slab) {
  const VectorXd* along = slab.along;
  return {along == nullptr ? nullptr : along->data(), along == nullptr ? 0 : along->size(), along == nullptr ? 0 : 1};
}

}  // namespace

struct BallMaximum::Problem {
  const Quadratic& quadratic;
  double radius;
  const Slab& slab;
  double allowance;
  double length;  // ||b||, across the span too

  double rank() const { return static_cast<double>(quadratic.b.size()); }
  double ends() const { return slab.low + slab.high; }
  // What of b, and of the slab's direction, times A^-1 makes the maximiser.
  VectorXd halves(double mu) const {
    VectorXd half = VectorXd::Constant(slab.along == nullptr ? 1 : 2, 0.5);
    if (slab.along != nullptr) half(1) *= mu * ends();
    return half;
  }
};

// Whether l - Q + mu v v^T, v = along, is not only positive but above a floor, rounding of factors included, if they
// are those of the dense resolvent (docs/mathematics.md#rounding-trust-region).
bool BallMaximum::factorise(const Problem& problem, Resolvent& resolvent) {
  const Quadratic& quadratic = problem.quadratic;
  const double bends = quadratic.bends + mu_, rank = problem.rank();
  floor_ = kShift * l_ + 4.0 * kEpsilon * rank * bends;
  room_ = floor_ - kEpsilon * (rank + 2.0) * (rank * l_ + bends);  // the latter by the factors and Q in rounding
  gap_across_ = l_ - quadratic.grow;
  if (!(room_ > 0.0) || (quadratic.grow != 0.0 && !(gap_across_ > floor_))) return false;
  ++factorisations_;
  return resolvent.factorise(l_ - floor_, &mu_);
}

// The maximiser d = A^-1 (b + mu (low + high) v) / 2 and its bound, all in numbers: `at` is of A at l and mu.
void BallMaximum::look(const Problem& problem, const ResolventMoments& at) {
  const Quadratic& quadratic = problem.quadratic;
  const Slab& slab = problem.slab;
  const VectorXd half = problem.halves(mu_), by = at.first * half;  // the latter: <b,d>, <v,d>
  const double square = half.dot(at.second * half), bow = half.dot(by), ball = problem.radius * problem.radius;
  inside_slab_ = slab.along == nullptr ? 0.0 : by(1);
  const double bowed = (l_ - floor_) * square + mu_ * inside_slab_ * inside_slab_ - bow;  // d^T Q d
  across_ = quadratic.cross == 0.0 ? 0.0 : 0.5 * quadratic.cross / gap_across_;
  length_ = std::hypot(std::sqrt(std::max(square, 0.0)), across_);
  value_ = quadratic.c0 + l_ * ball - mu_ * slab.low * slab.high + bow + 0.5 * quadratic.cross * across_;
  const double inside = std::min(1.0, problem.radius / std::max(length_, 1e-300));
  value_on_ball_ = quadratic.c0 + inside * (by(0) + quadratic.cross * across_) +
                   inside * inside * (bowed + quadratic.grow * across_ * across_);
}

// Whether the dual resolvent's bound at l and mu is below 0; it may have been factorised there.
bool BallMaximum::proved(Quadratic& quadratic, const Problem& problem, bool factorised) {
  if (!factorised) {
    quadratic.form_Q();
    by_factors_.take(quadratic, directions_of(problem.slab));
    if (!factorise(problem, by_factors_)) return false;
  }
  const double value = dual(problem);
  if (!(value < 0.0)) return false;
  bound_ = value;
  return true;
}

// The bound that l and mu prove by the solution for A less its floor: any d bounds the maximum, exactly
// (docs/mathematics.md#approximate-maximiser),
// max_d <b,d> - d^T A d <= <b,d'> - d'^T A d' + ||b - 2 A d'||^2 / (4 lambda_min(A)), lambda_min(A) >= room.
double BallMaximum::dual(const Problem& problem) {
  const Quadratic& quadratic = problem.quadratic;
  const Slab& slab = problem.slab;
  VectorXd& b = along_;
  b = quadratic.b;
  if (mu_ > 0.0) b += mu_ * problem.ends() * *slab.along;
  d_ = 0.5 * b;
  by_factors_.factors().solve(d_);
  residual_.noalias() = quadratic.Q.view().selfadjointView<Eigen::Lower>() * d_;
  const double across = quadratic.cross == 0.0 ? 0.0 : 0.5 * quadratic.cross / gap_across_;
  const double bowed = d_.dot(residual_), square = d_.squaredNorm(), step = std::hypot(std::sqrt(square), across);
  const double s = slab.along == nullptr ? 0.0 : slab.along->dot(d_);
  const double bow = l_ * square - bowed + mu_ * s * s;  // d'^T A d'
  residual_ = b - 2.0 * (l_ * d_ - residual_);
  if (mu_ > 0.0) residual_ -= 2.0 * mu_ * s * *slab.along;
  const double ball = problem.radius * problem.radius;
  const double slabs = mu_ * (std::abs(slab.low) + std::abs(slab.high) + step);
  const double unit = kEpsilon * static_cast<double>(64 + 4 * d_.size());
  const double rounding =
      problem.allowance + unit * (l_ * (ball + step * step) + problem.length * step + quadratic.bends * step * step +
                                  slabs * (std::abs(slab.low) + std::abs(slab.high) + step));
  return quadratic.c0 + l_ * ball - mu_ * slab.low * slab.high + b.dot(d_) - bow +
         residual_.squaredNorm() / (4.0 * room_) + 0.5 * quadratic.cross * across + rounding;
}

// Whether a point of the ball, and of the slab, is above 0: no multipliers will do then.
bool BallMaximum::hopeless(const Problem& problem) const {
  if (!(value_on_ball_ > 0.0)) return false;
  if (problem.slab.along == nullptr) return true;
  const double s = inside_slab_ * std::min(1.0, problem.radius / std::max(length_, 1e-300));
  const double room = kBeside * (problem.slab.high - problem.slab.low);
  return s >= problem.slab.low - room && s <= problem.slab.high + room;
}

// Newton's step for 1/||d|| = 1/r, `curvature` = d^T A^-1 d, safeguarded by l too small and l large enough.
void BallMaximum::newton(const Problem& problem, double curvature) {
  const double next =
      l_ + length_ * length_ / std::max(curvature, 1e-300) * (length_ - problem.radius) / problem.radius;
  const double upper = std::isfinite(enough_) ? enough_ : 16.0 * l_;
  if (next > too_small_ * 1.0005 && next < 0.9995 * upper)
    l_ = next;
  else
    l_ = std::isfinite(enough_) ? std::sqrt(std::max(too_small_, 1e-6 * enough_) * enough_) : 2.0 * l_;
}

// The best mu for this l, all in numbers: with other mu A changes by a multiple of v v^T (Sherman and Morrison). The
// derivative of the bound in mu is (s - low) (high - s), s = <v,d>, and grows with mu (docs/mathematics.md#slabs).
double BallMaximum::best_mu(const Problem& problem, double along_b, double along_v) const {
  const Slab& slab = problem.slab;
  const auto rise = [&](double mu) {
    const double s = 0.5 * (along_b + mu * problem.ends() * along_v) / (1.0 + (mu - mu_) * along_v);
    return (s - slab.low) * (slab.high - s);
  };
  double low = std::max(mu_ - (1.0 - kPole) / along_v, 0.0), high = std::max(2.0 * mu_, l_);
  if (rise(low) >= 0.0) return low;
  for (int k = 0; k < kDoublings && rise(high) < 0.0; ++k) high *= 2.0;
  for (int k = 0; k < kHalvings; ++k) {
    const double middle = 0.5 * (low + high);
    (rise(middle) < 0.0 ? low : high) = middle;
  }
  return high;
}

// The best mu for this l, the maximiser there, and Newton's step in l for 1/||d|| = 1/r; false if the bound is the
// best, or a maximiser refutes it.
bool BallMaximum::next_on_slab(const Problem& problem, const ResolventMoments& at, const Resolvent& resolvent) {
  const double mu = best_mu(problem, at.first(0, 1), at.first(1, 1));
  const double by = mu - mu_, kept = 1.0 / (1.0 + by * at.first(1, 1));
  const bool settled = std::abs(by) <= kSettled * (mu + mu_);
  const ResolventMoments there = at.moved(by);
  mu_ = mu;
  look(problem, there);
  shares_(1) = kept * (0.5 * mu * problem.ends() - 0.5 * by * at.first(0, 1));
  const double ball = problem.radius * problem.radius, fall = ball - length_ * length_;
  (fall > 0.0 ? enough_ : too_small_) = l_;
  if (value_ < 0.0 && !settled) return true;  // to be proved
  if (hopeless(problem) || (settled && (std::abs(fall) < kNear * ball || enough_ < too_small_ * kNarrow))) return false;
  const VectorXd half = problem.halves(mu);
  const double along = there.second.row(1).dot(half),
               loss = by * kept * shares_.dot(at.second.col(1)) * shares_.dot(at.second.col(1));
  // With l mu changes, so that s does not.
  const double held = mu > 0.0 ? along * along / there.first(1, 1) : 0.0;
  newton(problem, resolvent.third(shares_) - loss - held + beyond());
  return true;
}

// Other multipliers, after a bound that is not below 0; false if these are the best.
bool BallMaximum::next(const Problem& problem, const ResolventMoments& at, const Resolvent& resolvent) {
  if (problem.slab.along != nullptr) return next_on_slab(problem, at, resolvent);
  const double square = problem.radius * problem.radius, fall = square - length_ * length_;  // derivative in l
  (fall > 0.0 ? enough_ : too_small_) = l_;
  if (std::abs(fall) < kNear * square || enough_ < too_small_ * kNarrow) return false;
  newton(problem, resolvent.third(shares_) + beyond());
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
  good_l_ = 0.0;
  if (!std::isfinite(quadratic.scale) || (whole && !(quadratic.c0 < 0.0))) return false;  // the bound at the centre
  if (whole && quadratic.curved == 0 && quadratic.grow == 0.0) return linear(quadratic, radius);
  const bool of_products = GramResolvent::suits(quadratic);
  if (!of_products) quadratic.form_Q();
  Resolvent& resolvent = of_products ? static_cast<Resolvent&>(by_products_) : by_factors_;
  resolvent.take(quadratic, directions_of(slab));
  const Problem problem{quadratic, radius, slab, allowance, std::hypot(quadratic.b.norm(), quadratic.cross)};
  bound_ = kInfinity;
  too_small_ = 0.0;
  enough_ = kInfinity;
  shares_.resize(0);
  if (!(l_ > 0.0)) l_ = std::max(problem.length / (2.0 * radius), 1e-3 * std::abs(quadratic.c0) / (radius * radius));
  if (whole) mu_ = 0.0;
  for (int k = 0; k < (whole ? kSteps : kSlabSteps); ++k) {
    if (!factorise(problem, resolvent)) {
      if (whole || mu_ > kStride * l_) too_small_ = std::max(too_small_, l_);
      if (enough_ < l_ * kNarrow) break;
      if (!whole) mu_ = 1.5 * mu_ + 0.25 * l_;
      l_ = std::isinf(enough_) ? (whole ? 2.0 : 1.25) * l_ : std::sqrt(l_ * enough_);
      continue;
    }
    good_l_ = l_;
    const ResolventMoments at = resolvent.moments();
    look(problem, at);
    shares_ = problem.halves(mu_);
    bound_ = std::min(bound_, value_);
    if (value_ < 0.0 && proved(quadratic, problem, !of_products)) return true;
    if (hopeless(problem) || !next(problem, at, resolvent)) break;
  }
  if (shares_.size() > 0) d_ = resolvent.combine(shares_);
  return false;
}

VectorXd BallMaximum::steepest(Quadratic& quadratic) {
  const Slab whole;
  const Problem problem{quadratic, 1.0, whole, 0.0, 0.0};
  VectorXd v = VectorXd::LinSpaced(quadratic.b.size(), 1.0, 2.0).normalized();
  quadratic.form_Q();
  by_factors_.take(quadratic, directions_of(whole));
  l_ = good_l_ > 0.0 ? good_l_ : l_;
  mu_ = 0.0;
  for (int tries = 0; !factorise(problem, by_factors_); l_ *= 2.0)
    if (++tries > kSteps) return v;  // nothing here is finite
  for (int k = 0; k < kInverse; ++k) {
    by_factors_.factors().solve(v);
    v.normalize();
  }
  return v;
}

}  // namespace preluflow
