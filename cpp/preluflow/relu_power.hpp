// sigma(t)^p and what is needed of it: slope, root, and the curvature of quadratics that touch it.
#pragma once

#include <algorithm>
#include <cmath>

namespace preluflow {

// x^p for x >= 0.
inline double power(double x, double p) {
  if (p == 3.0) return x * x * x;
  if (p == 2.0) return x * x;
  if (p == 1.0) return x;
  return std::pow(x, p);
}

// sigma(t)^(p-1), 0 where t <= 0.
inline double slope(double t, double p) {
  if (t <= 0.0) return 0.0;
  if (p == 3.0) return t * t;
  if (p == 2.0) return t;
  return p == 1.0 ? 1.0 : std::pow(t, p - 1.0);
}

// x^(1/p) for x >= 0.
inline double root(double x, double p) {
  return p == 1.0 ? x : p == 2.0 ? std::sqrt(x) : p == 3.0 ? std::cbrt(x) : std::pow(x, 1.0 / p);
}

// sigma(t)^p.
inline double relu_power(double t, double p) { return t > 0.0 ? power(t, p) : 0.0; }

// (s(t) - s(c) - s'(c) (t - c)) / (t - c)^2 of s = sigma^p: the curvature of the quadratic that touches s at c and
// meets it at t. Right within curvature_guard(p), relatively.
inline double curvature(double t, double c, double p) {
  const double d = t - c;
  if (c > 0.0 && std::abs(d) * p < 1e-3 * c) {
    const double u = d / c;
    return 0.5 * p * (p - 1.0) * slope(c, p) / c * (1.0 + (p - 2.0) / 3.0 * u + (p - 2.0) * (p - 3.0) / 12.0 * u * u);
  }
  if (d == 0.0) return 0.0;
  return (relu_power(t, p) - relu_power(c, p) - p * slope(c, p) * d) / (d * d);
}

// What curvature() may be wrong by, relatively: of the difference quotient near its contact 6 units of rounding times
// c^2 / (p (p - 1) d^2), which |d| p >= 1e-3 c bounds. At p = 1 the quotient cancels nothing
// (docs/mathematics.md#rounding-trust-region).
inline double curvature_guard(double p) { return p > 1.0 ? 1e-7 + 2e-9 * p / (p - 1.0) : 1e-7; }

// The largest curvature for t in [low, high]: that quadratic is not below s there (docs/mathematics.md#curvature). For
// p >= 2 curvatures grow with t; for p < 2 they grow up to -(2/p - 1) c (c > 0) or -p c / (2 - p) (c < 0), where the
// quadratic touches 0 or s, and fall from there on. Rounded up; c = 0 is not allowed for p < 2 when s has its kink
// inside.
inline double most_curvature(double low, double high, double c, double p) {
  double t = high;
  if (p < 2.0) {
    const double peak = c > 0.0 ? -(2.0 / p - 1.0) * c : -p * c / (2.0 - p);
    t = std::min(std::max(peak, low), high);
  }
  return std::max(curvature(t, c, p), 0.0) * (1.0 + curvature_guard(p));
}

// The smallest: that quadratic is not above s there. Rounded down.
inline double least_curvature(double low, double high, double c, double p) {
  const double least = p < 2.0 ? std::min(curvature(low, c, p), curvature(high, c, p)) : curvature(low, c, p);
  return std::max(least, 0.0) * std::max(1.0 - curvature_guard(p), 0.0);
}

}  // namespace preluflow
