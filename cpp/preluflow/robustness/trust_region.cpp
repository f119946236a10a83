#include "preluflow/robustness/trust_region.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/majorant.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using Directions = Eigen::Map<const MatrixXd>;  // columns are neurons: (rank, h), in memory as the rows are

constexpr double kOutward = 1.0 - 1e-9;  // of every radius
constexpr int kRounds = 12;              // of moving contacts

// Certifies radii of one view, moving contacts.
class Certifier {
 public:
  Certifier(const Neurons& net, const Span& span, const SpanPoint& point, View view, const VectorXd& x,
            const VectorXd& d)
      : net_(net),
        point_(point),
        view_(std::move(view)),
        x_(x),
        majorant_(net, span, point),
        quadratic_(span.rank, net.width),
        maximum_(span.rank),
        move_(view_.columns.transpose() * (d / std::max(d.norm(), 1e-300))),
        along_(x.dot(d) / std::max(d.norm(), 1e-300)) {
    aim_again();
  }

  // Contacts are at first the values at the witness, scaled to r, `share` of the way to 0 where rivals are active
  // (p >= 2). While the bound stays positive they move towards the values at its maximiser, where a quadratic that
  // touches is lowest (docs/mathematics.md#moving-contacts).
  bool certifies(double radius, double share) {
    ++radii;
    contacts_.value = view_.z + radius * aimed_at_;
    contacts_.square = point_.length * point_.length + radius * (2.0 * along_ + radius);
    contacts_.share = share;
    if (net_.curve == Curve::power && net_.p >= 2.0)
      for (Index j = 0; j < net_.width; ++j)
        if (!point_.own[static_cast<std::size_t>(j)] && contacts_.value(j) > 0.0) contacts_.value(j) *= 1.0 - share;
    double before = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
      ++rounds;
      if (!majorant_.at(view_, contacts_, radius, quadratic_)) return false;
      if (maximum_.below_zero(quadratic_, radius, majorant_.allowance(quadratic_))) {
        aimed_at_ = (contacts_.value - view_.z) / radius;
        return true;
      }
      if (round > 1 && maximum_.bound() > 0.7 * before) return false;  // too slow
      before = maximum_.bound();
      move_contacts(radius, 0.4 / (1.0 + 0.3 * round));
    }
    return false;
  }

  void aim_again() { aimed_at_ = move_; }
  Index factorisations() const { return maximum_.factorisations(); }

  Index radii = 0, rounds = 0;

 private:
  void move_contacts(double radius, double step) {
    const double length = std::hypot(maximum_.maximiser().norm(), maximum_.across());
    const double shrink = std::min(1.0, radius / std::max(length, 1e-300));
    const VectorXd d = shrink * maximum_.maximiser();
    const double across = shrink * maximum_.across();
    contacts_.value += step * (view_.z + view_.columns.transpose() * d - contacts_.value);
    const double square =
        point_.length * point_.length + 2.0 * (x_.dot(d) + point_.across * across) + shrink * shrink * length * length;
    contacts_.square += step * (square - contacts_.square);
  }

  const Neurons& net_;
  const SpanPoint& point_;
  View view_;
  const VectorXd& x_;
  Majorant majorant_;
  Quadratic quadratic_;
  BallMaximum maximum_;
  Contacts contacts_;
  VectorXd move_, aimed_at_;
  double along_;
};

void set_reach(View& view) { view.reach = view.columns.colwise().norm().transpose() * (1.0 + 1e-14); }

// The ball itself: values z + <u,d>.
View flat_view(const Directions& directions, const SpanPoint& point) {
  View view;
  view.columns = directions;
  view.z = point.z;
  set_reach(view);
  return view;
}

// The slice through x, in units of its length in the span: values of x + e, e orthogonal to x
// (docs/mathematics.md#slice).
View slice_view(const Directions& directions, const SpanPoint& point) {
  View view;
  const double size = point.x.norm();
  const VectorXd along = point.x / size;
  view.columns = directions;
  view.columns.noalias() -= along * (directions.transpose() * along).transpose();
  view.z = point.z / size;
  set_reach(view);
  return view;
}

// The largest certified radius in (low, high) within `tolerance` of high, or low. ok(low) need not hold.
template <class Certifies>
double largest(double low, double high, double tolerance, const Certifies& ok) {
  if (ok(high * (1.0 - 0.5 * tolerance))) return high * (1.0 - 0.5 * tolerance);
  const double wanted = std::min(low * 1.01 + 1e-3 * high, high);  // less would not be worth the search
  if (!ok(wanted)) return low;
  double yes = wanted, no = high;
  while (no - yes > tolerance * high) {
    const double middle = 0.5 * (yes + no);
    (ok(middle) ? yes : no) = middle;
  }
  return yes;
}

// Where m falls fastest at the point.
VectorXd steepest(const Neurons& net, const Directions& directions, const SpanPoint& point) {
  VectorXd weight(net.width);
  for (Index j = 0; j < net.width; ++j) {
    const double rise = net.curve == Curve::tanh ? tanh_slope(point.z(j)) : net.p * slope(point.z(j), net.p);
    const double a = std::isfinite(point.a(j)) ? point.a(j) : 0.0;
    weight(j) = point.own[static_cast<std::size_t>(j)] ? -a * rise : a * rise;
  }
  return directions * weight;
}

}  // namespace

bool tighten(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
             const double* d, double limit, double tolerance, const Interrupt& interrupt, double& lower, Trace* trace) {
  if (!(limit > 0.0) || !std::isfinite(limit) || lower >= (1.0 - tolerance) * limit) return true;
  const Directions directions(span.directions, span.rank, net.width);
  SpanPoint at;
  if (!at.set(net, span, pair, point, x, limit)) return true;
  VectorXd change = ConstVectorMap<double>(d, span.rank);
  if (!(change.norm() > 0.0)) change = steepest(net, directions, at);
  double best = lower;
  bool stopped = false;
  const auto raise = [&](Certifier& certifier, Trace::Form form, double most, double share, const auto& radius_of) {
    if (best >= (1.0 - tolerance) * most) return;
    certifier.aim_again();
    const auto ok = [&](double r) {
      stopped = stopped || asked_to_stop(interrupt);
      return !stopped && certifier.certifies(radius_of(r), share);  // once stopped nothing more is tried
    };
    const double found = largest(best, most, tolerance, ok);
    if (trace != nullptr && found > best) trace->form = form;
    best = std::max(best, found);
  };
  const auto note = [&](const Certifier& certifier) {
    if (trace == nullptr) return;
    trace->radii += certifier.radii;
    trace->rounds += certifier.rounds;
    trace->factorisations += certifier.factorisations();
  };
  const double size = at.x.norm(), least = net.p < 2.0 ? 0.02 : 0.0;
  if (net.homogeneous && net.curve == Curve::power && at.norm_weight == 0.0 && size > 0.0) {
    const VectorXd unit = at.x / size;
    const double along = 1.0 + unit.dot(change) / size;
    Certifier certifier(net, span, at, slice_view(directions, at), unit,
                        along > 0.0 ? VectorXd((unit + change / size) / along - unit) : change);
    for (double share : {least, net.p < 2.0 ? 0.1 : 1.0})
      raise(certifier, Trace::Form::slice, std::min(limit, size * kOutward), share,
            [&](double r) { return r / std::sqrt((size - r) * (size + r)); });
    note(certifier);
  }
  Certifier certifier(net, span, at, flat_view(directions, at), at.x, change);
  raise(certifier, Trace::Form::flat, net.homogeneous ? std::min(limit, size * kOutward) : limit, least,
        [](double r) { return r; });
  note(certifier);
  lower = std::max(lower, best * kOutward);
  return !stopped;
}

}  // namespace preluflow
