#include "preluflow/robustness/branch_and_bound.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <queue>

#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/node_bounds.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kOutward = 1.0 - 1e-9;  // of what is returned
constexpr double kNear = 0.05;           // of the own side's root: a shortest d this near to the boundary is followed

class Search {
 public:
  // The reach, in the unit of the sides, is the length of the shortest error known.
  Search(const Sides& sides, double p, double span_slack, Index rank, double reach)
      : sides_(sides), p_(p), bounds_(sides, p, span_slack, rank), upper_(reach) {}

  double upper() const { return upper_; }
  const VectorXd& best() const { return best_; }  // an error of that length, or empty: none was found
  const ExactTrace& trace() const { return trace_; }

  // The certified radius; `stop` is asked before every node.
  template <class Stop>
  double run(double gap, Index most, const Stop& stop) {
    double leaves = kInfinity;
    std::priority_queue<Node> open;
    const auto offer = [&](Node&& node) {
      ++trace_.nodes;
      const bool divisible = look(node, (1.0 - gap) * upper_);
      if (node.bound >= (1.0 - gap) * upper_ || !divisible) {
        leaves = std::min(leaves, node.bound);
      } else {
        open.push(std::move(node));
      }
    };
    offer(bounds_.root(upper_));
    trace_.first = std::min(leaves, open.empty() ? upper_ : open.top().bound);
    while (!open.empty() && trace_.nodes < most && !stop()) {
      if (open.top().bound >= (1.0 - gap) * upper_) break;
      const Node node = open.top();
      open.pop();
      for (int side = 0; side < 2; ++side) {
        Node child = node;
        (side ? child.low : child.high)[static_cast<std::size_t>(node.rival)] = node.cut;
        if (bounds_.narrow(child, node.rival, upper_)) offer(std::move(child));
      }
    }
    trace_.closed = open.empty() || open.top().bound >= (1.0 - gap) * upper_;
    if (!open.empty()) leaves = std::min(leaves, open.top().bound);
    return std::min(leaves, upper_);
  }

 private:
  // Bounds a node, looks for errors near its shortest d and chooses where to cut it; false if it cannot be cut.
  bool look(Node& node, double enough) {
    bounds_.bound(node, upper_, enough);
    if (node.bound >= enough) return true;
    const VectorXd& d = bounds_.shortest();
    const double gap = root(bounds_.own(d), p_) - root(bounds_.rivals(d), p_);
    if (!try_error(d) && gap < kNear * root(bounds_.start(), p_))
      // Just inside all of the inequalities: their corner itself may be an error in exact arithmetic only.
      for (double margin : {1e-9, 1e-7, 1e-5, 1e-4})
        if (try_error(bounds_.inside(margin, upper_))) break;
    return bounds_.choose_cut(node, upper_);
  }

  // Where the ray along d first meets an error, if nearer than the best one.
  bool try_error(const VectorXd& d) {
    const double length = d.norm();
    if (!(length > 0.0)) return false;
    const VectorXd along = d / length;
    const VectorXd own = sides_.own.columns.transpose() * along, rivals = sides_.rival.columns.transpose() * along;
    const auto value = [&](double t) {
      double sum = 0.0;
      for (Index j = 0; j < own.size(); ++j) sum += sides_.own.a(j) * relu_power(sides_.own.z(j) + t * own(j), p_);
      for (Index k = 0; k < rivals.size(); ++k)
        sum -= sides_.rival.a(k) * relu_power(sides_.rival.z(k) + t * rivals(k), p_);
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
      ++trace_.witnesses;
    }
    return true;
  }

  const Sides& sides_;
  double p_;
  NodeBounds bounds_;
  VectorXd best_;
  double upper_;
  ExactTrace trace_;
};

}  // namespace

Index exact_radius(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double*,
                   double limit, const ExactOptions& options, const Interrupt& interrupt, double& lower, double* d,
                   ExactTrace* trace) {
  using Clock = std::chrono::steady_clock;
  if (net.curve != Curve::power || pair.norm_side != 0.0) return 0;
  VectorMap<double> change(d, span.rank);
  const double length = change.norm(), reach = length > 0.0 ? std::min(limit, length) : limit;
  Sides sides;
  if (!(reach > 0.0) || !std::isfinite(reach) || !sides.set(net, span, pair, point, reach)) return 0;
  const auto began = Clock::now();
  bool stopped = false;
  const auto stop = [&] {
    stopped = stopped || asked_to_stop(interrupt);
    return stopped || std::chrono::duration<double>(Clock::now() - began).count() > options.most_seconds;
  };
  Search search(sides, net.p, span.slack, span.rank, reach / sides.unit);
  const double radius = search.run(options.gap, options.most_nodes, stop) * sides.unit;
  if (!std::isnan(radius)) lower = std::max(lower, radius * kOutward);
  if (search.best().size() > 0 && search.upper() * sides.unit < reach * (1.0 - 1e-12))
    change = search.best() * sides.unit;
  if (trace) {
    *trace = search.trace();
    trace->first *= sides.unit;
  }
  return stopped ? -1 : search.trace().nodes;
}

}  // namespace preluflow
