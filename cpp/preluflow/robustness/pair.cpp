#include "preluflow/robustness/pair.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

}  // namespace

double log_norm_term(const Neurons& net, const Pair& pair, const Point& point) {
  return pair.log_norm_weight - point.log_unit + (net.p - 1.0) * std::log(point.length);
}

bool Scaled::at(const Neurons& net, const Pair& pair, const Point& point) {
  level = -std::numeric_limits<double>::infinity();
  for (const bool certain : {true, false}) {
    for (Index j = 0; j < net.width; ++j) {
      side(j) = pair.side[j];
      const double value = certain ? point.z[j] - point.slack[j] : point.z[j];
      if (side(j) > 0.0 && value > 0.0) level = std::max(level, pair.log_a[j] + net.p * std::log(value));
    }
    if (std::isfinite(level)) break;
  }
  if (pair.norm_side > 0.0) level = std::max(level, log_norm_term(net, pair, point));
  if (!std::isfinite(level)) return false;
  const Eigen::Map<const Row> log_a(pair.log_a, net.width);
  signed_a = side * (log_a - level).exp();
  alpha = ((log_a - level) / net.p).exp();
  return true;
}

namespace {

// m <= 0 for tanh, by more than rounding.
bool is_tanh_error(const Neurons& net, const Pair& pair, const Point& point) {
  double sum = 0.0, size = 0.0;
  for (Index j = 0; j < net.width; ++j) {
    const double side = pair.side[j], a = std::exp(pair.log_a[j]);
    sum += side * a * std::tanh(point.z[j] + side * point.slack[j]) + a * pair.doubt[j];
    size += a;
  }
  return sum + kEpsilon * static_cast<double>(net.width + 16) * size <= 0.0;
}

// The sum with the norm's term, in units of the larger of both.
void add_norm_term(const Neurons& net, const Pair& pair, const Point& point, Balance& m) {
  const double log_term = log_norm_term(net, pair, point);
  if (!std::isfinite(log_term)) return;
  const double most = std::max(m.most, log_term), old = std::isfinite(m.most) ? std::exp(m.most - most) : 0.0;
  const double term = std::exp(log_term - most);
  m.difference = m.difference * old + pair.norm_side * term;
  m.size = m.size * old + term;
  m.logs = std::max(m.logs, std::abs(log_term) + std::abs(pair.log_norm_weight) + std::abs(point.log_unit));
  m.most = most;
}

}  // namespace

// docs/mathematics.md#rounding-witness
bool is_error(const Neurons& net, const Pair& pair, const Point& point, bool room) {
  if (net.curve == Curve::tanh) return room && is_tanh_error(net, pair, point);
  if (!room) {
    for (Index j = 0; j < net.width; ++j)
      if (pair.side[j] > 0.0 && point.z[j] > 0.0 && std::isfinite(pair.log_a[j])) return false;
    return !(pair.norm_side > 0.0 && point.length > 0.0);
  }
  const double terms = static_cast<double>(net.width) + 8.0 * net.p;
  Balance m = balance_by_logs(
      net, pair, [&](Index j) { return point.z[j] + pair.side[j] * point.slack[j]; },
      [&](Index j) { return pair.side[j] * pair.doubt[j]; });
  if (pair.norm_side != 0.0) add_norm_term(net, pair, point, m);
  return m.difference + 4.0 * kEpsilon * (terms + m.logs) * m.size <= 0.0;
}

}  // namespace preluflow
