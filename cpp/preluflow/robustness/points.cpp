#include "preluflow/robustness/points.hpp"

#include <cmath>
#include <limits>

#include "preluflow/robustness/linear_algebra.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr int kOffsetBits = 20;  // a unit is at least 2^-20 of the largest offset

}  // namespace

Points::Points(const Canonical& canonical, const double* X, Index n) : canonical_(canonical), X_(X), n_(n) {
  const Index D = canonical.dim(), h = canonical.width();
  const auto rows = static_cast<std::size_t>(n);
  e_.resize(rows * static_cast<std::size_t>(D));
  z_.resize(rows * static_cast<std::size_t>(h));
  size_.resize(rows);
  length_.resize(rows);
  exponent_.resize(rows);
  for (Index i = 0; i < n; ++i) set_unit(i);
  if (h == 0) return;
  products(canonical.value_panels(), e_.data(), n, z_.data());
  one_slack_ = canonical.neurons().homogeneous;
  if (one_slack_) {
    slack_.assign(static_cast<std::size_t>(h), canonical.slack());
    return;
  }
  slack_.resize(z_.size());
  for (Index i = 0; i < n; ++i) {
    const double unit = size_[static_cast<std::size_t>(i)], length = length_[static_cast<std::size_t>(i)];
    for (Index j = 0; j < h; ++j) {
      const auto at = static_cast<std::size_t>(i * h + j), neuron = static_cast<std::size_t>(j);
      const double offset = std::ldexp(canonical.offsets()[neuron] / unit, -exponent_[static_cast<std::size_t>(i)]);
      z_[at] += offset;
      slack_[at] = canonical.slack() * length * canonical.value_lengths()[neuron] + 4.0 * kEpsilon * std::abs(offset);
    }
  }
}

void Points::set_unit(Index i) {
  const Index D = canonical_.dim();
  const auto at = static_cast<std::size_t>(i);
  double* e = e_.data() + i * D;
  const double *x = row(i), *center = canonical_.center();
  for (Index d = 0; d < D; ++d) e[d] = center == nullptr ? x[d] : x[d] - center[d];
  const bool fixed_unit = canonical_.neurons().curve == Curve::tanh;
  const double least = canonical_.neurons().homogeneous ? 0.0 : std::ldexp(canonical_.largest_offset(), -kOffsetBits);
  double most = least;
  for (Index d = 0; d < D; ++d) most = std::max(most, std::abs(e[d]));
  int exponent = 0;
  if (!fixed_unit && most > 0.0) std::frexp(most, &exponent);
  double square = 0.0;
  for (Index d = 0; d < D; ++d) {
    e[d] = std::ldexp(e[d], -exponent);
    square += e[d] * e[d];
  }
  const double length = std::sqrt(square);
  double size = fixed_unit ? 1.0 : std::max(length, std::ldexp(least, -exponent));
  if (!(size > 0.0)) size = canonical_.neurons().homogeneous ? 0.0 : 1.0;
  if (size > 0.0)
    for (Index d = 0; d < D; ++d) e[d] /= size;
  exponent_[at] = exponent;
  size_[at] = size;
  length_[at] = size > 0.0 ? length / size : 0.0;
}

Point Points::at(Index i) const {
  const Index h = canonical_.width();
  const auto k = static_cast<std::size_t>(i);
  return {z_.data() + i * h, one_slack_ ? slack_.data() : slack_.data() + i * h, length_[k],
          std::log(size_[k]) + exponent_[k] * 0.6931471805599453};
}

double Points::in_units_of_x(Index i, double length) const {
  const auto k = static_cast<std::size_t>(i);
  return std::ldexp(length * size_[k], exponent_[k]);
}

// docs/mathematics.md#rounding-units
double Points::certified(Index i, double radius) const {
  const double result = in_units_of_x(i, radius * (1.0 - 4.0 * kEpsilon));
  return result < std::numeric_limits<double>::min() && result > 0.0 ? std::nextafter(result, 0.0) : result;
}

void Points::perturbation(Index i, const double* d, double* out) const {
  const auto k = static_cast<std::size_t>(i);
  for (Index m = 0; m < canonical_.dim(); ++m) out[m] = std::ldexp(d[m] * size_[k], exponent_[k]);
}

void Points::in_own_unit(Index i, const double* d, double* out) const {
  const auto k = static_cast<std::size_t>(i);
  for (Index m = 0; m < canonical_.dim(); ++m) out[m] = std::ldexp(d[m], -exponent_[k]) / size_[k];
}

double Points::length_of(const double* d) const {
  double most = 0.0, square = 0.0;
  for (Index m = 0; m < canonical_.dim(); ++m) most = std::max(most, std::abs(d[m]));
  if (!(most > 0.0)) return 0.0;
  int exponent = 0;
  std::frexp(most, &exponent);
  for (Index m = 0; m < canonical_.dim(); ++m) {
    const double share = std::ldexp(d[m], -exponent);
    square += share * share;
  }
  return std::ldexp(std::sqrt(square), exponent);
}

}  // namespace preluflow
