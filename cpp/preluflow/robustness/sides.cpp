#include "preluflow/robustness/sides.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Contributions, in units of the largest own term's: own ones above are left out, rivals' below are raised to it.
constexpr double kLargest = 1e100, kLeastRival = 1e-300;
constexpr double kMost = 1e200;  // a term that may become larger is not held in float64, in the same unit

// The own neuron with the largest term at x, or -1.
Index leader(const Neurons& net, const Pair& pair, const Point& point) {
  double most = -kInfinity;
  Index top = -1;
  for (Index j = 0; j < net.width; ++j) {
    const double value = point.z[j] - point.slack[j];
    if (!(pair.side[j] > 0.0 && value > 0.0)) continue;
    const double term = pair.log_a[j] + net.p * std::log(value);
    if (!(term > most)) continue;
    most = term;
    top = j;
  }
  return top;
}

}  // namespace

double Side::along(const Eigen::VectorXd& changes, double t, double p) const {
  double sum = 0.0;
  for (Index k = 0; k < count(); ++k) sum += a(k) * relu_power(z(k) + t * changes(k), p);
  return sum;
}

double Side::value(const Eigen::VectorXd& d, double p) const { return along(columns.transpose() * d, 1.0, p); }

bool Sides::set(const Neurons& net, const Span& span, const Pair& pair, const Point& point, double reach,
                const Eigen::VectorXd& along) {
  const Index top = leader(net, pair, point);
  if (top < 0) return false;
  unit = point.z[top] - point.slack[top];
  Eigen::MatrixXd directions = Eigen::Map<const Eigen::MatrixXd>(span.directions, span.rank, net.width);
  double lost = span.slack;  // of <u, d>, per length of d
  if (const double square = along.squaredNorm(); square > 0.0) {
    const Eigen::RowVectorXd shares = along.transpose() * directions / square;
    directions.noalias() -= along * shares;
    lost +=
        4.0 * kEpsilon * static_cast<double>(span.rank + 8) * (1.0 + shares.cwiseAbs().maxCoeff() * std::sqrt(square));
  }
  const double longest = 1.0 + kEpsilon * static_cast<double>(span.rank + 8), within = reach / unit;
  std::vector<Index> members[2];
  Eigen::VectorXd a(net.width), z(net.width), length(net.width);
  for (Index j = 0; j < net.width; ++j) {
    const double log_ratio = pair.log_a[j] - pair.log_a[top];
    if (!std::isfinite(log_ratio)) continue;  // no part of this pair
    const bool is_own = pair.side[j] > 0.0;
    const double doubt = pair.doubt[j] + kEpsilon * std::abs(log_ratio), contribution = std::exp(log_ratio);
    const double slack = (point.slack[j] + lost * reach) / unit;
    length(j) = directions.col(j).norm() * longest;
    z(j) = point.z[j] / unit + (is_own ? -slack : slack);
    const double high = z(j) + within * length(j) * (1.0 + 1e-9);
    if (!std::isfinite(high)) return false;
    if (!(high > 0.0)) continue;  // never active within reach
    a(j) = is_own ? contribution * std::max(1.0 - doubt, 0.0) : std::max(contribution * (1.0 + doubt), kLeastRival);
    if (!(a(j) * power(high, net.p) < kMost) || (is_own && !(a(j) < kLargest))) {
      if (is_own) continue;  // leaving one out lowers m only
      a(j) = kInfinity;
    }
    if (a(j) > 0.0) members[is_own ? 0 : 1].push_back(j);
  }
  for (const bool is_own : {true, false}) {
    Side& side = is_own ? own : rival;
    const std::vector<Index>& which = members[is_own ? 0 : 1];
    const auto count = static_cast<Index>(which.size());
    side.columns.resize(span.rank, count);
    for (Eigen::VectorXd* values : {&side.a, &side.z, &side.length}) values->resize(count);
    for (Index k = 0; k < count; ++k) {
      const Index j = which[static_cast<std::size_t>(k)];
      side.columns.col(k) = directions.col(j);
      side.a(k) = a(j);
      side.z(k) = z(j);
      side.length(k) = length(j);
    }
  }
  return own.count() > 0;
}

}  // namespace preluflow
