#include "preluflow/robustness/pair.hpp"

namespace preluflow {

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
  if (!std::isfinite(level)) return false;
  const Eigen::Map<const Row> log_a(pair.log_a, net.width);
  signed_a = side * (log_a - level).exp();
  alpha = ((log_a - level) / net.p).exp();
  return true;
}

// docs/mathematics.md#rounding-witness
bool is_error(const Neurons& net, const Pair& pair, const Point& point, bool room) {
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  if (!room) {
    for (Index j = 0; j < net.width; ++j)
      if (pair.side[j] > 0.0 && point.z[j] > 0.0 && std::isfinite(pair.log_a[j])) return false;
    return true;
  }
  const double terms = static_cast<double>(net.width) + 8.0 * net.p;
  const Balance m = balance_by_logs(
      net, pair, [&](Index j) { return point.z[j] + pair.side[j] * point.slack[j]; },
      [&](Index j) { return pair.side[j] * pair.doubt[j]; });
  return m.difference + 4.0 * kEpsilon * (terms + m.logs) * m.size <= 0.0;
}

}  // namespace preluflow
