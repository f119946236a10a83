// Quadratics that touch sigma^p, which trust regions are built of: above (below) it on all of their range, and no
// further than they must be.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/relu_power.hpp"

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

}  // namespace

}  // namespace preluflow::tests
