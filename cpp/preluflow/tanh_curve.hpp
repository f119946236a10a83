// tanh and the curvature of quadratics that touch it from above. From below: by symmetry, tanh(-t) = -tanh(t).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

// tanh's derivative, relatively exact far out too, where 1 - tanh^2 cancels.
inline double tanh_slope(double t) {
  const double e = std::exp(-2.0 * std::abs(t));
  return 4.0 * e / ((1.0 + e) * (1.0 + e));
}

namespace tanh_detail {

constexpr double kUnit = std::numeric_limits<double>::epsilon();
constexpr double kBend = 0.65847894846240836;  // artanh(1/sqrt(3)): tanh'' is least there, tanh''' changes its sign
constexpr double kMost = 0.38490017945975058;  // 2 / (3 sqrt(3)), half of the largest |tanh''|: bounds all curvatures
constexpr double kSeries = 1e-3;    // |t - c| below which a series is used: 16/120 of its cube are below 2e-10
constexpr double kNearBend = 0.01;  // contacts so near to kBend take kMost, which is at most 1e-4 more than they need

// K(t) = (s(t) - s(c) - s'(c) (t - c)) / (t - c)^2 of s = tanh, and what it may be wrong by.
struct Quotient {
  double value, error;
};
inline Quotient quotient(double t, double c) {
  const double d = t - c, rise = tanh_slope(c), at = std::tanh(c);
  if (std::abs(d) < kSeries) {
    const double second = -at * rise, third = rise * (3.0 * at * at - 1.0) / 3.0;
    const double fourth = at * rise * (rise * 2.0 / 3.0 - at * at / 3.0);
    return {second + d * (third + d * fourth), 3e-10};
  }
  return {(std::tanh(t) - at - rise * d) / (d * d), 8.0 * kUnit * (2.0 + rise * std::abs(d)) / (d * d)};
}

// K'(t) (t - c)^3: the error of the trapezoidal rule for s' between c and t, and its derivative in t.
inline double turn(double t, double c) {
  return (tanh_slope(t) + tanh_slope(c)) * (t - c) - 2.0 * (std::tanh(t) - std::tanh(c));
}
inline double turn_slope(double t, double c) {
  return -2.0 * std::tanh(t) * tanh_slope(t) * (t - c) - tanh_slope(t) + tanh_slope(c);
}

// Newton's iteration for turn = 0 from a side where it does not pass the zero. Where it ends need not be exact.
inline double turning_point(double t, double c) {
  for (int k = 0; k < 60; ++k) {
    const double here = turn(t, c), fall = turn_slope(t, c);
    if (!(std::abs(here) > 64.0 * kUnit) || fall == 0.0) break;
    const double next = t - here / fall;
    if (!(std::abs(next - t) > 1e-12 * std::abs(t))) break;
    t = next;
  }
  return t;
}

// What turn may be wrong by at t.
inline double turn_error(double t, double c) {
  return 16.0 * kUnit * (4.0 + (tanh_slope(t) + tanh_slope(c)) * std::abs(t - c));
}

// For c >= 0 K grows up to a t1 <= -max(c, kBend), falls from there to a t2 and grows again
// (docs/mathematics.md#tanh-curvature): its largest value on [low, high], rounded up.
inline double most_right(double low, double high, double c) {
  const double middle = -std::max(c, kBend);
  double t = low, left = 0.0;  // t1 moved into the range, and |turn| there
  if (low < middle && turn(low, c) < 0.0) {
    t = std::min(high, middle);
    if (turn(t, c) > 0.0) {
      t = std::min(turning_point(low, c), t);
      left = std::abs(turn(t, c));
    }
  }
  const Quotient at_high = quotient(high, c), there = quotient(t, c);
  const double apart = c - middle, lost = (left + turn_error(t, c)) / (2.0 * apart * apart);
  return std::max(at_high.value + at_high.error, there.value + there.error + lost);
}

// t2 >= kBend of 0 <= c < kBend, moved into the range; turn grows through it. `left` is |turn| there.
inline double second_turn_beyond(double low, double high, double c, double& left) {
  const double begin = std::max(low, kBend);
  if (high <= begin || turn(high, c) <= 0.0) return high;
  if (turn(begin, c) >= 0.0) return begin;
  const double t = std::max(turning_point(high, c), begin);
  left = std::abs(turn(t, c));
  return t;
}

// t2 in (-c, kBend) of c > kBend, likewise; turn falls through it, concave up to -kBend and convex from there on.
inline double second_turn_before(double low, double high, double c, double& left) {
  const double begin = std::max(low, -c), end = std::min(high, kBend);
  if (low >= kBend) return low;
  if (begin >= end) return high;
  if (turn(begin, c) <= 0.0) return begin;
  if (turn(end, c) >= 0.0) return end;
  const double t = turning_point(std::min(std::max(-kBend, begin), end), c);
  left = std::abs(turn(std::min(std::max(t, begin), end), c));
  return std::min(std::max(t, begin), end);
}

// Its smallest value, rounded down.
inline double least_right(double low, double high, double c) {
  if (std::abs(c - kBend) < kNearBend) return -kMost;
  double left = 0.0;
  const double t = c < kBend ? second_turn_beyond(low, high, c, left) : second_turn_before(low, high, c, left);
  const Quotient at_low = quotient(low, c), there = quotient(t, c);
  const double apart = c - kBend, lost = (left + turn_error(t, c)) / (2.0 * apart * apart);
  return std::max(std::min(at_low.value - at_low.error, there.value - there.error - lost), -kMost);
}

}  // namespace tanh_detail

// A k with tanh(c) + tanh'(c) (t - c) + k (t - c)^2 >= tanh(t) for all t in [low, high], nearly the least one.
inline double tanh_curvature(double low, double high, double c) {
  const double most = c >= 0.0 ? tanh_detail::most_right(low, high, c) : -tanh_detail::least_right(-high, -low, -c);
  return std::min(most, tanh_detail::kMost);
}

}  // namespace preluflow
