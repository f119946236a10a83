// Witnesses from perturbations: they hold, are hardly longer, keep to the box and to fixed coordinates, and there is
// none where there is none to find.
#include "preluflow/robustness/confirm.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"

namespace preluflow::tests {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// m(x) = <w, x - centre> - beta: with beta = 0 the centre is an error.
struct Linear {
  std::vector<double> x, w, centre, e;
  double beta, size;
  int exponent, asked = 0;

  Linear(Numbers& numbers, Index dim, double scale, double beta_, bool centred) : beta(beta_ * scale) {
    for (Index k = 0; k < dim; ++k) {
      w.push_back(numbers.normal());
      centre.push_back(centred ? scale * numbers.normal() : 0.0);
      x.push_back(centre.back() + scale * (w.back() + 0.3 * numbers.normal()));
    }
    double most = 0.0, square = 0.0;
    for (std::size_t k = 0; k < x.size(); ++k) most = std::max(most, std::abs(x[k] - centre[k]));
    std::frexp(most, &exponent);
    for (std::size_t k = 0; k < x.size(); ++k) square += std::pow(std::ldexp(x[k] - centre[k], -exponent), 2);
    size = std::sqrt(square);
    for (std::size_t k = 0; k < x.size(); ++k) e.push_back(std::ldexp(x[k] - centre[k], -exponent) / size);
  }

  double margin(const double* moved) const {
    double m = -beta;
    for (std::size_t k = 0; k < w.size(); ++k) m += w[k] * (moved[k] - centre[k]);
    return m;
  }
  // The shortest perturbation, in the point's unit.
  std::vector<double> shortest() const {
    double square = 0.0;
    for (const double v : w) square += v * v;
    const double m = margin(x.data()) / std::ldexp(size, exponent);
    std::vector<double> d;
    for (const double v : w) d.push_back(-m / square * v);
    return d;
  }
  Place place() const {
    Place out{x.data(), static_cast<Index>(x.size()), e.data(), size, exponent, 1e-15, beta == 0.0, 1.0, w.data(), 0};
    out.centre = centre.data();
    return out;
  }
};

double length(const std::vector<double>& d) {
  double square = 0.0;
  for (const double v : d) square += v * v;
  return std::sqrt(square);
}

TEST(confirm_lengthens_by_hardly_more_than_rounding) {
  Numbers numbers(1);
  for (const double scale : {1e-150, 1.0, 1e150})
    for (const double beta : {0.0, 0.5})
      for (const bool centred : {false, true}) {
        const Linear net(numbers, 7, scale, beta, centred);
        const double tolerance = 1e-13 * scale * 100.0;
        const Judge judge = [&](const double* moved, bool room) {
          return net.margin(moved) <= (room ? -1e-2 * tolerance : 0.0);
        };
        const Place place = net.place();
        std::vector<double> witness(net.x.size()), moved(net.x);
        const std::vector<double> d = net.shortest();
        const double found = Confirmation(place, judge).run(d.data(), witness.data());
        CHECK_AT_MOST(found, length(d) * (1.0 + 1e-9));
        for (std::size_t k = 0; k < moved.size(); ++k) moved[k] += witness[k];
        CHECK(net.margin(moved.data()) <= 0.0);
      }
}

TEST(confirm_falls_back_on_the_centre_of_homogeneous_networks_only) {
  Numbers numbers(2);
  for (const double beta : {0.0, 0.5}) {
    const Linear net(numbers, 5, 1.0, beta, false);
    const Judge never = [](const double*, bool) { return false; };
    Place place = net.place();
    place.centre = nullptr;
    std::vector<double> witness(net.x.size(), 7.0);
    const double found = Confirmation(place, never).run(net.shortest().data(), witness.data());
    if (beta != 0.0) {
      CHECK(found == kInfinity && witness[0] == 7.0);
      continue;
    }
    CHECK_AT_MOST(std::abs(found - 1.0), 1e-15);
    for (std::size_t k = 0; k < witness.size(); ++k) CHECK(net.x[k] + witness[k] == 0.0);
  }
}

TEST(confirm_stays_in_the_box_and_moves_no_fixed_coordinate) {
  Numbers numbers(3);
  int boxed = 0;
  for (int k = 0; k < 200; ++k) {
    const Linear net(numbers, 6, numbers.uniform() < 0.5 ? 1.0 : 1e5, 0.0, numbers.uniform() < 0.5);
    const Judge judge = [&](const double* moved, bool) { return net.margin(moved) <= 0.0; };
    Place place = net.place();
    std::vector<double> low(net.x), high(net.x), witness(net.x.size());
    std::vector<std::uint8_t> fixed(net.x.size(), 0);
    fixed[0] = 1;
    for (std::size_t i = 0; i < low.size(); ++i) {
      low[i] -= numbers.uniform() < 0.2 ? 0.0 : 3.0 * std::abs(net.x[i]) * numbers.uniform();
      high[i] += 3.0 * std::abs(net.x[i]) * numbers.uniform();
    }
    place.low = low.data();
    place.high = high.data();
    place.fixed = fixed.data();
    place.homogeneous = false;
    const double found = Confirmation(place, judge).run(net.shortest().data(), witness.data());
    if (!std::isfinite(found)) continue;
    ++boxed;
    std::vector<double> moved(net.x);
    for (std::size_t i = 0; i < moved.size(); ++i) {
      moved[i] += witness[i];
      CHECK(moved[i] >= low[i] && moved[i] <= high[i]);
    }
    CHECK(witness[0] == 0.0);
    CHECK(net.margin(moved.data()) <= 0.0);
  }
  CHECK(boxed > 20);
}

TEST(confirm_slides_along_the_box_to_the_shortest_witness) {
  Numbers numbers(4);
  int cut = 0;
  for (int k = 0; k < 200; ++k) {
    const Linear net(numbers, 8, 1.0, 0.0, false);
    const Judge judge = [&](const double* moved, bool) { return net.margin(moved) <= 0.0; };
    const Slope slope = [&](const double* moved, double* gradient) {
      std::copy(net.w.begin(), net.w.end(), gradient);
      return net.margin(moved);
    };
    Place place = net.place();
    std::vector<double> low(net.x), high(net.x), witness(net.x.size());
    for (std::size_t i = 0; i < low.size(); ++i) {
      low[i] -= 2.0 * numbers.uniform() * std::abs(net.x[i]);
      high[i] += 2.0 * numbers.uniform() * std::abs(net.x[i]);
    }
    place.low = low.data();
    place.high = high.data();
    place.homogeneous = false;
    const double found = Confirmation(place, judge, slope).run(net.shortest().data(), witness.data());
    // The shortest is -l w, cut off, for the least l that is an error.
    const auto at = [&](double l) {
      std::vector<double> y(net.x);
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = std::min(std::max(y[i] - l * net.w[i], low[i]), high[i]);
      return y;
    };
    double near = 0.0, far = 1e3;
    if (net.margin(at(far).data()) > -1e-9) continue;
    for (int step = 0; step < 80; ++step) {
      const double middle = 0.5 * (near + far);
      (net.margin(at(middle).data()) <= 0.0 ? far : near) = middle;
    }
    std::vector<double> d = at(far);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= net.x[i];
    const double truth = length(d) / std::ldexp(net.size, net.exponent);
    CHECK_AT_MOST(std::abs(found - truth), 1e-5 * truth);
    if (truth > length(net.shortest()) * (1.0 + 1e-6)) ++cut;
  }
  CHECK(cut > 20);
}

TEST(confirm_pushes_neurons_off_their_kinks) {
  // Own neurons e_1 and e_2 both die in the corner (0, 0, x_3), which a perturbation misses by 1e-12.
  const double x[] = {0.3, 0.4, 0.5}, U[] = {1.0, 0.0, 0.0, 0.6, 0.8, 0.0};
  const double size = std::sqrt(0.5), e[] = {x[0] / size, x[1] / size, x[2] / size};
  const double d[] = {-e[0] + 1e-12, -e[1] + 1e-12, 0.0};
  const Judge judge = [&](const double* moved, bool) {
    return moved[0] < 0.0 && 0.6 * moved[0] + 0.8 * moved[1] < 0.0 && moved[2] > 0.49;
  };
  const Place place{x, 3, e, size, 0, 1e-18, true, 1.0, U, 2};
  double witness[3];
  CHECK_AT_MOST(Confirmation(place, judge).run(d, witness), std::hypot(e[0], e[1]) * (1.0 + 1e-7));
  CHECK(judge(std::vector<double>{x[0] + witness[0], x[1] + witness[1], x[2] + witness[2]}.data(), true));
}

}  // namespace

}  // namespace preluflow::tests
