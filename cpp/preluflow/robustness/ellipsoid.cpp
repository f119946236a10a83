#include "preluflow/robustness/ellipsoid.hpp"

#include <cmath>
#include <limits>

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// docs/mathematics.md#rounding-branch-and-bound
constexpr double kShift = 1e-6;  // l - Q is kept above this share of l: what that costs is as small a share of l r^2
constexpr double kMore[] = {1.0, 1.00001, 1.001, 1.02, 1.2, 2.0};  // of the multiplier given, tried in turn
constexpr double kFar = 8.0;    // maximisers beyond it, of the reach, are not used: rounding is paid for up to there
constexpr double kOver = 1e-3;  // of its width: a range that is exceeded by less is not taken into account
constexpr int kMeetings = 3;    // rounds of ranges that the nearest point exceeds
constexpr double kProducts =
    16.0;  // rounding of <column, d> for ||d|| up to kFar times the reach, in F's units of rounding
constexpr double kInward = 1e-9;  // relative room for what rounding does to squares of distances
constexpr double kWider = 1e-6;   // of the width of a range, likewise

}  // namespace

// With A = l - Q >= L L^T, F(d) <= v0 + l ||d||^2 - ||L^T (d - d')||^2 for the solution d' of (A - floor) d' = b/2
// (docs/mathematics.md#contraction).
bool Ellipsoid::try_multiplier(const NodeMajorant& F, double reach, double l, double& v0) {
  const auto rank = static_cast<double>(F.quadratic.b.size());
  const double floor = kShift * l + 4.0 * kEpsilon * rank * F.quadratic.bends;
  const double lost = kEpsilon * (rank + 2.0) * (rank * l + F.quadratic.bends);
  factors_.set(l - floor, F.quadratic.Q);
  if (!(floor > lost) || !factors_.factorise()) return false;
  half_ = 0.5 * F.quadratic.b;
  factors_.solve(half_);
  residual_.noalias() = F.quadratic.Q.view().selfadjointView<Eigen::Lower>() * half_;
  const double step = half_.norm(), bow = l * half_.squaredNorm() - half_.dot(residual_);
  residual_ = F.quadratic.b - 2.0 * (l * half_ - residual_);
  v0 = F.quadratic.c0 + F.quadratic.b.dot(half_) - bow + residual_.squaredNorm() / (4.0 * (floor - lost)) +
       F.allowance +
       kEpsilon * (64.0 + rank) *
           (l * (reach * reach + step * step) + F.quadratic.b.norm() * step + F.quadratic.bends * step * step);
  return std::isfinite(v0);
}

bool Ellipsoid::set(const NodeMajorant& F, double reach, double l) {
  reach_ = reach;
  for (double more : kMore) {
    l_ = more * l;
    if (!try_multiplier(F, reach, l_, v0_) || half_.norm() > kFar * reach) continue;
    centre_ = half_;
    return true;
  }
  return false;
}

// What rounding may have done to a value seen through the factor.
double Ellipsoid::slop(const NodeMajorant& F, Index k) const {
  return kProducts * F.unit() * (std::abs(F.z(k)) + F.length(k) * reach_) + lost_ * width_(k);
}

// Ranges that the point y, as L^T (d - centre), exceeds, as half-spaces of such points.
void Ellipsoid::add_violated(const Node& node, const NodeMajorant& F, const VectorXd& y, std::vector<bool>& used) {
  const VectorXd values = seen_ + white_.view() * y;
  for (Index k = 0; k < F.terms(); ++k) {
    if (!(width_(k) > 0.0) || !(F.length(k) > 0.0)) continue;
    const double at = values(k);
    for (const bool below : {false, true}) {
      const double over = below ? node.low(k) - at : at - node.high(k), sign = below ? -1.0 : 1.0;
      const auto place = static_cast<std::size_t>(2 * k + (below ? 1 : 0));
      if (!(over > kOver * (node.high(k) - node.low(k))) || used[place]) continue;
      used[place] = true;
      const double from_centre = sign * (seen_(k) - (below ? node.low(k) : node.high(k)));
      spaces_.add((sign / width_(k)) * white_.view().row(k).transpose(), from_centre / width_(k),
                  slop(F, k) / width_(k));
    }
  }
}

void Ellipsoid::meet(const Node& node, const NodeMajorant& F) {
  white_ = F.rows;
  factors_.solve_rows(white_);
  const Index rank = centre_.size();
  width_ = white_.view().rowwise().norm();
  seen_ = F.z;
  seen_.noalias() += F.columns.transpose() * centre_;
  apart_ = turned_ = 0.0;
  const double most = std::sqrt(std::max(v0_ + l_ * reach_ * reach_, 0.0)) + 1e-300;  // of ||y|| of errors within reach
  const double unit = kEpsilon * static_cast<double>(rank + 8);
  lost_ = unit * (std::sqrt(factors_.squares()) * (2.0 + kFar) * reach_ + 2.0 * most);
  VectorXd nearest = VectorXd::Zero(rank), weights;
  std::vector<bool> used(static_cast<std::size_t>(2 * F.terms()), false);
  spaces_.clear();
  for (int round = 0; round < kMeetings; ++round) {
    const Index before = spaces_.count();
    add_violated(node, F, nearest, used);
    if (spaces_.count() == before) break;
    weights = spaces_.shortest(10.0 * most, 0.0, weights, nearest);
    apart_ = spaces_.bound(weights, 2.0 * most);
  }
  const double length = nearest.norm();
  if (!(apart_ > 0.0) || !(length > 0.0)) {
    apart_ = 0.0;
    return;
  }
  // Errors y have <n, y> >= apart, n = nearest / length, but for what rounding turned n by: they lie around apart n,
  // within what is left of the radius.
  turned_ = 2.0 * apart_ * most * kEpsilon * static_cast<double>(8 + spaces_.count()) * weights.sum() / length;
  nearest *= apart_ / length;
  seen_.noalias() += white_.view() * nearest;
  factors_.solve_upper(nearest);
  centre_ += nearest;
}

double Ellipsoid::bound() const {
  const double square = (apart_ * apart_ * (1.0 - kInward) - v0_) / l_;
  return square > 0.0 ? std::sqrt(square) * (1.0 - 1e-12) : 0.0;
}

bool Ellipsoid::narrow(Node& node, const NodeMajorant& F, double& gained) {
  const double rest = v0_ + l_ * reach_ * reach_ - apart_ * apart_ * (1.0 - kInward) + turned_;
  if (!(rest >= 0.0)) return false;
  radius_ = std::sqrt(rest) * (1.0 + kInward);
  for (Index k = 0; k < F.terms(); ++k) {
    const double room = slop(F, k), half = width_(k) * radius_ * (1.0 + kWider) + room;
    const double before = node.high(k) - node.low(k);
    const double low = std::max(node.low(k), seen_(k) - half), high = std::min(node.high(k), seen_(k) + half);
    if (low > high + room) return false;
    node.low(k) = std::min(low, high);
    node.high(k) = std::max(low, high);
    if (before > 0.0) gained = std::max(gained, (before - (high - low)) / before);
  }
  return true;
}

void Ellipsoid::range(const VectorXd& n, double& low, double& high) const {
  VectorXd w = n;
  factors_.solve_lower(w);
  const double middle = n.dot(centre_), width = w.norm();
  const double half = width * radius_ * (1.0 + kWider) + lost_ * width + kInward * reach_;
  low = std::max(low, middle - half);
  high = std::min(high, middle + half);
}

}  // namespace preluflow
