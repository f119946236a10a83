#include <cmath>
#include <limits>

#include "preluflow/robustness/trust_region.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Contributions in units of the largest own term: beyond the first an own neuron is left out and a rival is not bounded
// once it may be active; the second raises rivals, so that none is lost to underflow.
constexpr double kLargest = 1e100, kLeastRival = 1e-300;

// log of what a neuron speaks for the pair's first class at value z; -inf if it speaks for the other one.
double log_for(const Neurons& net, double log_a, bool own, double z) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  if (net.curve == Curve::tanh) {
    const double t = std::tanh(own ? z : -z);
    return t > 0.0 ? log_a + std::log(t) : kNothing;
  }
  return own && z > 0.0 ? log_a + net.p * std::log(z) : kNothing;
}

}  // namespace

double SpanPoint::level(const Neurons& net, const Pair& pair, const Point& point) const {
  double most = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < net.width; ++j)
    most = std::max(most, log_for(net, pair.log_a[j], own[static_cast<std::size_t>(j)], z(j)));
  if (pair.norm_side > 0.0 && point.length > 0.0)
    most = std::max(most, pair.log_norm_weight - point.log_unit + (net.p - 1.0) * std::log(point.length));
  return most;
}

// docs/mathematics.md#rounding-span
bool SpanPoint::set(const Neurons& net, const Span& span, const Pair& pair, const Point& point,
                    const double* coordinates, double reach) {
  x = ConstVectorMap<double>(coordinates, span.rank);
  own.resize(static_cast<std::size_t>(net.width));
  a.resize(net.width);
  z.resize(net.width);
  doubt.setZero(net.width);
  extent = 0.0;
  for (Index j = 0; j < net.width; ++j) {
    const double length = net.length == nullptr ? 1.0 : std::max(net.length[j], 1.0);
    own[static_cast<std::size_t>(j)] = pair.side[j] > 0.0;
    z(j) = point.z[j] - pair.side[j] * (point.slack[j] + span.slack * length * reach);
    extent = std::max(extent, std::abs(z(j)));
  }
  const double most = level(net, pair, point);
  if (!std::isfinite(most)) return false;
  const bool tanh = net.curve == Curve::tanh;
  for (Index j = 0; j < net.width; ++j) {
    const double log_ratio = pair.log_a[j] - most, contribution = std::exp(log_ratio);
    const double unsure = pair.doubt[j] + kEpsilon * std::abs(log_ratio);
    if (log_ratio == -std::numeric_limits<double>::infinity()) {
      a(j) = 0.0;  // no part of this pair
    } else if (tanh) {
      a(j) = contribution < kLargest ? std::max(contribution, kLeastRival) : std::numeric_limits<double>::infinity();
      doubt(j) = unsure * a(j);
    } else if (own[static_cast<std::size_t>(j)]) {  // leaving one out lowers m only
      a(j) = contribution < kLargest ? contribution * std::max(1.0 - unsure, 0.0) : 0.0;
    } else {
      a(j) = std::max(contribution * (1.0 + unsure), kLeastRival);
      if (!(a(j) < kLargest)) a(j) = std::numeric_limits<double>::infinity();
    }
  }
  set_norm(net, span, pair, point, most);
  return true;
}

// The norm's term, its weight moved against the first class, and how long x is across the span: at least that, since
// all that it does is to give the adversary more (docs/mathematics.md#norm-line).
void SpanPoint::set_norm(const Neurons& net, const Span& span, const Pair& pair, const Point& point, double most) {
  length = point.length;
  norm_weight = norm_power = across = 0.0;
  if (pair.norm_side == 0.0) return;
  const double log_ratio = pair.log_norm_weight - point.log_unit - most, weight = std::exp(log_ratio);
  const double unsure = pair.most_doubt + kEpsilon * (16.0 + std::abs(pair.log_norm_weight) + std::abs(point.log_unit) +
                                                      std::abs(most) + net.p);
  if (pair.norm_side > 0.0)
    norm_weight = weight < kLargest ? weight * std::max(1.0 - unsure, 0.0) : 0.0;
  else
    norm_weight =
        weight < kLargest ? -std::max(weight * (1.0 + unsure), kLeastRival) : -std::numeric_limits<double>::infinity();
  norm_power = 0.5 * (net.p - 1.0);
  const double square = length * length;
  across = std::sqrt(std::max(square - x.squaredNorm(), 0.0) + (1e-12 + 16.0 * span.slack) * square);
}

}  // namespace preluflow
