#include "preluflow/robustness/branch_and_bound.hpp"

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>

#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/chord_bound.hpp"
#include "preluflow/robustness/quadratic_bound.hpp"
#include "preluflow/robustness/slice.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kOutward = 1.0 - 1e-9;  // of what is returned
constexpr double kNear = 0.05;           // of the own side's root: a shortest d this near to the boundary is followed
constexpr double kDominant = 1e3;        // a rival's term that may be so large calls for cuts at kinks first
// A cut that raises the bound by less than this share of what is asked for gains nothing; after so many in a row the
// other way to cut is tried.
constexpr double kRise = 0.02;
constexpr int kStalled = 8;
constexpr Index kLowRank = 4;                  // dimensions that chords search well without a slice
constexpr Index kFewRivals = 10;               // up to so many, cutting their ranges ends sooner than anything else
constexpr int kFirstPasses = 20, kPasses = 2;  // of quadratics, for the first node and for any other

// Whether chords say where to cut: at kinks, and where rivals are few.
bool by_chords(double p, Index rivals) { return p < 2.0 || rivals <= kFewRivals; }

class Search {
 public:
  // `reach`, in the unit of the sides, is the length of the shortest error known, `hint` where one may be.
  Search(const Sides& sides, double p, double span_slack, Index rank, double reach, const VectorXd& hint,
         const std::function<bool()>& stop)
      : sides_(sides),
        p_(p),
        chords_(sides, p, span_slack, rank),
        quadratics_(sides, p, span_slack, rank, stop),
        stop_(stop),
        best_(hint),
        upper_(reach) {
    const Side& rival = sides.rival;
    kinks_ = by_chords(p, rival.count());
    for (Index k = 0; k < rival.count(); ++k)
      kinks_ = kinks_ || !(rival.a(k) * relu_power(rival.z(k) + reach * rival.length(k), p) <= kDominant);
  }

  double upper() const { return upper_; }
  const VectorXd& best() const { return best_; }  // an error of that length, if any was found
  const ExactTrace& trace() const { return trace_; }

  // The certified radius; whether to stop is asked in between.
  double run(double gap, Index most) {
    double leaves = kInfinity;
    std::priority_queue<Node> open;
    const auto offer = [&](Node&& node) {
      const bool divisible = look(node, (1.0 - gap) * upper_);
      if (node.bound >= (1.0 - gap) * upper_ || !divisible) {
        leaves = std::min(leaves, node.bound);
      } else {
        open.push(std::move(node));
      }
    };
    offer(root());
    trace_.first = std::min({leaves, open.empty() ? kInfinity : open.top().bound, upper_});
    while (!open.empty() && trace_.nodes + 2 <= most && !stop_()) {
      if (open.top().bound >= (1.0 - gap) * upper_) break;
      const Node node = open.top();
      open.pop();
      for (const bool above : {false, true}) {
        Node child = node;
        (above ? child.low : child.high)(node.term) = node.at;
        quadratics_.into(child, (1.0 - gap) * upper_);
        if (node.term >= sides_.rival.count() || chords_.narrow(child, node.term, upper_)) offer(std::move(child));
      }
    }
    if (!open.empty()) leaves = std::min(leaves, open.top().bound);
    trace_.closed = leaves >= (1.0 - gap) * upper_;
    return std::min(leaves, upper_);
  }

 private:
  Node root() const {
    Node node = chords_.root(upper_);
    node.centre = best_;
    const double length = best_.norm(), ends = upper_ * (1.0 + 1e-12);
    if (length > 0.0) node.add_direction(best_ / length, -ends, ends);
    return node;
  }

  // Bounds a node, looks for errors in it and chooses where to cut it; false if it cannot be cut. Kinks and few rivals
  // ask for chords, what bends for quadratics; else the larger bound says which it is.
  bool look(Node& node, double enough) {
    ++trace_.nodes;
    const double inherited = node.bound;
    node.bound = 0.0;
    chords_.bound(node, upper_, enough);
    const double of_chords = node.bound;
    node.bound = std::max(inherited, of_chords);
    if (node.bound >= enough) return true;
    follow_shortest();
    if (!(node.centre.squaredNorm() > 0.0)) node.centre = chords_.shortest();
    if (!quadratics_.bound(node, upper_, enough, trace_.nodes == 1 ? kFirstPasses : kPasses)) node.bound = kInfinity;
    if (node.bound >= enough) return true;
    try_error(node.centre);
    node.stalled = node.bound > inherited + kRise * (enough - inherited) ? 0 : node.stalled + 1;
    const bool kinks = kinks_ || of_chords > quadratics_.found() || node.stalled > kStalled;
    if (kinks && chords_.choose_cut(node, upper_)) return true;
    return quadratics_.choose_cut(node, upper_, best_) || chords_.choose_cut(node, upper_);
  }

  // Errors at the shortest d that chords allow, or just inside of all inequalities: their corner itself may be an error
  // in exact arithmetic only.
  void follow_shortest() {
    const VectorXd& d = chords_.shortest();
    const double left = preluflow::root(chords_.own(d), p_) - preluflow::root(chords_.rivals(d), p_);
    if (try_error(d) || left >= kNear * preluflow::root(chords_.start(), p_)) return;
    for (double margin : {1e-9, 1e-7, 1e-5, 1e-4})
      if (try_error(chords_.inside(margin, upper_))) return;
  }

  // Where the ray along d first meets an error, if nearer than the best one.
  bool try_error(const VectorXd& d) {
    const double length = d.norm();
    if (!(length > 0.0)) return false;
    const VectorXd along = d / length;
    const VectorXd own = sides_.own.columns.transpose() * along, rivals = sides_.rival.columns.transpose() * along;
    const auto margin = [&](double t) { return sides_.own.along(own, t, p_) - sides_.rival.along(rivals, t, p_); };
    // A hair beyond a boundary that is met only in the limit.
    double high = upper_, low = 0.0;
    for (double t : {length, length * (1.0 + 1e-8), length * (1.0 + 1e-6), length * (1.0 + 3e-5), upper_}) {
      high = std::min(t, upper_);
      if (margin(high) <= 0.0) break;
      low = high;
    }
    if (!(low < high) || !(margin(high) <= 0.0)) return false;
    for (int k = 0; k < 50 && high - low > 1e-13 * high; ++k) {
      const double middle = 0.5 * (low + high);
      (margin(middle) > 0.0 ? low : high) = middle;
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
  ChordBound chords_;
  QuadraticBound quadratics_;
  const std::function<bool()>& stop_;
  VectorXd best_;
  double upper_;
  bool kinks_ = false;  // whether chords say where to cut
  ExactTrace trace_;
};

// Slices serve quadratics. At kinks in few dimensions, and without rivals, errors may be met in a face or a corner
// only, which a ray through the slice misses by rounding.
bool take_slice(const Neurons& net, const Pair& pair, Index rank) {
  Index rivals = 0;
  for (Index j = 0; j < net.width; ++j) rivals += pair.side[j] < 0.0 && std::isfinite(pair.log_a[j]) ? 1 : 0;
  return net.homogeneous && rivals > 0 && (net.p >= 2.0 || rank > kLowRank);
}

}  // namespace

Index exact_radius(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
                   double limit, const ExactOptions& options, const Interrupt& interrupt, double& lower, double* d,
                   ExactTrace* trace) {
  using Clock = std::chrono::steady_clock;
  if (net.curve != Curve::power || pair.norm_side != 0.0) return 0;
  VectorMap<double> change(d, span.rank);
  const ConstVectorMap<double> at(x, span.rank);
  const double length = change.norm();
  double reach = length > 0.0 ? std::min(limit, length) : limit;
  VectorXd hint = change;
  if (net.homogeneous && reach >= at.norm()) {  // the origin is an error
    reach = at.norm();
    if (!(length > 0.0)) hint = -at;
  }
  if (!(reach > 0.0) || !std::isfinite(reach)) return 0;
  const Slice slice(at, reach, hint, take_slice(net, pair, span.rank));
  Sides sides;
  if (!sides.set(net, span, pair, point, slice.reach(), slice.through())) return 0;
  const auto began = Clock::now();
  bool stopped = false;
  const std::function<bool()> stop = [&] {
    stopped = stopped || asked_to_stop(interrupt);
    return stopped || std::chrono::duration<double>(Clock::now() - began).count() > options.most_seconds;
  };
  Search search(sides, net.p, span.slack, span.rank, slice.reach() / sides.unit, slice.witness() / sides.unit, stop);
  const double radius = slice.length(search.run(options.gap, options.most_nodes) * sides.unit);
  if (!std::isnan(radius)) lower = std::max(lower, radius * kOutward);
  if (search.trace().witnesses > 0) {
    const VectorXd found = slice.perturbation(search.best() * sides.unit);
    if (found.norm() < reach * (1.0 - 1e-12)) change = found;
  }
  if (trace) {
    *trace = search.trace();
    trace->first = slice.length(trace->first * sides.unit);
  }
  return stopped ? -1 : search.trace().nodes;
}

}  // namespace preluflow
