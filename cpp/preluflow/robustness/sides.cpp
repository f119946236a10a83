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
  for (Index k = 0; k < count(); ++k) {
    const double value = z(k) + t * changes(k);
    if (value > 0.0) sum += a(k) * power(value, p);  // a may be infinite
  }
  return sum;
}

double Side::value(const Eigen::VectorXd& d, double p) const { return along(columns.transpose() * d, 1.0, p); }

void Side::gather(const std::vector<Index>& which, const Eigen::MatrixXd& directions, const Side& all) {
  const auto count = static_cast<Index>(which.size());
  columns.resize(directions.rows(), count);
  for (Eigen::VectorXd* values : {&a, &z, &length}) values->resize(count);
  for (Index k = 0; k < count; ++k) {
    const Index j = which[static_cast<std::size_t>(k)];
    columns.col(k) = directions.col(j);
    a(k) = all.a(j);
    z(k) = all.z(j);
    length(k) = all.length(j);
  }
}

// docs/mathematics.md#rounding-branch-and-bound
bool Sides::set(const Neurons& net, const Span& span, const Pair& pair, const Point& point, double reach,
                const Eigen::VectorXd& along) {
  const Index top = leader(net, pair, point);
  if (top < 0) return false;
  unit = point.z[top] - point.slack[top];
  const double rank = static_cast<double>(span.rank + 8), square = along.squaredNorm();
  Eigen::MatrixXd directions = Eigen::Map<const Eigen::MatrixXd>(span.directions, span.rank, net.width);
  double lost = span.slack, lost_at_point = 0.0;  // of <u, d> per length of d; of z, for the point is not quite `along`
  if (square > 0.0) {
    const Eigen::RowVectorXd shares = along.transpose() * directions / square;
    directions.noalias() -= along * shares;
    lost += 4.0 * kEpsilon * rank * (1.0 + shares.cwiseAbs().maxCoeff() * std::sqrt(square));
    lost_at_point = span.slack * std::sqrt(square);
  }
  std::vector<Index> members[2];
  Side all;
  for (Eigen::VectorXd* values : {&all.a, &all.z, &all.length}) values->resize(net.width);
  for (Index j = 0; j < net.width; ++j) {
    const double log_ratio = pair.log_a[j] - pair.log_a[top], contribution = std::exp(log_ratio);
    if (!std::isfinite(log_ratio)) continue;  // no part of this pair
    const bool is_own = pair.side[j] > 0.0;
    const double doubt = pair.doubt[j] + kEpsilon * std::abs(log_ratio);
    const double slack = (point.slack[j] + lost_at_point + lost * reach) / unit;
    double& a = all.a(j);
    all.length(j) = directions.col(j).norm() * (1.0 + kEpsilon * rank);
    all.z(j) = point.z[j] / unit + (is_own ? -slack : slack);
    const double high = all.z(j) + reach / unit * all.length(j) * (1.0 + 1e-9);
    if (!std::isfinite(high)) return false;
    if (!(high > 0.0)) continue;  // never active within reach
    a = is_own ? contribution * std::max(1.0 - doubt, 0.0) : std::max(contribution * (1.0 + doubt), kLeastRival);
    if (!(a * power(high, net.p) < kMost) || (is_own && !(a < kLargest))) {
      if (is_own) continue;  // leaving one out lowers m only
      a = kInfinity;
    }
    if (a > 0.0) members[is_own ? 0 : 1].push_back(j);
  }
  own.gather(members[0], directions, all);
  rival.gather(members[1], directions, all);
  return own.count() > 0;
}

}  // namespace preluflow
