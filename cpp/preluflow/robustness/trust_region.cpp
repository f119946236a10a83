#include "preluflow/robustness/trust_region.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr int kRounds = 12;        // of moving contacts
constexpr double kNarrow = 1.002;  // bracket of l that is narrow enough
// An own side below it, in units of its largest term at the point, is not certified: powers times contributions lose
// more.
constexpr double kUnderflow = 1e-140;
constexpr double kLargest = 1e100, kLeastRival = 1e-300;  // contributions, in that unit

// Quadratic bounds of -y f on balls around a centre, for one point.
class Majorant {
 public:
  Majorant(const Neurons& net, const Span& span, Index rank)
      : net_(net),
        span_(span),
        rank_(rank),
        columns_(rank, net.width),
        curved_(rank, net.width),
        weighted_(rank, net.width),
        Q_(rank, rank),
        A_(rank, rank),
        reach_(net.width),
        z_(net.width),
        move_(net.width),
        aimed_at_(net.width),
        contact_(net.width),
        b_(rank),
        half_(rank),
        residual_(rank),
        llt_(rank) {}

  // The ball itself: values z + <u,d>.
  void flat(const Eigen::Ref<const Eigen::MatrixXd>& directions, const SpanPoint& point, const Eigen::VectorXd& d) {
    point_ = &point;
    extent_ = point.extent;
    columns_ = directions;
    z_ = point.z;
    aim(d);
  }

  // The slice through the unit vector x: values of x + e, e orthogonal to x (docs/mathematics.md#slice).
  void slice(const Eigen::Ref<const Eigen::MatrixXd>& directions, const SpanPoint& point, const Eigen::VectorXd& d) {
    point_ = &point;
    const Eigen::VectorXd x = point.x.normalized();
    columns_ = directions;
    columns_.noalias() -= x * (directions.transpose() * x).transpose();
    z_ = point.z / point.x.norm();
    extent_ = point.extent / point.x.norm();
    const double along = x.squaredNorm() + x.dot(d) / point.x.norm();
    aim(along > 0.0 ? Eigen::VectorXd((x + d / point.x.norm()) / along - x) : d);
  }

  // Whether -y f < 0 on the ball of this radius. Contacts are at first the values at the witness, `share` of the way to
  // 0 where rivals are active (p >= 2), or at least `share` of the range's upper end from the kink (p < 2). While the
  // bound stays positive they move towards the values at its maximiser, where a quadratic that touches is lowest
  // (docs/mathematics.md#moving-contacts).
  bool certifies(double radius, double share) {
    const Index h = net_.width;
    contact_ = z_ + radius * aimed_at_;
    if (net_.p >= 2.0)
      for (Index j = 0; j < h; ++j)
        if (!is_own(j) && contact_(j) > 0.0) contact_(j) *= 1.0 - share;
    double before = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
      if (below_zero(radius, share)) {
        aimed_at_ = (contact_ - z_) / radius;
        return true;
      }
      if (round > 1 && bound_ > 0.7 * before) return false;  // too slow
      before = bound_;
      const double length = half_.norm(), step = 0.4 / (1.0 + 0.3 * round);
      half_ *= std::min(1.0, radius / std::max(length, 1e-300));
      contact_ += step * (z_ + columns_.transpose() * half_ - contact_);
    }
    return false;
  }

  void aim_again() { aimed_at_ = move_; }

 private:
  bool is_own(Index j) const { return point_->own[static_cast<std::size_t>(j)]; }

  // Bounds with the contacts there are; leaves the bound and (nearly) its maximiser, half_, behind
  // (docs/mathematics.md#trust-region; what is added for rounding: docs/mathematics.md#rounding-trust-region).
  bool below_zero(double radius, double share) {
    const double p = net_.p, extent = extent_ + radius;
    double c0 = 0.0, scale = 0.0, bends = 0.0;  // bends >= ||Q||
    b_.setZero();
    half_.setZero();
    Index curved = 0;
    for (Index j = 0; j < net_.width; ++j) {
      const double low = z_(j) - radius * reach_(j), high = z_(j) + radius * reach_(j);
      const bool own = is_own(j);
      const double a = point_->a(j);
      if (high <= 0.0 || a == 0.0) continue;      // adds nothing
      if (!own && !(a < kLargest)) return false;  // beyond float64 once it is active
      double c = contact_(j);
      if (!own && p < 2.0 && low <= 0.0) c = c > 0.0 ? std::max(c, share * high) : std::min(c, -share * high);
      const double bend = own ? -a * least_curvature(low, high, c, p) : a * most_curvature(low, high, c, p);
      const double sign = own ? -a : a, value = sign * relu_power(c, p), slant = sign * p * slope(c, p);
      // value + slant (z + s - c) + bend (z + s - c)^2 in s = <u,d>
      const double off = z_(j) - c;
      c0 += value + slant * off + bend * off * off;
      scale += std::abs(value) + std::abs(slant) * extent + std::abs(bend) * extent * extent;
      b_ += (slant + 2.0 * bend * off) * columns_.col(j);
      if (bend != 0.0) {
        curved_.col(curved) = columns_.col(j);
        weighted_.col(curved) = bend * columns_.col(j);
        bends += std::abs(bend);
        ++curved;
      }
    }
    // Rounding of the terms and of <u,d>.
    const double allowance =
        (2.0 * span_.slack + 64.0 * kEpsilon * static_cast<double>(net_.width)) * scale + kUnderflow;
    c0 += allowance;
    const double square = radius * radius, length = b_.norm();
    const double unit = kEpsilon * static_cast<double>(64 + rank_);
    bound_ = c0;
    if (!(c0 < 0.0) || !std::isfinite(scale)) return false;  // the bound at the centre
    if (curved == 0) {
      half_ = b_;
      bound_ = c0 + radius * length;
      return bound_ < 0.0;
    }
    Q_.setZero();
    Q_.triangularView<Eigen::Lower>() = weighted_.leftCols(curved) * curved_.leftCols(curved).transpose();
    bound_ = std::numeric_limits<double>::infinity();
    double bad = 0.0, good = std::numeric_limits<double>::infinity();  // l too small, l too large or large enough
    double l = std::max(length / (2.0 * radius), 1e-3 * std::abs(c0) / square);
    for (int k = 0; k < 30 && !(good < bad * kNarrow); ++k) {
      // l - Q is not only positive but above this, rounding of the factors included.
      const double floor = 1e-6 * l + 4.0 * kEpsilon * static_cast<double>(rank_) * bends;
      // What the factors and Q have lost in rounding.
      const double lost = kEpsilon * static_cast<double>(rank_ + 2) * (static_cast<double>(rank_) * l + bends);
      A_.triangularView<Eigen::Lower>() = -Q_;
      A_.diagonal().array() += l - floor;
      llt_.compute(A_);
      if (llt_.info() != Eigen::Success || !(floor > lost)) {
        bad = l;
        l = std::isinf(good) ? 2.0 * l : std::sqrt(bad * good);
        continue;
      }
      // The solution for l - floor - Q. Any d' bounds the maximum, exactly: with A = l - Q
      // (docs/mathematics.md#approximate-maximiser),
      // max_d <b,d> - d^T A d <= <b,d'> - d'^T A d' + ||b - 2 A d'||^2 / (4 lambda_min(A)), lambda_min(A) >= floor.
      half_ = 0.5 * b_;
      llt_.solveInPlace(half_);
      residual_.noalias() = Q_.selfadjointView<Eigen::Lower>() * half_;
      const double step = half_.norm();
      const double bow = l * half_.squaredNorm() - half_.dot(residual_);  // d'^T A d'
      residual_ = b_ - 2.0 * (l * half_ - residual_);
      const double value = c0 + l * square + b_.dot(half_) - bow + residual_.squaredNorm() / (4.0 * (floor - lost)) +
                           allowance + unit * (l * (square + step * step) + length * step + bends * step * step);
      bound_ = std::min(bound_, value);
      if (value < 0.0 && step <= 4.0 * extent) return true;  // farther out the allowance is not enough
      const double fall = square - step * step;              // derivative of the dual in l, which is convex
      (fall > 0.0 ? good : bad) = l;
      if (std::abs(fall) < 1e-3 * square) break;
      // Newton's step for 1/||d|| = 1/r, safeguarded.
      residual_ = half_;
      llt_.matrixL().solveInPlace(residual_);
      const double next = l + step * step / std::max(residual_.squaredNorm(), 1e-300) * (step - radius) / radius;
      const double upper = std::isfinite(good) ? good : 16.0 * l;
      if (next > bad * 1.0005 && next < 0.9995 * upper)
        l = next;
      else
        l = std::isfinite(good) ? std::sqrt(std::max(bad, 1e-6 * good) * good) : 2.0 * l;
    }
    return false;
  }

  void aim(const Eigen::VectorXd& d) {
    move_.noalias() = columns_.transpose() * (d / std::max(d.norm(), 1e-300));
    aim_again();
    reach_ = columns_.colwise().norm().transpose() * (1.0 + 1e-14);
  }

  const Neurons& net_;
  const Span& span_;
  Index rank_;
  Eigen::MatrixXd columns_, curved_, weighted_, Q_, A_;
  Eigen::VectorXd reach_, z_, move_, aimed_at_, contact_, b_, half_, residual_;
  Eigen::LLT<Eigen::MatrixXd> llt_;
  const SpanPoint* point_ = nullptr;
  double bound_ = 0.0, extent_ = 0.0;
};

// The largest certified radius in (low, high) within `tolerance` of high, or low. ok(low) need not hold.
template <class Certifies>
double largest(double low, double high, double tolerance, const Certifies& ok) {
  if (ok(high * (1.0 - 0.5 * tolerance))) return high * (1.0 - 0.5 * tolerance);
  const double wanted = std::min(low * 1.01 + 1e-3 * high, high);  // less would not be worth the search
  if (!ok(wanted)) return low;
  double yes = wanted, no = high;
  while (no - yes > tolerance * high) {
    const double middle = 0.5 * (yes + no);
    (ok(middle) ? yes : no) = middle;
  }
  return yes;
}

}  // namespace

// docs/mathematics.md#rounding-span
bool SpanPoint::set(const Neurons& net, const Span& span, const Pair& pair, const Point& point,
                    const double* coordinates, double reach) {
  x = ConstVectorMap<double>(coordinates, span.rank);
  own.resize(static_cast<std::size_t>(net.width));
  a.resize(net.width);
  z.resize(net.width);
  double level = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < net.width; ++j) {
    own[static_cast<std::size_t>(j)] = pair.side[j] > 0.0;
    z(j) = point.z[j] - pair.side[j] * (point.slack[j] + span.slack * reach);
    if (pair.side[j] > 0.0 && z(j) > 0.0) level = std::max(level, pair.log_a[j] + net.p * std::log(z(j)));
  }
  extent = net.width > 0 ? z.cwiseAbs().maxCoeff() : 0.0;
  if (!std::isfinite(level)) return false;
  for (Index j = 0; j < net.width; ++j) {
    const double log_ratio = pair.log_a[j] - level, contribution = std::exp(log_ratio);
    const double doubt = pair.doubt[j] + kEpsilon * std::abs(log_ratio);
    if (!std::isfinite(log_ratio)) {
      a(j) = 0.0;  // no part of this pair
    } else if (own[static_cast<std::size_t>(j)]) {
      a(j) =
          contribution < kLargest ? contribution * std::max(1.0 - doubt, 0.0) : 0.0;  // leaving one out lowers m only
    } else {
      a(j) = std::max(contribution * (1.0 + doubt), kLeastRival);
    }
  }
  return true;
}

bool tighten(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
             const double* d, double tolerance, const Interrupt& interrupt, double& lower) {
  // Columns are neurons: (rank, h), in memory as the rows are.
  const Eigen::Map<const Eigen::MatrixXd> directions(span.directions, span.rank, net.width);
  const Eigen::VectorXd change = ConstVectorMap<double>(d, span.rank);
  const double upper = change.norm();
  SpanPoint at;
  if (!at.set(net, span, pair, point, x, upper)) return true;
  double best = lower;
  if (!(upper > 0.0) || best >= (1.0 - tolerance) * upper) return true;
  bool stopped = false;
  Majorant majorant(net, span, span.rank);
  const auto raise = [&](double most, double share, const auto& radius_of) {
    if (best >= (1.0 - tolerance) * most) return;
    majorant.aim_again();
    const auto ok = [&](double r) {
      stopped = stopped || asked_to_stop(interrupt);
      return !stopped && majorant.certifies(radius_of(r), share);  // once stopped nothing more is tried
    };
    best = std::max(best, largest(best, most, tolerance, ok));
  };
  const double size = at.x.norm();
  if (net.homogeneous && size > 0.0) {
    majorant.slice(directions, at, change);
    for (double share : {net.p < 2.0 ? 0.02 : 0.0, net.p < 2.0 ? 0.1 : 1.0})
      raise(std::min(upper, size * (1.0 - 1e-9)), share,
            [&](double r) { return r / size / std::sqrt(1.0 - r * r / size / size); });
  }
  majorant.flat(directions, at, change);
  raise(net.homogeneous ? std::min(upper, size) : upper, net.p < 2.0 ? 0.02 : 0.0, [](double r) { return r; });
  lower = std::max(lower, best * (1.0 - 1e-9));
  return !stopped;
}

}  // namespace preluflow
