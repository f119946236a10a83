#include "preluflow/robustness/points.hpp"

#include <cmath>
#include <limits>

#include "preluflow/lanes.hpp"
#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/shift.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr int kSafeExponent = 400;  // of the largest number: squares and their sum are normal numbers
constexpr int kOffsetBits = 20;     // a unit is at least 2^-20 of the largest offset

}  // namespace

double Unit::log() const { return std::log(size) + exponent * 0.6931471805599453; }

double Unit::back(double length) const { return std::ldexp(length * size, exponent); }

// docs/mathematics.md#rounding-units
double Unit::certified(double radius) const {
  const double result = back(radius * (1.0 - 4.0 * kEpsilon));
  return result < std::numeric_limits<double>::min() && result > 0.0 ? std::nextafter(result, 0.0) : result;
}

void Unit::back(const double* d, Index D, double* out) const {
  const Shift shift(exponent);
  for (Index k = 0; k < D; ++k) out[k] = shift(d[k] * size);
}

void Unit::in_unit(const double* d, Index D, double* out) const {
  const Shift shift(-exponent);
  for (Index k = 0; k < D; ++k) out[k] = shift(d[k]) / size;
}

double length_of(const double* d, Index D) {
  const double most = largest_size(d, D);
  if (!(most > 0.0)) return 0.0;
  int exponent = 0;
  std::frexp(most, &exponent);
  if (std::abs(exponent) < kSafeExponent) return std::sqrt(sum_of_squares(d, D));
  const Shift shift(-exponent);
  double square = 0.0;
  for (Index k = 0; k < D; ++k) {
    const double share = shift(d[k]);
    square += share * share;
  }
  return std::ldexp(std::sqrt(square), exponent);
}

Points::Points(const Canonical& canonical, const double* X, Index n) : canonical_(canonical) {
  const Index D = canonical.dim(), h = canonical.width();
  const auto rows = static_cast<std::size_t>(n);
  e_.resize(n * D);
  z_.resize(n * h);
  length_.resize(rows);
  unit_.resize(rows);
  for (Index i = 0; i < n; ++i) take(i, X + i * D);
  if (h == 0) return;
  products(canonical.value_panels(), e_.data(), n, z_.data());
  one_slack_ = canonical.neurons().homogeneous;
  if (one_slack_) {
    slack_.assign(static_cast<std::size_t>(h), canonical.slack());
    return;
  }
  if (canonical.has_norm_term()) products_.assign(z_.data(), z_.data() + z_.size());
  slack_.resize(rows * static_cast<std::size_t>(h));  // docs/mathematics.md#rounding-products
  for (Index i = 0; i < n; ++i) {
    const double length = length_[static_cast<std::size_t>(i)];
    for (Index j = 0; j < h; ++j) {
      const Index at = i * h + j;
      const auto neuron = static_cast<std::size_t>(j);
      const double offset = std::ldexp(canonical.offsets()[neuron] / unit(i).size, -unit(i).exponent);
      z_[at] += offset;
      slack_[static_cast<std::size_t>(at)] =
          canonical.slack() * length * canonical.value_lengths()[neuron] + 4.0 * kEpsilon * std::abs(offset);
    }
  }
}

// docs/mathematics.md#canonical
void Points::take(Index i, const double* x) {
  const Index D = canonical_.dim();
  const auto at = static_cast<std::size_t>(i);
  double* e = e_.data() + i * D;
  const double* center = canonical_.center();
  for (Index d = 0; d < D; ++d) e[d] = center == nullptr ? x[d] : x[d] - center[d];
  const bool tanh = canonical_.neurons().curve == Curve::tanh, homogeneous = canonical_.neurons().homogeneous;
  const double least = homogeneous ? 0.0 : std::ldexp(canonical_.largest_offset(), -kOffsetBits);
  const double most = std::max(least, largest_size(e, D));
  Unit& unit = unit_[at];
  if (!tanh && most > 0.0) std::frexp(most, &unit.exponent);
  const Shift shift(-unit.exponent);
  for (Index d = 0; d < D; ++d) e[d] = shift(e[d]);
  const double length = std::sqrt(sum_of_squares(e, D));
  unit.size = tanh ? 1.0 : std::max(length, std::ldexp(least, -unit.exponent));
  if (!(unit.size > 0.0)) unit.size = 1.0;  // x' = 0
  for (Index d = 0; d < D; ++d) e[d] /= unit.size;
  length_[at] = length / unit.size;
}

Point Points::at(Index i) const {
  const Index h = canonical_.width();
  Point point{z_.data() + i * h, one_slack_ ? slack_.data() : slack_.data() + i * h,
              length_[static_cast<std::size_t>(i)], unit(i).log()};
  if (canonical_.has_norm_term()) {
    point.x = direction(i);
    point.products = products_.data() + i * h;
  }
  return point;
}

}  // namespace preluflow
