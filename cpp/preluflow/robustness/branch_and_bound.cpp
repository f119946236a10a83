#include "preluflow/robustness/branch_and_bound.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <queue>

#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kHuge = 1e100;    // a rival's contribution beyond it, in units of the own side: an error once active
constexpr double kSilent = 1e-10;  // values of own neurons below it, in units of the witness, make no tangent
constexpr double kDominant = 1e3;  // a rival that may be so large in a node is cut at its kink first
constexpr double kUnderflow = 1e-140;  // what powers may lose, in the same units: at most kHuge times the least float64
constexpr double kLeastOwn = 1e-140;   // an own side below it has no tangent in float64

// ||v||, also where its squares would leave float64.
double length_of(const VectorXd& v) {
  const double largest = v.size() ? v.cwiseAbs().maxCoeff() : 0.0;
  return largest > 0.0 && std::isfinite(largest) ? largest * (v / largest).norm() : largest;
}

// A tangent of the own side, and where the root of the chords' sum is touched.
struct Cut {
  Index tangent;
  double touch;
};

struct Node {
  double bound = 0.0;
  std::vector<double> low, high;  // of each rival
  std::vector<Cut> cuts;          // those that mattered
  Index rival = 0;                // to cut along, at `cut`
  double cut = 0.0;
  bool operator<(const Node& other) const { return bound > other.bound; }  // the least bound on top of the heap
};

// Half-spaces <c_i, d> <= -e_i, ||c_i|| = 1 or 0, with their inner products; `rounding` is what float64 may have done
// to e and c.
class HalfSpaces {
 public:
  explicit HalfSpaces(Index rank) : c_(rank, 16), M_(16, 16), e_(16), rounding_(16) {}

  void add(const VectorXd& c, double e, double rounding) {
    if (count_ == e_.size()) {
      c_.conservativeResize(Eigen::NoChange, 2 * count_);
      M_.conservativeResize(2 * count_, 2 * count_);
      e_.conservativeResize(2 * count_);
      rounding_.conservativeResize(2 * count_);
    }
    c_.col(count_) = c;
    e_(count_) = e;
    rounding_(count_) = rounding;
    for (Index i = 0; i <= count_; ++i) M_(i, count_) = M_(count_, i) = c_.col(i).dot(c);
    ++count_;
  }

  Index count() const { return count_; }

  // The shortest d that satisfies them all, moved inwards by `inside`, and its multipliers.
  VectorXd shortest(double scale, double inside, const VectorXd& start, VectorXd& d) const {
    const VectorXd e = e_.head(count_).array() + inside;
    const VectorXd weights = min_norm_weights(M_.topLeftCorner(count_, count_), e, scale, start);
    d.noalias() = -c_.leftCols(count_) * weights;
    return weights;
  }

  // A bound from below on ||d|| <= reach that the weights prove, whatever they are (docs/mathematics.md#any-weights).
  double bound(const VectorXd& weights, double reach) const {
    const double total = weights.sum();
    if (!(total > 0.0)) return 0.0;
    // <sum, d> <= -level; of directions lost in rounding, `reach` bounds what they may contribute.
    const double level = weights.dot(e_.head(count_));
    const double rounding =
        weights.dot(rounding_.head(count_)) +
        kEpsilon * static_cast<double>(8 + count_) * (weights.dot(e_.head(count_).cwiseAbs()) + total * reach);
    const double length = (c_.leftCols(count_) * weights).norm() + kEpsilon * static_cast<double>(8 + count_) * total;
    return std::max((level - rounding) / length, 0.0);
  }

 private:
  Eigen::MatrixXd c_, M_;
  VectorXd e_, rounding_;
  Index count_ = 0;
};

// Two planes below the own side at x + d, everywhere: <gradient, d> + value <= sum a sigma^p, and
// <root_gradient, d> + root_value <= (sum a sigma^p)^(1/p), which is sublinear.
struct Tangent {
  VectorXd gradient, root_gradient;
  double value, size, root_value, root_size;  // size: sum of absolute terms
};

class Search {
 public:
  // The witness in the point's unit.
  Search(const Neurons& net, const Span& span, const SpanPoint& point, const VectorXd& witness)
      : p_(net.p), rank_(span.rank), best_(witness), upper_(witness.norm()), extent_(point.extent) {
    const Eigen::Map<const Eigen::MatrixXd> directions(span.directions, span.rank, net.width);
    std::vector<Index> own, rivals;
    for (Index j = 0; j < net.width; ++j) {
      if (point.a(j) == 0.0 || point.z(j) + upper_ * (1.0 + 1e-9) <= 0.0) continue;  // never active within reach
      (point.own[static_cast<std::size_t>(j)] ? own : rivals).push_back(j);
    }
    gather(directions, point, own, own_, own_a_, own_z_);
    gather(directions, point, rivals, rival_, rival_a_, rival_z_);
    gram_ = rival_.transpose().lazyProduct(rival_);
    unit_ = span.slack + 64.0 * kEpsilon;
    start_ = own_value(VectorXd::Zero(rank_));
  }

  double upper() const { return upper_; }
  const VectorXd& best() const { return best_; }
  Index nodes() const { return nodes_; }

  // The certified radius; `stop` is asked before every node.
  template <class Stop>
  double run(double gap, Index most, const Stop& stop) {
    const auto count = rival_z_.size();
    Node first;
    for (Index k = 0; k < count; ++k) {
      first.low.push_back(rival_z_(k) - upper_);
      first.high.push_back(rival_z_(k) + upper_);
    }
    for (const VectorXd& d : {VectorXd(VectorXd::Zero(rank_)), VectorXd(0.5 * best_)})
      if (const Index tangent = add_tangent(d); tangent >= 0) first.cuts.push_back({tangent, own_value(d)});
    double leaves = kInfinity;
    std::priority_queue<Node> open;
    const auto offer = [&](Node&& node) {
      ++nodes_;
      const bool divisible = look(node, (1.0 - gap) * upper_);
      if (node.bound >= (1.0 - gap) * upper_ || !divisible) {
        leaves = std::min(leaves, node.bound);
      } else {
        open.push(std::move(node));
      }
    };
    offer(std::move(first));
    while (!open.empty() && nodes_ < most && !stop()) {
      if (open.top().bound >= (1.0 - gap) * upper_) break;
      const Node node = open.top();
      open.pop();
      for (int side = 0; side < 2; ++side) {
        Node child = node;
        (side ? child.low : child.high)[static_cast<std::size_t>(node.rival)] = node.cut;
        if (narrow(child, node.rival)) offer(std::move(child));
      }
    }
    if (!open.empty()) leaves = std::min(leaves, open.top().bound);
    return std::min(leaves, upper_);
  }

 private:
  static void gather(const Eigen::Map<const Eigen::MatrixXd>& directions, const SpanPoint& point,
                     const std::vector<Index>& which, Eigen::MatrixXd& columns, VectorXd& a, VectorXd& z) {
    const auto count = static_cast<Index>(which.size());
    columns.resize(directions.rows(), count);
    a.resize(count);
    z.resize(count);
    for (Index k = 0; k < count; ++k) {
      const Index j = which[static_cast<std::size_t>(k)];
      columns.col(k) = directions.col(j);
      a(k) = point.a(j);
      z(k) = point.z(j);
    }
  }

  // The place of the tangent at d; -1 if the own side is all but silent there.
  Index add_tangent(const VectorXd& d) {
    const VectorXd none = VectorXd::Zero(rank_);
    Tangent tangent{none, none, 0.0, 0.0, 0.0, 0.0};
    double sum = 0.0, total = 0.0;
    for (Index j = 0; j < own_z_.size(); ++j) {
      const double t = own_z_(j) + own_.col(j).dot(d), share = own_a_(j) * slope(t, p_);
      // Leaving an own neuron out lowers the plane; one that is all but silent may cost more rounding than all the
      // others.
      if (!(t > kSilent * upper_)) continue;
      total += own_a_(j);
      tangent.gradient += share * own_.col(j);
      tangent.root_value += share * own_z_(j);
      tangent.root_size += share * std::abs(own_z_(j));
      sum += share * t;
    }
    if (!(sum > kLeastOwn)) return -1;
    const double unit = slope(root(sum, p_), p_);
    tangent.root_gradient = tangent.gradient / unit;
    tangent.root_value /= unit;
    const double most = root(total, p_);  // the root of their sum is at most this on the unit sphere
    tangent.root_size = tangent.root_size / unit + (extent_ + upper_) * most;
    tangent.gradient *= p_;
    tangent.value = sum - tangent.gradient.dot(d);
    tangent.size = sum + (extent_ + upper_) * p_ * unit * most;
    tangents_.push_back(std::move(tangent));
    return static_cast<Index>(tangents_.size()) - 1;
  }

  double own_value(const VectorXd& d) const {
    double sum = 0.0;
    for (Index j = 0; j < own_z_.size(); ++j) sum += own_a_(j) * relu_power(own_z_(j) + own_.col(j).dot(d), p_);
    return sum;
  }

  double rival_value(const VectorXd& d) const {
    double sum = 0.0;
    for (Index k = 0; k < rival_z_.size(); ++k) sum += rival_a_(k) * relu_power(rival_z_(k) + rival_.col(k).dot(d), p_);
    return sum;
  }

  // Ranges of the other rivals, given that of one and ||d|| <= upper; false if nothing is left
  // (docs/mathematics.md#narrowing).
  bool narrow(Node& node, Index m) const {
    const auto at = static_cast<std::size_t>(m);
    const double r = upper_, least = node.low[at] - rival_z_(m), most = node.high[at] - rival_z_(m);
    if (least > r || most < -r) return false;
    for (Index k = 0; k < rival_z_.size(); ++k) {
      if (k == m) continue;
      const double c = std::min(std::max(gram_(k, m), -1.0), 1.0), other = std::sqrt((1.0 - c) * (1.0 + c) + 1e-15);
      // max and min of c s + other sqrt(r^2 - s^2) over s in [least, most]: concave, with its peak at c r
      const auto extreme = [&](double cosine) {
        const double s = std::min(std::max(cosine * r, least), most);
        return cosine * s + other * std::sqrt(std::max(r * r - s * s, 0.0)) + (1e-12 + 4.0 * unit_) * r;
      };
      const auto place = static_cast<std::size_t>(k);
      node.high[place] = std::min(node.high[place], rival_z_(k) + extreme(c));
      node.low[place] = std::max(node.low[place], rival_z_(k) - extreme(-c));
      if (node.low[place] > node.high[place] + (1e-12 + 4.0 * unit_) * r) return false;
      node.high[place] = std::max(node.high[place], node.low[place]);
    }
    return true;
  }

  // What the rivals add up to in a node: sigma^p, which is convex, lies below its chord on every range.
  struct Chords {
    VectorXd gradient, slant, base;  // sum <= <gradient, d> + value; of each rival base + slant t
    double value = 0.0, size = 0.0;
    double most = 0.0;    // the sum's largest value
    bool active = false;  // some rival may be
    bool bounded = true;  // none of those that may be is huge: only then the above means anything
  };

  Chords chords(const Node& node) const {
    const Index count = rival_z_.size();
    Chords sum;
    sum.gradient.setZero(rank_);
    sum.slant.setZero(count);
    sum.base.setZero(count);
    for (Index k = 0; k < count; ++k) {
      const double low = node.low[static_cast<std::size_t>(k)], high = node.high[static_cast<std::size_t>(k)];
      if (!(high > 0.0)) continue;
      sum.active = true;
      if (!(rival_a_(k) < kHuge)) {
        sum.bounded = false;
        continue;
      }
      const double at_low = rival_a_(k) * relu_power(low, p_), at_high = rival_a_(k) * relu_power(high, p_);
      double& slant = sum.slant(k);
      if (high - low > 1e-9 * (std::abs(high) + std::abs(low))) slant = (at_high - at_low) / (high - low);
      sum.base(k) = std::max(at_low - slant * low, at_high - slant * high);  // value of the chord at t = 0
      sum.most += at_high;
      sum.gradient += slant * rival_.col(k);
      sum.value += sum.base(k) + slant * rival_z_(k) + kUnderflow;
      sum.size += std::abs(sum.base(k)) + slant * (extent_ + upper_);
    }
    return sum;
  }

  // The ranges that bind, and: an own neuron may not outweigh all rivals of the node.
  void add_ranges(const Node& node, const Chords& sum, HalfSpaces& spaces) const {
    for (Index k = 0; k < rival_z_.size(); ++k) {
      const auto at = static_cast<std::size_t>(k);
      const double rounding = unit_ * (extent_ + upper_);
      if (node.high[at] < rival_z_(k) + 0.999 * upper_)
        spaces.add(rival_.col(k), rival_z_(k) - node.high[at], rounding);
      if (node.low[at] > rival_z_(k) - 0.999 * upper_) spaces.add(-rival_.col(k), node.low[at] - rival_z_(k), rounding);
    }
    for (Index j = 0; j < own_z_.size() && sum.bounded; ++j) {
      const double limit = root((sum.most + kUnderflow) / own_a_(j), p_) * (1.0 + 1e-12);
      if (limit < own_z_(j) + 0.999 * upper_)
        spaces.add(own_.col(j), own_z_(j) - limit, unit_ * (extent_ + limit + upper_));
    }
  }

  // <c, d> + e <= 0, as a half-space; false if it has no solution.
  bool add(const VectorXd& c, double e, double size, HalfSpaces& spaces) const {
    const double length = length_of(c), terms = static_cast<double>(rival_z_.size() + own_z_.size());
    const double rounding = unit_ * terms * size;
    // A gradient lost in rounding says nothing but the sign of the value.
    if (!(length * upper_ > rounding)) {
      if (e - 2.0 * rounding > 0.0) return false;
      spaces.add(VectorXd::Zero(rank_), 0.0, 0.0);
      return true;
    }
    spaces.add(c / length, e / length, rounding / length);
    return true;
  }

  // Two half-spaces: the own side's tangent is at most the chords' sum, and so are their p-th roots, of which the
  // latter is concave: below its tangent at `touch` (docs/mathematics.md#branch-and-bound).
  bool add_cut(const Cut& cut, const Chords& sum, HalfSpaces& spaces) const {
    const Tangent& tangent = tangents_[static_cast<std::size_t>(cut.tangent)];
    const double height = sum.active ? root(cut.touch, p_) : 0.0;
    const double rise = sum.active ? height / (p_ * cut.touch) : 0.0, level = height * (1.0 - 1.0 / p_);
    return add(tangent.gradient - sum.gradient, tangent.value - sum.value, tangent.size + sum.size, spaces) &&
           add(tangent.root_gradient - rise * sum.gradient, tangent.root_value - level - rise * sum.value,
               tangent.root_size + rise * sum.size + level, spaces);
  }

  // Bounds a node from below and chooses where to cut it; false if it cannot be cut. `enough` is all that is asked.
  bool look(Node& node, double enough) {
    const Chords sum = chords(node);
    HalfSpaces spaces(rank_);
    add_ranges(node, sum, spaces);
    bool possible = !sum.bounded || add(-sum.gradient, -sum.value, sum.size, spaces);  // the own side is not negative
    const Index ranges = spaces.count();
    std::vector<Cut> used;
    const auto use = [&](const Cut& cut) {
      used.push_back(cut);
      possible = possible && add_cut(cut, sum, spaces);
    };
    if (sum.bounded)
      for (const Cut& cut : node.cuts) use(cut);
    VectorXd d = VectorXd::Zero(rank_), weights;
    for (int round = 0; round < 20; ++round) {
      if (!possible) node.bound = kInfinity;
      if (node.bound >= enough) return true;
      weights = spaces.shortest(upper_, 0.0, weights, d);
      node.bound = std::max(node.bound, spaces.bound(weights, upper_));
      if (node.bound >= enough) return true;
      if (!sum.bounded) break;
      const double own = own_value(d), rivals = std::max(sum.gradient.dot(d) + sum.value, 0.0);
      if (!(root(own, p_) - root(rivals, p_) > 1e-7 * root(start_, p_))) break;
      const Index tangent = add_tangent(d);
      if (tangent < 0) break;
      use({tangent, std::max(rivals, 1e-6 * own)});
    }
    node.cuts.clear();
    for (std::size_t i = 0; i < used.size(); ++i) {
      const Index place = ranges + 2 * static_cast<Index>(i);
      if (place + 1 < weights.size() && weights(place) + weights(place + 1) > 0.0) node.cuts.push_back(used[i]);
    }
    if (!try_error(d) && root(own_value(d), p_) - root(rival_value(d), p_) < 0.05 * root(start_, p_)) {
      // Just inside all of the inequalities: their corner itself may be an error in exact arithmetic only.
      VectorXd inside(rank_);
      for (double margin : {1e-9, 1e-7, 1e-5, 1e-4}) {
        spaces.shortest(upper_, margin * upper_, weights, inside);
        if (try_error(inside)) break;
      }
    }
    return choose_cut(node, sum, d);
  }

  // The rival whose chord is farthest from its sigma^p at d; a dominant one is cut at its kink first.
  bool choose_cut(Node& node, const Chords& sum, const VectorXd& d) const {
    double worst = 0.0;
    for (Index k = 0; k < rival_z_.size(); ++k) {
      const auto at = static_cast<std::size_t>(k);
      const double low = node.low[at], high = node.high[at];
      if (!(high - low > 1e-7 * upper_)) continue;
      const double t = std::min(std::max(rival_z_(k) + rival_.col(k).dot(d), low), high);
      if (low < 0.0 && high > 0.0 && rival_a_(k) * relu_power(high, p_) > kDominant) {
        node.rival = k;
        node.cut = 0.0;
        return true;
      }
      if (!(rival_a_(k) < kHuge)) continue;
      const double off = sum.base(k) + sum.slant(k) * t - rival_a_(k) * relu_power(t, p_);
      if (off > worst) {
        worst = off;
        node.rival = k;
        node.cut = std::min(std::max(t, low + 0.15 * (high - low)), high - 0.15 * (high - low));
        if (low < 0.0 && high > 0.0 && p_ < 2.0 && std::abs(node.cut) < 0.5 * (high - low)) node.cut = 0.0;  // the kink
      }
    }
    return worst > 0.0;
  }

  // Where the ray along d first meets an error, if nearer than the best one.
  bool try_error(const VectorXd& d) {
    const double length = d.norm();
    if (!(length > 0.0)) return false;
    const VectorXd along = d / length;
    const VectorXd own = own_.transpose() * along, rivals = rival_.transpose() * along;
    const auto value = [&](double t) {
      double sum = 0.0;
      for (Index j = 0; j < own.size(); ++j) sum += own_a_(j) * relu_power(own_z_(j) + t * own(j), p_);
      for (Index k = 0; k < rivals.size(); ++k) sum -= rival_a_(k) * relu_power(rival_z_(k) + t * rivals(k), p_);
      return sum;
    };
    // A hair beyond a boundary that is met only in the limit.
    double high = upper_, low = 0.0;
    for (double t : {length, length * (1.0 + 1e-8), length * (1.0 + 1e-6), length * (1.0 + 3e-5), upper_}) {
      high = std::min(t, upper_);
      if (value(high) <= 0.0) break;
      low = high;
    }
    if (!(low < high) || !(value(high) <= 0.0)) return false;
    for (int k = 0; k < 50 && high - low > 1e-13 * high; ++k) {
      const double middle = 0.5 * (low + high);
      (value(middle) > 0.0 ? low : high) = middle;
    }
    if (high < upper_) {
      upper_ = high;
      best_ = high * along;
    }
    return true;
  }

  double p_;
  Index rank_;
  VectorXd best_;
  double upper_, extent_;
  // What float64 may have done to a value, relative to its terms (docs/mathematics.md#rounding-branch-and-bound).
  double unit_ = 0.0;
  Eigen::MatrixXd own_, rival_, gram_;
  VectorXd own_a_, own_z_, rival_a_, rival_z_;
  std::vector<Tangent> tangents_;
  Index nodes_ = 0;
  double start_ = 0.0;  // the own side at x
};

}  // namespace

Index exact_radius(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
                   const ExactOptions& options, const Interrupt& interrupt, double& lower, double* d) {
  using Clock = std::chrono::steady_clock;
  VectorMap<double> change(d, span.rank);
  SpanPoint at;
  if (!at.set(net, span, pair, point, x, change.norm()) || !(change.norm() > 0.0)) return 0;
  const auto began = Clock::now();
  bool stopped = false;
  const auto stop = [&] {
    stopped = stopped || asked_to_stop(interrupt);
    return stopped || std::chrono::duration<double>(Clock::now() - began).count() > options.most_seconds;
  };
  Search search(net, span, at, change);
  const double radius = search.run(options.gap, options.most_nodes, stop) * (1.0 - 1e-9);
  lower = std::max(lower, radius);
  if (search.upper() < change.norm() * (1.0 - 1e-12)) change = search.best();
  return stopped ? -1 : search.nodes();
}

}  // namespace preluflow
