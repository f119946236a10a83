#include "preluflow/robustness/trust_region.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/certifier.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using Directions = Eigen::Map<const MatrixXd>;  // columns are neurons: (rank, h), in memory as the rows are

constexpr double kOutward = 1.0 - 1e-9;  // of every radius
// Shares of the radius wanted that are tried in turn once that itself has failed.
constexpr double kRungs[] = {0.99, 0.975, 0.95, 0.92, 0.88, 0.82, 0.74, 0.64, 0.5, 0.35, 0.2, 0.1, 0.03, 0.01};
constexpr double kWorthwhile = 1.005;        // less than this times what is known is not worth a search
constexpr int kFirstRounds = 8;              // of moving contacts: for the radius wanted,
constexpr int kMoreRounds = 6;               // for others,
constexpr int kSlabRounds = 3;               // and for a slab
constexpr int kSlabs = 12, kMoreSlabs = 30;  // at most, the latter where rounds are cheap
// Bisections between the last radius that failed and the best one: from a step of 2^-kStep down to the tolerance.
constexpr int kLeastBisections = 4, kStep = 6;
constexpr double kPromising = 0.995;  // of a radius: estimates from there on are tried on the whole ball first,
constexpr double kPoor = 0.8;         // and below that on nothing else
// Bisection ends after rounds that would cost so many multiplications if each formed a Q, or these rounds.
constexpr double kWork = 4e9;
constexpr Index kLeastRounds = 20, kMostRounds = 200;

void set_reach(View& view) { view.reach = view.columns.colwise().norm().transpose() * (1.0 + 1e-14); }

// The ball itself: values z + <u,d>.
View flat_view(const Neurons& net, const Directions& directions, const SpanPoint& point) {
  View view;
  view.columns = directions;
  view.z = point.z;
  view.products = {net.gram, net.width, {}};
  set_reach(view);
  return view;
}

// The slice through x, in units of its length in the span: values of x + e, e orthogonal to x
// (docs/mathematics.md#slice).
View slice_view(const Neurons& net, const Directions& directions, const SpanPoint& point) {
  View view;
  const double size = point.x.norm();
  const VectorXd along = point.x / size;
  view.columns = directions;
  const VectorXd cosines = directions.transpose() * along;
  view.columns.noalias() -= along * cosines.transpose();
  view.products = {net.gram, net.width, cosines};
  view.z = point.z / size;
  set_reach(view);
  return view;
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

// A form of the certificate and its radii: for the slice those of the ball across x, in units of ||x||
// (docs/mathematics.md#slice).
struct Form {
  Trace::Form kind;
  double size;  // ||x||
  Certifier certifier;

  double radius(double r) const { return kind == Trace::Form::slice ? r / std::sqrt((size - r) * (size + r)) : r; }
  // Of a radius, the share at which the last ball's bound may be 0.
  double ratio(double r) const { return true_radius(certifier.estimate()) / r; }
  double true_radius(double r) const { return kind == Trace::Form::slice ? size * r / std::sqrt(1.0 + r * r) : r; }
};

// The search for the largest radius, over the forms there are.
class Tightening {
 public:
  Tightening(std::vector<Form>& forms, double wanted, double tolerance, Index work, double& best)
      : forms_(forms),
        wanted_(wanted),
        tolerance_(tolerance),
        bisections_(std::max(static_cast<int>(std::ceil(-std::log2(tolerance))) - kStep, kLeastBisections)),
        budget_(budget(work)),
        cheap_(budget_ >= kMostRounds),
        best_(best) {}

  // Raises the best radius; the form it is of, or none.
  Trace::Form run();

  Index radii() const { return radii_; }

 private:
  static Index budget(Index work) {
    return std::min(std::max(static_cast<Index>(kWork / static_cast<double>(std::max<Index>(work, 1))), kLeastRounds),
                    kMostRounds);
  }
  bool stopped() const {
    return std::any_of(forms_.begin(), forms_.end(), [](const Form& form) { return form.certifier.stopped(); });
  }
  Index rounds() const {
    Index sum = 0;
    for (const Form& form : forms_) sum += form.certifier.rounds();
    return sum;
  }
  bool by_slabs(Form& form, double radius) const {
    return form.certifier.slabs(form.radius(radius), kSlabRounds, cheap_ ? kMoreSlabs : kSlabs, cheap_);
  }
  std::vector<Form*> promising(double radius) const;
  bool found(const Form& form, double radius, bool certified);
  bool certified(Form& form, double radius);
  bool certified(double radius);
  bool all();

  std::vector<Form>& forms_;
  double wanted_, tolerance_;
  int bisections_;
  Index budget_, radii_ = 0;
  bool cheap_;
  double& best_;
  Trace::Form found_ = Trace::Form::none;
};

// The forms that look as if they might certify a radius, the likeliest first, and others where they cost little.
std::vector<Form*> Tightening::promising(double radius) const {
  std::vector<Form*> order;
  for (Form& form : forms_) order.push_back(&form);
  std::stable_sort(order.begin(), order.end(),
                   [&](const Form* a, const Form* b) { return a->ratio(radius) > b->ratio(radius); });
  const auto hopeless = [&](const Form* form) {
    return form != order.front() && !cheap_ && form->ratio(radius) < kPromising;
  };
  if (hopeless(order.back())) order.pop_back();
  return order;
}

bool Tightening::found(const Form& form, double radius, bool certified) {
  if (!certified) return false;
  best_ = radius;
  found_ = form.kind;
  return true;
}

// Whether a form certifies a radius: on the whole ball where that looks possible, or by slabs.
bool Tightening::certified(Form& form, double radius) {
  const double ratio = form.ratio(radius), r = form.radius(radius);
  return found(form, radius,
               (ratio >= kPromising && form.certifier.ball(r, kMoreRounds)) ||
                   (ratio >= kPoor && by_slabs(form, radius)) ||
                   (ratio < kPromising && form.certifier.ball(r, kMoreRounds)));
}

bool Tightening::certified(double radius) {
  ++radii_;
  for (Form* form : promising(radius))
    if (certified(*form, radius)) return true;
  return false;
}

// The radius wanted, on the whole ball; or by slabs, where that fails by more than a little.
bool Tightening::all() {
  ++radii_;
  for (Form& form : forms_)
    if (found(form, wanted_, form.certifier.ball(form.radius(wanted_), kFirstRounds))) return true;
  for (Form* form : promising(wanted_)) {
    const double ratio = form->ratio(wanted_);
    if (ratio >= kPoor && ratio < kPromising && found(*form, wanted_, by_slabs(*form, wanted_))) return true;
  }
  return false;
}

Trace::Form Tightening::run() {
  if (all()) return found_;
  const Index before = rounds();
  double failed = wanted_;
  const double *rung = std::begin(kRungs), *end = std::end(kRungs);
  for (int between = 0; failed - best_ > tolerance_ * wanted_ && !stopped();) {
    double radius = 0.5 * (best_ + failed);
    while (rung != end && *rung * wanted_ >= failed) ++rung;
    if (found_ == Trace::Form::none && rung != end && *rung * wanted_ > best_ * kWorthwhile)
      radius = *rung * wanted_;
    else if (++between > bisections_ || rounds() - before > budget_)
      break;
    if (!certified(radius)) failed = radius;
  }
  return found_;
}

// A limit to 32 bits, rounded down: one that rounding has moved asks for the same radii.
double coarse(double limit) {
  constexpr int kBits = 32;
  int exponent = 0;
  const double share = std::frexp(limit, &exponent);
  return std::ldexp(std::floor(std::ldexp(share, kBits)), exponent - kBits);
}

}  // namespace

bool tighten(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
             const double* d, double limit, double tolerance, const Interrupt& interrupt, CertifierSpaces& spaces,
             double& lower, Trace* trace) {
  if (!(limit > 0.0) || !std::isfinite(limit) || lower >= (1.0 - tolerance) * limit) return true;
  const Directions directions(span.directions, span.rank, net.width);
  SpanPoint at;
  if (!at.set(net, span, pair, point, x, limit)) return true;
  VectorXd change = ConstVectorMap<double>(d, span.rank);
  if (!(change.norm() > 0.0)) change = steepest(net, directions, at);
  const double size = at.x.norm();
  const bool cone = net.homogeneous && net.curve == Curve::power && at.norm_weight == 0.0 && size > 0.0;
  const double most = coarse(net.homogeneous ? std::min(limit, size * kOutward) : limit);
  std::vector<Form> forms;
  forms.reserve(2);
  if (cone) {
    const VectorXd unit = at.x / size;
    const double along = 1.0 + unit.dot(change) / size;
    const VectorXd aside = along > 0.0 ? VectorXd((unit + change / size) / along - unit) : change;
    forms.push_back({Trace::Form::slice, size,
                     Certifier(net, span, at, slice_view(net, directions, at), unit, aside, interrupt,
                               spaces.of(Trace::Form::slice, span.rank, net.width))});
  }
  forms.push_back({Trace::Form::flat, size,
                   Certifier(net, span, at, flat_view(net, directions, at), at.x, change, interrupt,
                             spaces.of(Trace::Form::flat, span.rank, net.width))});
  double best = lower;
  Tightening search(forms, most * (1.0 - 0.5 * tolerance), tolerance, net.width * span.rank * span.rank, best);
  const Trace::Form found = search.run();
  lower = std::max(lower, best * kOutward);
  bool stopped = false;
  for (const Form& form : forms) {
    stopped = stopped || form.certifier.stopped();
    if (trace == nullptr) continue;
    trace->rounds += form.certifier.rounds();
    trace->factorisations += form.certifier.factorisations();
  }
  if (trace != nullptr) {
    trace->form = found;
    trace->radii += search.radii();
  }
  return !stopped;
}

}  // namespace preluflow
