#include "preluflow/robustness/majorant.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// An own side below it, in units of its largest term at the point, is not certified: powers times contributions lose
// more.
constexpr double kUnderflow = 1e-140;

}  // namespace

bool Majorant::at(const View& view, const Ranges& ranges, const Contacts& contacts, double radius,
                  Quadratic& out) const {
  out.clear();
  out.products = &view.products;
  return add_neurons(view, ranges, contacts, radius, out) &&
         (point_.norm_weight == 0.0 || add_norm(contacts, radius, out));
}

bool Majorant::add_neurons(const View& view, const Ranges& ranges, const Contacts& contacts, double radius,
                           Quadratic& out) const {
  const bool tanh = net_.curve == Curve::tanh;
  for (Index j = 0; j < net_.width; ++j) {
    const double low = ranges.low(j), high = ranges.high(j), a = point_.a(j), c = contacts.value(j);
    if (a == 0.0 || (!tanh && high <= 0.0)) continue;  // adds nothing
    if (!std::isfinite(a)) return false;
    const bool own = point_.own[static_cast<std::size_t>(j)];
    const Parabola bound = tanh ? tanh_bound(own, a, low, high, c) : power_bound(own, a, low, high, c);
    // value + slant (z + s - c) + bend (z + s - c)^2 in s = <u,d>
    const double off = view.z(j) - bound.at;
    const double size = std::abs(bound.at) + std::abs(off) + radius * view.reach(j);  // of what is multiplied, at most
    const double unsure = tanh ? point_.doubt(j) * std::tanh(std::max(std::abs(low), std::abs(high))) : 0.0;
    out.c0 += bound.value + bound.slant * off + bound.bend * off * off + unsure;
    out.scale += std::abs(bound.value) + std::abs(bound.slant) * size + std::abs(bound.bend) * size * size;
    const double slant = bound.slant + 2.0 * bound.bend * off;
    if (slant != 0.0) out.b += slant * view.columns.col(j);
    if (bound.bend == 0.0) continue;
    out.columns.col(out.curved) = view.columns.col(j);
    out.bend(out.curved) = bound.bend;
    out.which[static_cast<std::size_t>(out.curved)] = j;
    out.bends += std::abs(bound.bend) * view.reach(j) * view.reach(j);
    ++out.curved;
  }
  return true;
}

// docs/mathematics.md#curvature
Parabola Majorant::power_bound(bool own, double a, double low, double high, double c) const {
  const double p = net_.p, sign = own ? -a : a;
  if (own && p == 1.0) return {0.0, 0.0, -a * c, 0.0};  // sigma(t) >= c t for all c in [0, 1]
  const double bend = own ? least_curvature(low, high, c, p) : most_curvature(low, high, c, p);
  return {c, sign * relu_power(c, p), sign * p * slope(c, p), sign * bend};
}

// -a tanh(t) = a tanh(-t): own terms are mirrored (docs/mathematics.md#tanh-curvature).
Parabola Majorant::tanh_bound(bool own, double a, double low, double high, double c) const {
  const double bend = own ? tanh_curvature(-high, -low, -c) : tanh_curvature(low, high, c), sign = own ? -a : a;
  return {c, sign * std::tanh(c), sign * tanh_slope(c), a * bend};
}

// -w v^k, w = norm_weight, k = norm_power, on v = ||x + d||^2 in [(||x|| - r)_+^2, (||x|| + r)^2], by a line: its
// tangent where it is concave, its secant where it is convex (docs/mathematics.md#norm-line).
bool Majorant::add_norm(const Contacts& contacts, double radius, Quadratic& out) const {
  constexpr double kWider = 1e-12;  // relative room at the ends of the range of v, for rounding of ||x||
  const double w = point_.norm_weight, k = point_.norm_power, length = point_.length;
  if (!std::isfinite(w)) return false;
  const double inner = std::max(length - radius, 0.0), least = inner * inner * (1.0 - kWider);
  const double most = (length + radius) * (length + radius) * (1.0 + kWider);
  const auto value = [&](double v) { return -w * std::pow(v, k); };
  double slant = 0.0, base = 0.0;
  if (w * k * (k - 1.0) >= 0.0) {
    const double v = std::min(std::max(contacts.square, std::max(least, 1e-6 * most)), most);
    slant = k * value(v) / v;
    base = value(v) - slant * v;
  } else {
    slant = (value(most) - value(least)) / (most - least);
    base = std::max(value(least) - slant * least, value(most) - slant * most);
  }
  out.c0 += base + slant * length * length;
  out.b += 2.0 * slant * point_.x;
  out.grow = slant;
  out.cross = 2.0 * slant * point_.across;
  out.scale += std::abs(base) + std::abs(value(most)) + 4.0 * std::abs(slant) * most;
  out.bends += std::abs(slant);
  return true;
}

// docs/mathematics.md#rounding-trust-region
double Majorant::allowance(const Quadratic& bound) const {
  return (2.0 * span_.slack + 64.0 * kEpsilon * static_cast<double>(net_.width)) * bound.scale + kUnderflow;
}

}  // namespace preluflow
