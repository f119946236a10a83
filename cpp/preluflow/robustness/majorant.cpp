#include "preluflow/robustness/majorant.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// An own side below it, in units of its largest term at the point, is not certified: powers times contributions lose
// more.
constexpr double kUnderflow = 1e-140;
constexpr double kShift = 1e-6;    // l - Q is kept above this share of l: what that costs is as small a share of l r^2
constexpr double kNarrow = 1.002;  // bracket of l that is narrow enough
constexpr int kSteps = 30;         // of the search for l

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

bool Majorant::at(const View& view, const Contacts& contacts, double radius, Quadratic& out) const {
  out.clear();
  return add_neurons(view, contacts, radius, out) && (point_.norm_weight == 0.0 || add_norm(contacts, radius, out));
}

bool Majorant::add_neurons(const View& view, const Contacts& contacts, double radius, Quadratic& out) const {
  const bool tanh = net_.curve == Curve::tanh;
  for (Index j = 0; j < net_.width; ++j) {
    const double move = radius * view.reach(j), low = view.z(j) - move, high = view.z(j) + move, a = point_.a(j);
    if (a == 0.0 || (!tanh && high <= 0.0)) continue;  // adds nothing
    if (!std::isfinite(a)) return false;
    const bool own = point_.own[static_cast<std::size_t>(j)];
    double c = contacts.value(j);
    if (!tanh && !own && net_.p < 2.0 && low <= 0.0)
      c = c > 0.0 ? std::max(c, contacts.share * high) : std::min(c, -contacts.share * high);
    const Parabola bound = tanh ? tanh_bound(own, a, low, high, c) : power_bound(own, a, low, high, c);
    // value + slant (z + s - c) + bend (z + s - c)^2 in s = <u,d>
    const double off = view.z(j) - c, most = std::abs(off) + move;
    const double unsure = tanh ? point_.doubt(j) * std::tanh(std::max(std::abs(low), std::abs(high))) : 0.0;
    out.c0 += bound.value + bound.slant * off + bound.bend * off * off + unsure;
    out.scale += std::abs(bound.value) + std::abs(bound.slant) * (std::abs(c) + most) +
                 std::abs(bound.bend) * (std::abs(c) + most) * (std::abs(c) + most);
    const double slant = bound.slant + 2.0 * bound.bend * off;
    if (slant != 0.0) out.b += slant * view.columns.col(j);
    if (bound.bend == 0.0) continue;
    out.columns.col(out.curved) = view.columns.col(j);
    out.bend(out.curved) = bound.bend;
    out.bends += std::abs(bound.bend) * view.reach(j) * view.reach(j);
    ++out.curved;
  }
  return true;
}

// docs/mathematics.md#curvature
Parabola Majorant::power_bound(bool own, double a, double low, double high, double c) const {
  const double p = net_.p, sign = own ? -a : a;
  const double bend = own ? least_curvature(low, high, c, p) : most_curvature(low, high, c, p);
  return {sign * relu_power(c, p), sign * p * slope(c, p), sign * bend};
}

// -a tanh(t) = a tanh(-t): own terms are mirrored (docs/mathematics.md#tanh-curvature).
Parabola Majorant::tanh_bound(bool own, double a, double low, double high, double c) const {
  const double bend = own ? tanh_curvature(-high, -low, -c) : tanh_curvature(low, high, c), sign = own ? -a : a;
  return {sign * std::tanh(c), sign * tanh_slope(c), a * bend};
}

// -w v^k, w = norm_weight, k = norm_power, on v = ||x + d||^2 in [(||x|| - r)_+^2, (||x|| + r)^2], by a line: its
// tangent where it is concave, its secant where it is convex (docs/mathematics.md#norm-line).
bool Majorant::add_norm(const Contacts& contacts, double radius, Quadratic& out) const {
  constexpr double kWider = 1e-12;  // relative room at the ends of the range of v, for rounding of ||x||
  const double w = point_.norm_weight, k = point_.norm_power, length = point_.length;
  if (!std::isfinite(w)) return false;
  const double inner = std::max(length - radius, 0.0), least = inner * inner * (1.0 - kWider);
  const double most = (length + radius) * (length + radius) * (1.0 + kWider);
  const auto value = [&](double v) { return -w * std::pow(v, k); };
  double slant = 0.0, base = 0.0;
  if (w * k * (k - 1.0) >= 0.0) {
    const double v = std::min(std::max(contacts.square, std::max(least, 1e-6 * most)), most);
    slant = k * value(v) / v;
    base = value(v) - slant * v;
  } else {
    slant = (value(most) - value(least)) / (most - least);
    base = std::max(value(least) - slant * least, value(most) - slant * most);
  }
  out.c0 += base + slant * length * length;
  out.b += 2.0 * slant * point_.x;
  out.grow = slant;
  out.cross = 2.0 * slant * point_.across;
  out.scale += std::abs(base) + std::abs(value(most)) + 4.0 * std::abs(slant) * most;
  out.bends += std::abs(slant);
  return true;
}

double Majorant::allowance(const Quadratic& bound) const {
  return (2.0 * span_.slack + 64.0 * kEpsilon * static_cast<double>(net_.width)) * bound.scale + kUnderflow;
}

// Whether l - Q is not only positive but above `floor`, rounding of the factors included.
bool BallMaximum::factorise(const Quadratic& quadratic, double l, double floor, double lost) {
  gap_across_ = l - quadratic.grow;
  if (!(floor > lost) || (quadratic.grow != 0.0 && !(gap_across_ > floor))) return false;
  A_.triangularView<Eigen::Lower>() = -quadratic.Q;
  A_.diagonal().array() += l - floor;
  llt_.compute(A_);
  ++factorisations_;
  return llt_.info() == Eigen::Success;
}

// The bound that l proves by the solution for l - floor - Q: any d' bounds the maximum, exactly; with A = l - Q
// (docs/mathematics.md#approximate-maximiser)
// max_d <b,d> - d^T A d <= <b,d'> - d'^T A d' + ||b - 2 A d'||^2 / (4 lambda_min(A)), lambda_min(A) >= room.
double BallMaximum::dual(const Quadratic& quadratic, double l, double square, double room, double allowance) {
  half_ = 0.5 * quadratic.b;
  llt_.solveInPlace(half_);
  residual_.noalias() = quadratic.Q.selfadjointView<Eigen::Lower>() * half_;
  const double bow = l * half_.squaredNorm() - half_.dot(residual_);  // d'^T A d'
  residual_ = quadratic.b - 2.0 * (l * half_ - residual_);
  across_ = quadratic.cross == 0.0 ? 0.0 : 0.5 * quadratic.cross / gap_across_;
  const double step = std::hypot(half_.norm(), across_), length = std::hypot(quadratic.b.norm(), quadratic.cross);
  length_ = step;
  const double unit = kEpsilon * static_cast<double>(64 + 4 * half_.size());
  const double rounding =
      allowance + unit * (l * (square + step * step) + length * step + quadratic.bends * step * step);
  return quadratic.c0 + l * square + quadratic.b.dot(half_) - bow + residual_.squaredNorm() / (4.0 * room) +
         0.5 * quadratic.cross * across_ + rounding;
}

// Newton's step for 1/||d|| = 1/r, safeguarded by l too small (bad) and l large enough (good).
double BallMaximum::next(double l, double radius, double bad, double good) {
  residual_ = half_;
  llt_.matrixL().solveInPlace(residual_);
  const double curvature = residual_.squaredNorm() + (across_ == 0.0 ? 0.0 : across_ * across_ / gap_across_);
  const double newton = l + length_ * length_ / std::max(curvature, 1e-300) * (length_ - radius) / radius;
  const double upper = std::isfinite(good) ? good : 16.0 * l;
  if (newton > bad * 1.0005 && newton < 0.9995 * upper) return newton;
  return std::isfinite(good) ? std::sqrt(std::max(bad, 1e-6 * good) * good) : 2.0 * l;
}

// docs/mathematics.md#trust-region, docs/mathematics.md#rounding-trust-region
bool BallMaximum::below_zero(Quadratic& quadratic, double radius, double allowance) {
  const double square = radius * radius, length = std::hypot(quadratic.b.norm(), quadratic.cross);
  quadratic.c0 += allowance;
  half_.setZero();
  across_ = 0.0;
  bound_ = quadratic.c0;
  if (!(quadratic.c0 < 0.0) || !std::isfinite(quadratic.scale)) return false;  // the bound at the centre
  if (quadratic.curved == 0 && quadratic.grow == 0.0) {
    half_ = quadratic.b;
    bound_ = quadratic.c0 + radius * length;
    return bound_ < 0.0;
  }
  quadratic.form_Q();
  bound_ = kInfinity;
  const auto rank = static_cast<double>(half_.size());
  double bad = 0.0, good = kInfinity;  // l too small, l too large or large enough
  double l = std::max(length / (2.0 * radius), 1e-3 * std::abs(quadratic.c0) / square);
  for (int k = 0; k < kSteps && !(good < bad * kNarrow); ++k) {
    const double floor = kShift * l + 4.0 * kEpsilon * rank * quadratic.bends;
    // What the factors and Q have lost in rounding.
    const double lost = kEpsilon * (rank + 2.0) * (rank * l + quadratic.bends);
    if (!factorise(quadratic, l, floor, lost)) {
      bad = l;
      l = std::isinf(good) ? 2.0 * l : std::sqrt(bad * good);
      continue;
    }
    const double value = dual(quadratic, l, square, floor - lost, allowance);
    bound_ = std::min(bound_, value);
    if (value < 0.0) return true;
    const double fall = square - length_ * length_;  // derivative of the dual in l, which is convex
    (fall > 0.0 ? good : bad) = l;
    if (std::abs(fall) < 1e-3 * square) break;
    l = next(l, radius, bad, good);
  }
  return false;
}

}  // namespace preluflow
