// Quadratics that touch sigma^p or tanh, which trust regions are built of: above (below) it on all of their range, and
// no further than they must be.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/relu_power.hpp"
#include "preluflow/tanh_curve.hpp"

namespace preluflow::tests {

namespace {

constexpr int kGrid = 400;

struct Range {
  double low, high, c, p;
  double at(int k) const { return low + (high - low) * k / kGrid; }
};

// sigma(t)^p less its tangent at c, in more digits: what a quadratic k (t - c)^2 is held against.
long double beyond_tangent(double t, const Range& range) {
  const long double c = range.c, p = range.p;
  const auto raised = [&](long double x) { return x > 0.0L ? std::pow(x, p) : 0.0L; };
  const long double slope_at_c = c > 0.0L ? p * std::pow(c, p - 1.0L) : 0.0L;
  return raised(t) - raised(c) - slope_at_c * (static_cast<long double>(t) - c);
}

template <class Body>
void for_ranges(const Body& body) {
  Numbers numbers(1);
  for (double p : {1.0, 1.2, 1.5, 1.9, 2.0, 2.5, 3.0, 4.0, 7.5})
    for (double scale : {1e-8, 1.0, 1e4})
      for (int repeat = 0; repeat < 60; ++repeat) {
        double c = scale * numbers.uniform(-1.0, 1.0);
        if (p >= 2.0 && repeat % 10 == 0) c = 0.0;
        // Ranges about c, as wide as c or much narrower.
        const double reach = repeat % 3 == 0 ? 1e-4 * std::abs(c) : 2.0 * scale;
        body(Range{c - reach * numbers.uniform(), c + reach * numbers.uniform(), c, p});
      }
}

// The size of the rounding of beyond_tangent and of the quadratic.
long double rounding(const Range& range) {
  const long double most = std::max(std::abs(range.low), std::abs(range.high));
  return 1e-17L * std::pow(most, static_cast<long double>(range.p));
}

TEST(curvature_of_most_stays_above) {
  for_ranges([](const Range& range) {
    const long double k = most_curvature(range.low, range.high, range.c, range.p);
    for (int i = 0; i <= kGrid; ++i) {
      const long double d = static_cast<long double>(range.at(i)) - range.c;
      CHECK(k * d * d >= beyond_tangent(range.at(i), range) - rounding(range));
    }
  });
}

TEST(curvature_of_least_stays_below) {
  for_ranges([](const Range& range) {
    const long double k = least_curvature(range.low, range.high, range.c, range.p);
    CHECK(k >= 0.0L);
    for (int i = 0; i <= kGrid; ++i) {
      const long double d = static_cast<long double>(range.at(i)) - range.c;
      CHECK(k * d * d <= beyond_tangent(range.at(i), range) + rounding(range));
    }
  });
}

// Within 1e-6 of the largest and the smallest on the grid, or between its points.
TEST(curvature_bounds_are_attained) {
  for_ranges([](const Range& range) {
    double largest = 0.0, smallest = std::numeric_limits<double>::infinity(), step = 0.0, last = -1.0;
    for (int i = 0; i <= kGrid; ++i) {
      const double here = std::max(curvature(range.at(i), range.c, range.p), 0.0);
      if (last >= 0.0) step = std::max(step, std::abs(here - last));
      last = here;
      largest = std::max(largest, here);
      smallest = std::min(smallest, here);
    }
    CHECK_AT_MOST(most_curvature(range.low, range.high, range.c, range.p), largest * (1.0 + 1e-6) + step);
    CHECK_AT_MOST(smallest * (1.0 - 1e-6), least_curvature(range.low, range.high, range.c, range.p));
  });
}

// Contacts and ranges of tanh: around where its curvature is largest, narrow and wide, saturated, the contact outside.
template <class Body>
void for_tanh_ranges(const Body& body) {
  Numbers numbers(2);
  for (const double scale : {1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3})
    for (int repeat = 0; repeat < (kSanitized ? 30 : 300); ++repeat) {
      double c = numbers.uniform(-1.0, 1.0) * (repeat % 3 == 0 ? 12.0 : 2.0);
      if (repeat % 10 == 0) c = (repeat % 20 == 0 ? 0.65847894846 : -0.65847894846) + numbers.uniform(-0.03, 0.03);
      double low = c - scale * numbers.uniform(), high = c + scale * numbers.uniform();
      if (repeat % 7 == 0) {
        low = c + scale * numbers.uniform(-1.0, 1.0);
        high = low + scale * numbers.uniform();
      }
      body(low, high, c);
    }
}

long double tanh_quotient(double t, double c) {
  const long double d = static_cast<long double>(t) - c, most = std::cosh(static_cast<long double>(c));
  return (std::tanh(static_cast<long double>(t)) - std::tanh(static_cast<long double>(c)) - d / (most * most)) /
         (d * d);
}

// Half of the grid over the range, half where tanh bends.
double tanh_grid(double low, double high, int i) {
  const double share = static_cast<double>(i / 2) / (kGrid / 2);
  return i % 2 == 0 ? low + (high - low) * share : std::min(std::max(-8.0 + 16.0 * share, low), high);
}

TEST(curvature_of_tanh_stays_above) {
  for_tanh_ranges([](double low, double high, double c) {
    const long double k = tanh_curvature(low, high, c);
    for (int i = 0; i <= kGrid; ++i) {
      const double t = tanh_grid(low, high, i);
      const long double d = std::abs(static_cast<long double>(t) - c);
      if (d < 1e-5L) continue;
      const long double rounding = 1e-18L * (2.0L + d) / (d * d);  // of the quotient in more digits
      CHECK(k >= tanh_quotient(t, c) - rounding);
    }
  });
}

TEST(curvature_of_tanh_is_attained) {
  for_tanh_ranges([](double low, double high, double c) {
    if (high - low < 1e-4) return;    // the quotient's own rounding is larger
    if (c < low || c > high) return;  // right, but not close, where the contact is where tanh bends most
    long double most = tanh_quotient(high, c), last = most, step = 0.0L;
    for (int i = 0; i <= kGrid; ++i) {
      const double t = tanh_grid(low, high, i);
      if (std::abs(t - c) < 1e-5) continue;
      const long double here = tanh_quotient(t, c);
      if (i % 2 == 0) {
        step = std::max(step, std::abs(here - last));
        last = here;
      }
      most = std::max(most, here);
    }
    // Near the point of the largest curvature that is taken for it.
    CHECK_AT_MOST(tanh_curvature(low, high, c), static_cast<double>(most + step) + 1e-4);
  });
}

TEST(curvature_of_tanh_far_out) {
  for (const double c : {-800.0, -40.0, 0.0, 40.0, 800.0})
    for (const double far : {1.0, 1e3, 1e9}) {
      const double k = tanh_curvature(c - far, c + far, c);
      CHECK(std::isfinite(k) && k <= 2.0 / (3.0 * std::sqrt(3.0)) && k >= -1e-12);
      for (const double t : {c - far, c + far})
        CHECK_AT_MOST(std::tanh(t), std::tanh(c) + tanh_slope(c) * (t - c) + k * (t - c) * (t - c) + 1e-15);
    }
}

}  // namespace

}  // namespace preluflow::tests
