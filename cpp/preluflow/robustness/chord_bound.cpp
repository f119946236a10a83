#include "preluflow/robustness/chord_bound.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// All in units of the largest own term at the point, or of the reach (docs/mathematics.md#rounding-branch-and-bound).
constexpr double kHuge = 1e100;        // a rival's contribution beyond it: an error once active
constexpr double kSilent = 1e-10;      // values of own neurons below it, of the reach, make no tangent
constexpr double kDominant = 1e3;      // a rival's term that may be so large in a node: cut at its kink first
constexpr double kUnderflow = 1e-140;  // what powers may lose: at most kHuge times the least float64
constexpr double kLeastOwn = 1e-140;   // an own side below it has no tangent in float64
constexpr double kBinds = 0.999;       // a range that ends beyond this share of the reach binds nothing
constexpr double kThin = 1e-7;         // a range below it, of the reach, is not cut
constexpr int kRounds = 20;            // of tangents for one node

std::size_t place(Index k) { return static_cast<std::size_t>(k); }

}  // namespace

ChordBound::ChordBound(const Sides& sides, double p, double span_slack, Index rank)
    : sides_(sides), p_(p), rank_(rank), unit_(span_slack + 64.0 * kEpsilon), spaces_(rank) {
  const Side& rival = sides_.rival;
  cosines_ = rival.columns.transpose().lazyProduct(rival.columns);
  for (Index i = 0; i < rival.count(); ++i)
    for (Index k = 0; k < rival.count(); ++k) {
      const double lengths = rival.length(i) * rival.length(k);
      cosines_(i, k) = lengths > 0.0 ? std::min(std::max(cosines_(i, k) / lengths, -1.0), 1.0) : 0.0;
    }
  start_ = own(VectorXd::Zero(rank_));
}

Node ChordBound::root(double reach) const {
  const Side &own = sides_.own, &rival = sides_.rival;
  Node node;
  const Index terms = rival.count() + own.count();
  node.low.resize(terms);
  node.high.resize(terms);
  node.low << rival.z - reach * rival.length, own.z - reach * own.length;
  node.high << rival.z + reach * rival.length, own.z + reach * own.length;
  node.centre.setZero(rank_);
  return node;
}

bool ChordBound::narrow(Node& node, Index m, double reach) const {
  const Side& rival = sides_.rival;
  if (!(rival.length(m) > 0.0)) return true;
  const double room = (1e-12 + 4.0 * unit_) * reach;
  const double least = (node.low(m) - rival.z(m)) / rival.length(m),
               most = (node.high(m) - rival.z(m)) / rival.length(m);
  if (least > reach + room || most < -reach - room) return false;
  for (Index k = 0; k < rival.count(); ++k) {
    if (k == m) continue;
    const double c = cosines_(k, m), other = std::sqrt((1.0 - c) * (1.0 + c) + 1e-15);
    // max and min of c s + other sqrt(reach^2 - s^2) over s in [least, most]: concave, with its peak at c reach
    const auto extreme = [&](double cosine) {
      const double s = std::min(std::max(cosine * reach, least), most);
      return rival.length(k) * (cosine * s + other * std::sqrt(std::max(reach * reach - s * s, 0.0)) + room);
    };
    double &low = node.low(k), &high = node.high(k);
    high = std::min(high, rival.z(k) + extreme(c));
    low = std::max(low, rival.z(k) - extreme(-c));
    if (low > high + room * rival.length(k)) return false;
    high = std::max(high, low);
  }
  return true;
}

// The place of the tangent at d; -1 if the own side is all but silent there.
Index ChordBound::add_tangent(const VectorXd& d, double reach) {
  const Side& own = sides_.own;
  Plane plane;
  plane.gradient.setZero(rank_);
  double sum = 0.0;
  for (Index j = 0; j < own.count(); ++j) {
    const double t = own.z(j) + own.columns.col(j).dot(d), share = own.a(j) * slope(t, p_);
    // Leaving an own neuron out lowers the plane; one that is all but silent may cost more rounding than all the
    // others.
    if (!(t > kSilent * reach)) continue;
    plane.gradient += share * own.columns.col(j);
    plane.root_value += share * own.z(j);
    plane.root_size += share * (std::abs(own.z(j)) + own.length(j) * reach);
    sum += share * t;
  }
  if (!(sum > kLeastOwn)) return -1;
  const double unit = slope(preluflow::root(sum, p_), p_);
  plane.root_gradient = plane.gradient / unit;
  plane.value = p_ * plane.root_value - (p_ - 1.0) * sum;  // sum p share (z + <u, d> - t) + share t
  plane.size = p_ * plane.root_size + (p_ - 1.0) * sum;
  plane.gradient *= p_;
  plane.root_value /= unit;
  plane.root_size = 2.0 * plane.root_size / unit;  // the root and the slope err, too
  tangents_.push_back(std::move(plane));
  return static_cast<Index>(tangents_.size()) - 1;
}

void ChordBound::set_chords(const Node& node, double reach) {
  const Side& rival = sides_.rival;
  Chords& sum = chords_;
  sum.gradient.setZero(rank_);
  sum.slant.setZero(rival.count());
  sum.base.setZero(rival.count());
  sum.value = sum.size = sum.most = 0.0;
  sum.active = false;
  sum.bounded = true;
  for (Index k = 0; k < rival.count(); ++k) {
    const double low = node.low(k), high = node.high(k);
    if (!(high > 0.0)) continue;
    sum.active = true;
    if (!(rival.a(k) < kHuge)) {
      sum.bounded = false;
      continue;
    }
    const double at_low = rival.a(k) * relu_power(low, p_), at_high = rival.a(k) * relu_power(high, p_);
    double& slant = sum.slant(k);
    if (high - low > 1e-9 * (std::abs(high) + std::abs(low))) slant = (at_high - at_low) / (high - low);
    sum.base(k) = std::max(at_low - slant * low, at_high - slant * high);  // value of the chord at t = 0
    sum.most += at_high;
    sum.gradient += slant * rival.columns.col(k);
    sum.value += sum.base(k) + slant * rival.z(k) + kUnderflow;
    sum.size += std::abs(sum.base(k)) + slant * (std::abs(rival.z(k)) + rival.length(k) * reach);
  }
}

// The ranges that bind, and: an own neuron may not outweigh all rivals of the node.
void ChordBound::add_ranges(const Node& node, double reach) {
  const Side &own = sides_.own, &rival = sides_.rival;
  const auto at_most = [&](const Side& side, Index k, double limit, double sign) {
    const double length = side.length(k), z = side.z(k);
    if (!(length > 0.0) || !(sign * (limit - z) < kBinds * reach * length)) return;
    spaces_.add((sign / length) * side.columns.col(k), sign * (z - limit) / length,
                unit_ * ((std::abs(z) + std::abs(limit)) / length + reach));
  };
  for (Index k = 0; k < rival.count(); ++k) {
    at_most(rival, k, node.high(k), 1.0);
    at_most(rival, k, node.low(k), -1.0);
  }
  if (!chords_.bounded) return;
  for (Index j = 0; j < own.count(); ++j)
    at_most(own, j, preluflow::root((chords_.most + kUnderflow) / own.a(j), p_) * (1.0 + 1e-12), 1.0);
}

// <c, d> + e <= 0, as a half-space; false if it has no solution.
bool ChordBound::add(const VectorXd& c, double e, double size, double reach) {
  const double length = length_of(c), terms = static_cast<double>(sides_.rival.count() + sides_.own.count());
  const double rounding = unit_ * terms * size;
  // A gradient lost in rounding says nothing but the sign of the value.
  if (!(length * reach > rounding)) {
    if (e - 2.0 * rounding > 0.0) return false;
    spaces_.add(VectorXd::Zero(rank_), 0.0, 0.0);
    return true;
  }
  spaces_.add(c / length, e / length, rounding / length);
  return true;
}

// Two half-spaces: the own side's tangent is at most the chords' sum, and so are their p-th roots, of which the latter
// is concave: below its tangent at `touch`.
bool ChordBound::add_cut(const Cut& cut, double reach) {
  const Plane& plane = tangents_[place(cut.tangent)];
  const Chords& sum = chords_;
  const double height = sum.active ? preluflow::root(cut.touch, p_) : 0.0;
  const double rise = sum.active ? height / (p_ * cut.touch) : 0.0, level = height * (1.0 - 1.0 / p_);
  return add(plane.gradient - sum.gradient, plane.value - sum.value, plane.size + sum.size, reach) &&
         add(plane.root_gradient - rise * sum.gradient, plane.root_value - level - rise * sum.value,
             plane.root_size + rise * sum.size + level, reach);
}

void ChordBound::bound(Node& node, double reach, double enough) {
  set_chords(node, reach);
  spaces_.clear();
  add_ranges(node, reach);
  d_.setZero(rank_);
  weights_.resize(0);
  // The own side is not negative.
  bool possible = !chords_.bounded || add(-chords_.gradient, -chords_.value, chords_.size, reach);
  const Index ranges = spaces_.count();
  std::vector<Cut> used;
  const auto use = [&](const Cut& cut) {
    used.push_back(cut);
    possible = possible && add_cut(cut, reach);
  };
  if (tangents_.empty())
    if (const Index tangent = add_tangent(d_, reach); tangent >= 0) node.cuts.push_back({tangent, own(d_)});
  if (chords_.bounded)
    for (const Cut& cut : node.cuts) use(cut);
  for (int round = 0; round < kRounds; ++round) {
    if (!possible) node.bound = kInfinity;
    if (node.bound >= enough) return;
    weights_ = spaces_.shortest(reach, 0.0, weights_, d_);
    node.bound = std::max(node.bound, spaces_.bound(weights_, reach));
    if (node.bound >= enough) return;
    if (!chords_.bounded) break;
    const double own_sum = own(d_), most = std::max(chords_.gradient.dot(d_) + chords_.value, 0.0);
    const double gain = preluflow::root(own_sum, p_) - preluflow::root(most, p_);
    if (!(gain > 1e-7 * preluflow::root(start_, p_))) break;
    const Index tangent = add_tangent(d_, reach);
    if (tangent < 0) break;
    use({tangent, std::max(most, 1e-6 * own_sum)});
  }
  keep_cuts(node, used, ranges);
}

void ChordBound::keep_cuts(Node& node, const std::vector<Cut>& used, Index ranges) {
  node.cuts.clear();
  for (std::size_t i = 0; i < used.size(); ++i) {
    const Index at = ranges + 2 * static_cast<Index>(i);
    if (at + 1 < weights_.size() && weights_(at) + weights_(at + 1) > 0.0) node.cuts.push_back(used[i]);
  }
}

VectorXd ChordBound::inside(double margin, double reach) const {
  VectorXd d(rank_);
  spaces_.shortest(reach, margin * reach, weights_, d);
  return d;
}

bool ChordBound::choose_cut(Node& node, double reach) const {
  const Side& rival = sides_.rival;
  double worst = 0.0;
  for (Index k = 0; k < rival.count(); ++k) {
    const double low = node.low(k), high = node.high(k);
    if (!(high - low > kThin * reach * rival.length(k))) continue;
    if (low < 0.0 && high > 0.0 && !(rival.a(k) * relu_power(high, p_) <= kDominant)) {
      node.term = k;
      node.at = 0.0;
      return true;
    }
    if (!(rival.a(k) < kHuge)) continue;
    const double t = std::min(std::max(rival.z(k) + rival.columns.col(k).dot(d_), low), high);
    const double off = chords_.base(k) + chords_.slant(k) * t - rival.a(k) * relu_power(t, p_);
    if (!(off > worst)) continue;
    worst = off;
    node.term = k;
    node.at = std::min(std::max(t, low + 0.15 * (high - low)), high - 0.15 * (high - low));
    if (low < 0.0 && high > 0.0 && p_ < 2.0 && std::abs(node.at) < 0.5 * (high - low)) node.at = 0.0;  // the kink
  }
  return worst > 0.0;
}

}  // namespace preluflow
