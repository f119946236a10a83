#include "preluflow/robustness/certifier.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTiny = 1e-300;
constexpr double kBeyond = 1e-9;  // of r: how much farther than the ball slabs reach, for rounding
// Shares of r between which the witness parts the first slabs.
constexpr double kInside = 0.3, kOutside = 0.9;
constexpr double kThinnest = 0.05;  // of r: slabs that would be thinner are given up
constexpr double kStill = 0.02;     // of a slab's bound: a round that moves it by less is the last
constexpr double kRoom = 1e-12;     // of r ||u||: rounding of ranges in slabs

// Entries to 2^-30, so that a witness that rounding has moved is the same one, and the search takes the same way.
VectorXd coarse(VectorXd unit) {
  constexpr double kGrain = 1073741824.0;
  for (double& entry : unit) entry = std::round(entry * kGrain) / kGrain;
  return unit;
}

}  // namespace

Certifier::Certifier(const Neurons& net, const Span& span, const SpanPoint& point, View view, VectorXd x,
                     const VectorXd& d, const Interrupt& interrupt, CertifierSpaces::Space& space)
    : net_(net),
      point_(point),
      interrupt_(interrupt),
      view_(std::move(view)),
      x_(std::move(x)),
      towards_(coarse(d / std::max(d.norm(), kTiny))),
      move_(view_.columns.transpose() * towards_),
      majorant_(net, span, point),
      quadratic_(space.quadratic),
      maximum_(space.maximum),
      factorised_before_(maximum_.factorisations()) {}

double Certifier::square(const VectorXd& d, double across) const {
  return point_.length * point_.length + 2.0 * (x_.dot(d) + point_.across * across) + d.squaredNorm() + across * across;
}

double Certifier::estimate() const {
  if (!std::isfinite(bound_) || !(l_ > 0.0)) return 0.0;
  // The bound falls by 2 l r with every unit of r, or faster.
  return std::max(radius_ - std::max(bound_, 0.0) / (2.0 * l_ * radius_), 0.0);
}

bool Certifier::ball(double radius, int most_rounds) {
  if (mixed_ == 0)
    moments_.set(radius * move_, square(radius * towards_, 0.0));
  else
    moments_.stretch(radius / radius_, point_.length);
  radius_ = radius;
  ranges_.low = view_.z - radius * view_.reach;
  ranges_.high = view_.z + radius * view_.reach;
  maximum_.begin(l_, 0.0);
  const bool done = (mixed_ == 0 && net_.curve == Curve::power && net_.p >= 2.0 && from_zero(radius)) ||
                    move_contacts(radius, Slab(), most_rounds, mixed_, moments_);
  l_ = maximum_.l();
  bound_ = maximum_.bound();
  return done;
}

// One round of the witness's contacts, but rivals' at most 0, where p >= 2: of all rivals that may be the nearest none
// is preferred then.
bool Certifier::from_zero(double radius) {
  Moments moments = moments_;
  for (Index j = 0; j < net_.width; ++j) {
    const double t = view_.z(j) + moments.mean(j);
    if (!point_.own[static_cast<std::size_t>(j)] && t > 0.0) moments.second(j) += t * (ranges_.high(j) - t);
  }
  int mixed = 0;
  return move_contacts(radius, Slab(), 1, mixed, moments);
}

// docs/mathematics.md#moving-contacts
bool Certifier::move_contacts(double radius, const Slab& slab, int most_rounds, int& mixed, Moments& moments) {
  double before = kInfinity;
  for (int round = 0; round < most_rounds; ++round) {
    stopped_ = stopped_ || asked_to_stop(interrupt_);
    if (stopped_) return false;
    ++rounds_;
    best_contacts(net_, point_, view_.z, ranges_, moments, contacts_);
    if (!majorant_.at(view_, ranges_, contacts_, radius, quadratic_)) return false;
    if (maximum_.below_zero(quadratic_, radius, slab, majorant_.allowance(quadratic_))) return true;
    const double bound = maximum_.bound();
    if (slab.along != nullptr && std::abs(bound - before) < kStill * bound) return false;
    before = bound;
    const double length = std::hypot(maximum_.maximiser().norm(), maximum_.across());
    const double inside = std::min(1.0, radius / std::max(length, kTiny));
    const VectorXd d = inside * maximum_.maximiser();
    moments.mix(view_.columns.transpose() * d, square(d, inside * maximum_.across()), 2.0 / (mixed + 4.0));
    ++mixed;
  }
  return false;
}

// What values can be where <along,d> is in the slab (docs/mathematics.md#narrowing), rounded outward.
void Certifier::slab_ranges(double radius, const Slab& slab) {
  for (Index j = 0; j < net_.width; ++j) {
    const double e = view_.reach(j), c = cosines_(j);
    const double other = std::sqrt(std::max((e - c) * (e + c), 0.0) + 1e-15 * e * e);
    const auto extreme = [&](double cosine) {
      const double peak = e > 0.0 ? cosine / e * radius : 0.0, s = std::min(std::max(peak, slab.low), slab.high);
      return cosine * s + other * std::sqrt(std::max(radius * radius - s * s, 0.0)) + kRoom * radius * e;
    };
    ranges_.high(j) = view_.z(j) + std::min(extreme(c), radius * e);
    ranges_.low(j) = view_.z(j) - std::min(extreme(-c), radius * e);
  }
}

// One part of the ball: from the witness moved into it, or from where the last try ended. Where the ball has but a
// sliver of it more is looked at.
bool Certifier::part(double radius, Part& here, int most_rounds) {
  const double end = radius * (1.0 + kBeyond), rim = end - kThinnest * radius;
  const Slab slab{&along_, std::min(std::max(here.low, -end), rim), std::max(std::min(here.high, end), -rim)};
  slab_ranges(radius, slab);
  if (here.mixed == 0) {
    const double s = radius * along_.dot(towards_), inside = std::min(std::max(s, slab.low), slab.high);
    const double rest = std::sqrt(std::max(radius * radius - s * s, kTiny));
    const double left = std::min(std::sqrt(std::max(radius * radius - inside * inside, 0.0)) / rest, 1.0);
    const VectorXd d = radius * left * towards_ + (inside - left * s) * along_;
    here.moments.set(radius * left * move_ + (inside - left * s) * cosines_, square(d, 0.0));
  }
  maximum_.begin(here.l, here.mu);
  const bool done = move_contacts(radius, slab, most_rounds, here.mixed, here.moments);
  if (std::isfinite(maximum_.l()) && std::isfinite(maximum_.mu())) {
    here.l = maximum_.l();
    here.mu = maximum_.mu();
  }
  if (done) here.holds_none = radius;
  return done;
}

// The direction, and the first parts: the witness parts its side in two.
bool Certifier::cut(double radius) {
  if (!std::isfinite(bound_) || !(l_ > 0.0) || quadratic_.curved == 0) return false;
  along_ = maximum_.steepest(quadratic_);
  if (along_.dot(towards_) < 0.0) along_ = -along_;
  cosines_ = view_.columns.transpose() * along_;
  const double middle = std::min(std::max(along_.dot(towards_), kInside), kOutside) * radius;
  for (const auto& [low, high] : {std::pair{-kInfinity, 0.0}, {middle, kInfinity}, {0.0, middle}})
    parts_.push_back({low, high, l_, l_});
  return true;
}

// Neighbours that may hold an error become one, two by two, until there are few of these.
void Certifier::join(double radius, int few) {
  std::sort(parts_.begin(), parts_.end(), [](const Part& a, const Part& b) { return a.low < b.low; });
  const auto open = [&](const Part& part) { return part.holds_none < radius; };
  for (bool any = true; any && std::count_if(parts_.begin(), parts_.end(), open) > few;) {
    std::vector<Part> joined;
    any = false;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      joined.push_back(std::move(parts_[i]));
      if (i + 1 == parts_.size() || !open(joined.back()) || !open(parts_[i + 1])) continue;
      any = true;
      Part& both = joined.back();
      const Part& upper = parts_[++i];
      both.high = upper.high;
      both.holds_none = std::min(both.holds_none, upper.holds_none);
      both.mixed = std::min(both.mixed, 1);
    }
    parts_.swap(joined);
  }
}

// The parts that may still hold an error are tried in turn, and halved where they fail (docs/mathematics.md#slabs).
bool Certifier::slabs(double radius, int most_rounds, int most_slabs, bool anew) {
  if (parts_.empty() && !cut(radius)) return false;
  const double end = radius * (1.0 + kBeyond);
  join(radius, most_slabs - 2);  // so that some may be halved
  std::deque<std::size_t> open;
  for (std::size_t i = 0; i < parts_.size(); ++i)
    if (parts_[i].holds_none < radius && parts_[i].low < end && parts_[i].high > -end) open.push_back(i);
  for (int tried = 0; !open.empty(); ++tried) {
    if (tried + static_cast<int>(open.size()) > most_slabs || stopped_) return false;
    const std::size_t i = open.front();
    open.pop_front();
    if (part(radius, parts_[i], most_rounds)) continue;
    Part& lower = parts_[i];
    const double from = std::max(lower.low, -end), to = std::min(lower.high, end);
    if (to - from < kThinnest * radius) return false;
    lower.mixed = anew ? 0 : std::min(lower.mixed, 1);
    Part upper = lower;
    lower.high = upper.low = 0.5 * (from + to);
    open.push_back(i);
    open.push_back(parts_.size());
    parts_.push_back(std::move(upper));
  }
  return true;
}

}  // namespace preluflow
