#include "preluflow/robustness/contacts.hpp"

#include <cmath>

#include "preluflow/relu_power.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow {

namespace {

constexpr double kKink = 1e-3;   // rivals' contacts at p < 2 keep this share of the range away from the kink
constexpr double kSoft = 0.02;   // own slopes at p = 1 pass from 0 to 1 over this share of the range
constexpr double kStill = 1e-6;  // a variance below it, in squares of the range, asks for no other contact

// A rival's, 1 <= p < 2: the quadratic that touches sigma^p at c and 0 at -(2/p - 1) c, where both are in the range.
double rival_with_kink(const Spread& t, double p) {
  if (t.low >= 0.0) return t.inside(t.through_low());
  const double slope_of_other = 2.0 / p - 1.0, square = t.mean * t.mean + t.variance;
  const double half = slope_of_other * (p - 1.0) * t.mean, lead = p * slope_of_other * slope_of_other;
  const double c = (std::sqrt(half * half + lead * (2.0 - p) * square) - half) / lead;
  const double most = std::min(t.high, -t.low / slope_of_other);
  if (c <= most) return std::max(c, kKink * most);
  if (-t.low < slope_of_other * t.high) return std::min(std::max(t.through_low(), -t.low / slope_of_other), t.high);
  return std::max(std::min(t.through_high(), -slope_of_other * t.high), t.low);
}

// The candidate of the least mean of the bound.
template <class Bound>
double least(const Spread& t, const Bound& bound) {
  double best = t.mean, value = bound(t.mean);
  if (t.variance <= kStill * (t.high - t.low) * (t.high - t.low)) return best;
  for (const double candidate : {t.inside(t.through_low()), t.inside(t.through_high())})
    if (const double there = bound(candidate); there < value) {
      value = there;
      best = candidate;
    }
  return best;
}

double tanh_contact(const Spread& t, bool own) {
  if (own) return -tanh_contact({-t.high, -t.low, -t.mean, t.variance}, false);
  return least(t, [&](double c) {
    const double off = t.mean - c;
    return std::tanh(c) + tanh_slope(c) * off + tanh_curvature(t.low, t.high, c) * (off * off + t.variance);
  });
}

}  // namespace

double power_contact(const Spread& t, bool own, double p) {
  if (!own) return p < 2.0 ? rival_with_kink(t, p) : t.inside(t.through_high());
  if (p == 1.0) return std::min(std::max(0.5 + t.mean / (kSoft * (t.high - t.low)), 0.0), 1.0);
  if (p >= 2.0) return t.inside(t.through_low());
  return least(t, [&](double c) {
    const double off = t.mean - c;
    return -relu_power(c, p) - p * slope(c, p) * off - least_curvature(t.low, t.high, c, p) * (off * off + t.variance);
  });
}

void Moments::set(const Eigen::VectorXd& change, double square_there) {
  mean = change;
  second = change.cwiseAbs2();
  square = square_there;
}

void Moments::mix(const Eigen::VectorXd& change, double square_there, double share) {
  mean += share * (change - mean);
  second += share * (change.cwiseAbs2() - second);
  square += share * (square_there - square);
}

void Moments::stretch(double factor, double length) {
  mean *= factor;
  second *= factor * factor;
  square = length * length + factor * (square - length * length);  // a contact may be anywhere
}

// docs/mathematics.md#best-contact
void best_contacts(const Neurons& net, const SpanPoint& point, const Eigen::VectorXd& z, const Ranges& ranges,
                   const Moments& moments, Contacts& contacts) {
  contacts.value.resize(net.width);
  contacts.square = moments.square;
  for (Index j = 0; j < net.width; ++j) {
    const double low = ranges.low(j), high = ranges.high(j);
    const bool own = point.own[static_cast<std::size_t>(j)];
    Spread t{low, high, 0.0, std::max(moments.second(j) - moments.mean(j) * moments.mean(j), 0.0)};
    t.mean = t.inside(z(j) + moments.mean(j));
    if (!(high > low))
      contacts.value(j) = net.curve == Curve::power && own && net.p == 1.0 ? (low > 0.0 ? 1.0 : 0.0) : low;
    else
      contacts.value(j) = net.curve == Curve::tanh ? tanh_contact(t, own) : power_contact(t, own, net.p);
  }
}

}  // namespace preluflow
