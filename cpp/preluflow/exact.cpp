#include "preluflow/exact.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <limits>
#include <queue>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

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

// <c, d> <= -e, ||c|| = 1; `rounding` is what float64 may have done to e and c.
struct HalfSpace {
  VectorXd c;
  double e, rounding;
};

// Two planes below the own side at x + d, everywhere: <gradient, d> + value <= sum a sigma^p, and
// <root_gradient, d> + root_value <= (sum a sigma^p)^(1/p), which is sublinear.
struct Tangent {
  VectorXd gradient, root_gradient;
  double value, size, root_value, root_size;  // size: sum of absolute terms
};

class Search {
 public:
  // x and witness in units of ||x||; `blur` times the rounding unit is how exact they are.
  Search(const SpanNetwork& net, const VectorXd& x, double y, const VectorXd& witness, double blur)
      : p_(net.p), rank_(net.rank), best_(witness), upper_(witness.norm()), blur_(blur) {
    const Eigen::Map<const Eigen::MatrixXd> directions(net.directions, net.rank, net.width);
    std::vector<Index> own, rivals;
    for (Index j = 0; j < net.width; ++j) {
      const double z = directions.col(j).dot(x);
      if (z + upper_ * (1.0 + 1e-9) + 64.0 * kEpsilon * blur_ <= 0.0) continue;  // never active within reach
      (net.sign[j] == y ? own : rivals).push_back(j);
    }
    gather(net, directions, own, x, own_, own_a_, own_z_);
    gather(net, directions, rivals, x, rival_, rival_a_, rival_z_);
    gram_ = rival_.transpose().lazyProduct(rival_);
    root_total_ = root(own_a_.sum(), p_);
    start_ = own_value(VectorXd::Zero(rank_));
  }

  double upper() const { return upper_; }
  const VectorXd& best() const { return best_; }
  Index nodes() const { return nodes_; }

  // The certified radius.
  double run(double gap, Index most) {
    const auto count = rival_z_.size();
    Node first;
    for (Index k = 0; k < count; ++k) {
      first.low.push_back(rival_z_(k) - upper_);
      first.high.push_back(rival_z_(k) + upper_);
    }
    for (const VectorXd& d : {VectorXd(VectorXd::Zero(rank_)), VectorXd(0.5 * best_)})
      if (own_value(d) > 0.0) first.cuts.push_back({add_tangent(d), own_value(d)});
    double leaves = std::numeric_limits<double>::infinity();
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
    while (!open.empty() && nodes_ < most) {
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
  static void gather(const SpanNetwork& net, const Eigen::Map<const Eigen::MatrixXd>& directions,
                     const std::vector<Index>& which, const VectorXd& x, Eigen::MatrixXd& columns, VectorXd& a,
                     VectorXd& z) {
    const auto count = static_cast<Index>(which.size());
    columns.resize(net.rank, count);
    a.resize(count);
    z.resize(count);
    for (Index k = 0; k < count; ++k) {
      const Index j = which[static_cast<std::size_t>(k)];
      columns.col(k) = directions.col(j);
      a(k) = net.a[j];
      z(k) = directions.col(j).dot(x);
    }
  }

  Index add_tangent(const VectorXd& d) {
    const VectorXd none = VectorXd::Zero(rank_);
    Tangent tangent{none, none, 0.0, 0.0, 0.0, 0.0};
    double sum = 0.0;
    for (Index j = 0; j < own_z_.size(); ++j) {
      const double t = own_z_(j) + own_.col(j).dot(d), share = own_a_(j) * slope(t, p_);
      if (t <= 0.0) continue;
      tangent.gradient += share * own_.col(j);
      tangent.root_value += share * own_z_(j);
      tangent.root_size += share * std::abs(own_z_(j));
      sum += share * t;
    }
    const double unit = slope(root(sum, p_), p_);
    tangent.root_gradient = tangent.gradient / unit;
    tangent.root_value /= unit;
    tangent.root_size = tangent.root_size / unit + (blur_ + upper_) * root_total_;
    tangent.gradient *= p_;
    tangent.value = sum - tangent.gradient.dot(d);
    tangent.size = sum + (blur_ + upper_) * p_ * unit * root_total_;
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

  // Ranges of the other rivals, given that of one and ||d|| <= upper; false if nothing is left.
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
        return cosine * s + other * std::sqrt(std::max(r * r - s * s, 0.0)) + 1e-12 * r;
      };
      const auto place = static_cast<std::size_t>(k);
      node.high[place] = std::min(node.high[place], rival_z_(k) + extreme(c));
      node.low[place] = std::max(node.low[place], rival_z_(k) - extreme(-c));
      if (node.low[place] > node.high[place] + 1e-12 * r) return false;
      node.high[place] = std::max(node.high[place], node.low[place]);
    }
    return true;
  }

  // Bounds a node from below and chooses where to cut it; false if it cannot be cut. `enough` is all that is asked.
  bool look(Node& node, double enough) {
    const Index count = rival_z_.size();
    // The chords' sum, <chord, d> + chord_value.
    VectorXd chord = VectorXd::Zero(rank_), slant(count), base(count);
    double chord_value = 0.0, chord_size = 0.0, most = 0.0;
    for (Index k = 0; k < count; ++k) {
      const double low = node.low[static_cast<std::size_t>(k)], high = node.high[static_cast<std::size_t>(k)];
      const double at_low = rival_a_(k) * relu_power(low, p_), at_high = rival_a_(k) * relu_power(high, p_);
      slant(k) = high - low > 1e-9 * (std::abs(high) + std::abs(low)) ? (at_high - at_low) / (high - low) : 0.0;
      base(k) = std::max(at_low - slant(k) * low, at_high - slant(k) * high);  // value of the chord at t = 0
      most += at_high;
      chord += slant(k) * rival_.col(k);
      chord_value += base(k) + slant(k) * rival_z_(k);
      chord_size += std::abs(base(k)) + slant(k) * (blur_ + upper_);
    }
    std::vector<HalfSpace> spaces;
    for (Index k = 0; k < count; ++k) {
      const auto at = static_cast<std::size_t>(k);
      const double rounding = 64.0 * kEpsilon * (blur_ + upper_);
      if (node.high[at] < rival_z_(k) + 0.999 * upper_)
        spaces.push_back({rival_.col(k), rival_z_(k) - node.high[at], rounding});
      if (node.low[at] > rival_z_(k) - 0.999 * upper_)
        spaces.push_back({-rival_.col(k), node.low[at] - rival_z_(k), rounding});
    }
    // An own neuron may not outweigh all rivals of the node: a_j sigma^p <= sum a_k sigma(high_k)^p.
    for (Index j = 0; j < own_z_.size(); ++j) {
      const double limit = root(most / own_a_(j), p_) * (1.0 + 1e-12);
      if (limit < own_z_(j) + 0.999 * upper_)
        spaces.push_back({own_.col(j), own_z_(j) - limit, 64.0 * kEpsilon * (blur_ + limit + upper_)});
    }
    // <c, d> + e <= 0, as a half-space; false if it has no solution.
    const auto add = [&](const VectorXd& c, double e, double size) {
      const double length = c.norm();
      const double rounding = 64.0 * kEpsilon * static_cast<double>(count + own_z_.size()) * size;
      // A gradient lost in rounding says nothing but the sign of the value.
      if (!(length * upper_ > rounding)) {
        if (e - 2.0 * rounding > 0.0) return false;
        spaces.push_back({VectorXd::Zero(rank_), 0.0, 0.0});
        return true;
      }
      spaces.push_back({c / length, e / length, rounding / length});
      return true;
    };
    bool possible = add(-chord, -chord_value, chord_size);  // the own side is not negative
    const auto ranges = spaces.size();
    const auto add_cut = [&](const Cut& cut) {
      const Tangent& tangent = tangents_[static_cast<std::size_t>(cut.tangent)];
      possible = possible && add(tangent.gradient - chord, tangent.value - chord_value, tangent.size + chord_size);
      // The root of the chords' sum is concave: below its tangent at `touch`.
      const double rise = chord_size > 0.0 ? root(cut.touch, p_) / (p_ * cut.touch) : 0.0;
      const double level = chord_size > 0.0 ? root(cut.touch, p_) * (1.0 - 1.0 / p_) : 0.0;
      possible = possible && add(tangent.root_gradient - rise * chord, tangent.root_value - level - rise * chord_value,
                                 tangent.root_size + rise * chord_size + level);
    };
    VectorXd d = VectorXd::Zero(rank_), weights;
    std::vector<Cut> used = node.cuts;
    for (const Cut& cut : used) add_cut(cut);
    for (int round = 0; round < 20; ++round) {
      if (!possible) node.bound = std::numeric_limits<double>::infinity();
      if (node.bound >= enough) return true;
      weights = shortest(spaces, d);
      node.bound = std::max(node.bound, certified(spaces, weights));
      if (node.bound >= enough) return true;
      const double own = own_value(d), rivals = std::max(chord.dot(d) + chord_value, 0.0);
      if (!(root(own, p_) - root(rivals, p_) > 1e-7 * root(start_, p_))) break;
      used.push_back({add_tangent(d), std::max(rivals, 1e-6 * own)});
      add_cut(used.back());
    }
    node.cuts.clear();
    for (std::size_t i = 0; i < used.size(); ++i) {
      const auto place = static_cast<Index>(ranges + 2 * i);
      if (place + 1 < weights.size() && weights(place) + weights(place + 1) > 0.0) node.cuts.push_back(used[i]);
    }
    if (!try_error(d) && root(own_value(d), p_) - root(rival_value(d), p_) < 0.05 * root(start_, p_)) {
      // Just inside all of the inequalities: their corner itself may be an error in exact arithmetic only.
      VectorXd inside(rank_);
      for (double margin : {1e-9, 1e-7, 1e-5, 1e-4}) {
        std::vector<HalfSpace> shifted = spaces;
        for (HalfSpace& space : shifted) space.e += margin * upper_;
        shortest(shifted, inside);
        if (try_error(inside)) break;
      }
    }
    double worst = 0.0;
    for (Index k = 0; k < count; ++k) {
      const auto at = static_cast<std::size_t>(k);
      const double low = node.low[at], high = node.high[at];
      const double t = std::min(std::max(rival_z_(k) + rival_.col(k).dot(d), low), high);
      const double off = base(k) + slant(k) * t - rival_a_(k) * relu_power(t, p_);
      if (off > worst && high - low > 1e-7 * upper_) {
        worst = off;
        node.rival = k;
        node.cut = std::min(std::max(t, low + 0.15 * (high - low)), high - 0.15 * (high - low));
        if (low < 0.0 && high > 0.0 && p_ < 2.0 && std::abs(node.cut) < 0.5 * (high - low)) node.cut = 0.0;  // the kink
      }
    }
    return worst > 0.0;
  }

  // The shortest d with <c_i, d> <= -e_i and its multipliers, by an active-set method on the dual (Lawson and Hanson).
  VectorXd shortest(const std::vector<HalfSpace>& spaces, VectorXd& d) const {
    const auto count = static_cast<Index>(spaces.size());
    VectorXd weights = VectorXd::Zero(count), e(count);
    for (Index i = 0; i < count; ++i) e(i) = spaces[static_cast<std::size_t>(i)].e;
    std::vector<Index> active;
    std::vector<bool> barred(static_cast<std::size_t>(count), false);
    d.setZero();
    for (int step = 0; step < 4 * count + 8; ++step) {
      Index next = -1;
      double most = 1e-12 * upper_;
      for (Index i = 0; i < count; ++i) {
        if (weights(i) > 0.0 || barred[static_cast<std::size_t>(i)]) continue;
        const double short_by = e(i) + spaces[static_cast<std::size_t>(i)].c.dot(d);
        if (short_by > most) {
          most = short_by;
          next = i;
        }
      }
      if (next < 0) break;
      active.push_back(next);
      bool entered = false;
      while (!active.empty()) {
        const auto m = static_cast<Index>(active.size());
        Eigen::MatrixXd M(m, m);
        VectorXd right(m);
        for (Index i = 0; i < m; ++i) {
          const auto& one = spaces[static_cast<std::size_t>(active[static_cast<std::size_t>(i)])];
          right(i) = one.e;
          for (Index j = 0; j <= i; ++j)
            M(j, i) = M(i, j) = one.c.dot(spaces[static_cast<std::size_t>(active[static_cast<std::size_t>(j)])].c);
          M(i, i) += 1e-13;
        }
        const VectorXd solution = M.ldlt().solve(right);
        if (!solution.allFinite()) break;
        if (solution.minCoeff() > 0.0) {
          weights.setZero();
          for (Index i = 0; i < m; ++i) weights(active[static_cast<std::size_t>(i)]) = solution(i);
          entered = true;
          break;
        }
        double share = 1.0;
        for (Index i = 0; i < m; ++i) {
          const double old = weights(active[static_cast<std::size_t>(i)]);
          if (solution(i) <= 0.0) share = std::min(share, old / std::max(old - solution(i), 1e-300));
        }
        std::vector<Index> kept;
        for (Index i = 0; i < m; ++i) {
          double& weight = weights(active[static_cast<std::size_t>(i)]);
          weight += share * (solution(i) - weight);
          if (weight > 1e-14 * upper_) {
            kept.push_back(active[static_cast<std::size_t>(i)]);
          } else {
            weight = 0.0;
          }
        }
        if (kept.size() == active.size()) kept.pop_back();  // rounding: never for ever
        active = std::move(kept);
      }
      if (!entered || !(weights(next) > 0.0)) barred[static_cast<std::size_t>(next)] = true;
      d.setZero();
      for (Index i = 0; i < count; ++i)
        if (weights(i) > 0.0) d -= weights(i) * spaces[static_cast<std::size_t>(i)].c;
      if (d.norm() > 2.0 * upper_) break;  // far enough, or there is no such d at all
    }
    return weights;
  }

  // What the weights prove, whatever they are.
  double certified(const std::vector<HalfSpace>& spaces, const VectorXd& weights) const {
    VectorXd sum = VectorXd::Zero(rank_);
    double reach = 0.0, rounding = 0.0, total = 0.0;
    for (Index i = 0; i < weights.size(); ++i) {
      if (!(weights(i) > 0.0)) continue;
      const HalfSpace& space = spaces[static_cast<std::size_t>(i)];
      sum += weights(i) * space.c;
      reach += weights(i) * space.e;
      rounding += weights(i) * (space.rounding + 8.0 * kEpsilon * std::abs(space.e));
      total += weights(i);
    }
    if (!(total > 0.0)) return 0.0;
    // <sum, d> <= -reach; of directions lost in rounding, upper_ bounds what they may contribute.
    rounding += 8.0 * kEpsilon * total * upper_;
    const double length = sum.norm() + 8.0 * kEpsilon * total;
    return std::max((reach - rounding) / length, 0.0);
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
  double upper_, blur_;
  double root_total_ = 0.0;  // the root of the own side is at most this on the unit sphere
  Eigen::MatrixXd own_, rival_, gram_;
  VectorXd own_a_, own_z_, rival_a_, rival_z_;
  std::vector<Tangent> tangents_;
  Index nodes_ = 0;
  double start_ = 0.0;  // the own side at x
};

}  // namespace

void exact_radii(Team& team, const SpanNetwork& net, const double* x, const double* y, const double* norms, Index n,
                 double gap, Index most, double* lower, double* d, Index* nodes) {
  team.parallel_for(n, [&](Index i) {
    nodes[i] = 0;
    const VectorXd point = ConstVectorMap<double>(x + i * net.rank, net.rank);
    VectorMap<double> change(d + i * net.rank, net.rank);
    const double size = point.norm();
    if (!(size > 0.0) || !(change.norm() > 0.0)) return;
    // In units of ||x||.
    Search search(net, point / size, y[i], change / size, std::max(norms[i] / size, 1.0));
    const double radius = search.run(gap, most) * size * (1.0 - 1e-9);
    lower[i] = std::max(lower[i], radius);
    if (search.upper() * size < change.norm() * (1.0 - 1e-12)) change = search.best() * size;
    nodes[i] = search.nodes();
  });
}

}  // namespace preluflow
