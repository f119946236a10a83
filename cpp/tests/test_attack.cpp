// The attack on margins with offsets, constants, a norm's term, tanh and none of these, in the plane: what it finds is
// an error, and about as near as a dense search finds one.
#include "preluflow/robustness/attack.hpp"

#include <cmath>

#include "check.hpp"

namespace preluflow::tests {

namespace {

constexpr Index kDim = 2;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Kind {
  bool offsets, constant, norm, tanh, coordinates;
};

// A margin and a point, and the views of them that the attack takes.
struct Case {
  RowMatrix<double> U, gram;
  std::vector<double> log_a, side, offsets, z, products, slack, doubt, length;
  std::vector<double> x;
  double p, norm_side = 0.0, norm_weight = 0.0;
  Kind kind;

  Case(Numbers& numbers, Index width, double p_, Kind kind_) : p(p_), kind(kind_) {
    U = numbers.directions(width, kDim);
    if (kind.constant) U.row(0).setZero();
    x = {numbers.normal(), numbers.normal()};
    if (homogeneous()) {  // values are cosines
      const double norm = std::hypot(x[0], x[1]);
      for (double& v : x) v /= norm;
    }
    for (Index j = 0; j < width; ++j) {
      if (kind.tanh && !(kind.constant && j == 0)) U.row(j) *= numbers.uniform(0.2, 3.0);
      length.push_back(U.row(j).norm());
      log_a.push_back(numbers.uniform(-1.0, 1.0));
      side.push_back(numbers.uniform() < 0.5 ? -1.0 : 1.0);
      offsets.push_back(kind.offsets ? 0.5 * numbers.normal() : 0.0);
      if (kind.constant && j == 0) offsets.back() = 1.0;
      products.push_back(U(j, 0) * x[0] + U(j, 1) * x[1]);
      z.push_back(products.back() + offsets.back());
      slack.push_back(1e-15);
      doubt.push_back(1e-14);
    }
    gram = U * U.transpose();
    if (kind.norm) {
      norm_side = numbers.uniform() < 0.5 ? -1.0 : 1.0;
      norm_weight = numbers.uniform(-1.0, 1.0);
    }
  }

  bool homogeneous() const { return !kind.offsets && !kind.constant && !kind.norm && !kind.tanh; }
  Index width() const { return U.rows(); }

  Neurons neurons() const {
    Neurons net{kind.tanh ? Curve::tanh : Curve::power, gram.data(), width(), p, 1e-15, nullptr, 0, homogeneous()};
    if (kind.coordinates) {
      net.rows = U.data();
      net.rank = kDim;
    }
    if (kind.tanh) net.length = length.data();
    return net;
  }
  Pair pair() const {
    Pair out{log_a.data(), side.data(), doubt.data(), 1e-14, 0.0};
    out.norm_side = norm_side;
    out.log_norm_weight = norm_weight;
    return out;
  }
  Point point() const {
    Point out{z.data(), slack.data()};
    out.length = std::hypot(x[0], x[1]);
    out.x = x.data();
    out.products = products.data();
    return out;
  }

  double margin(double d0, double d1) const {
    const double y0 = x[0] + d0, y1 = x[1] + d1;
    double m = norm_side * std::exp(norm_weight) * std::pow(std::hypot(y0, y1), p - 1.0);
    for (Index j = 0; j < width(); ++j) {
      const auto k = static_cast<std::size_t>(j);
      const double s = U(j, 0) * y0 + U(j, 1) * y1 + offsets[k];
      m += side[k] * std::exp(log_a[k]) * (kind.tanh ? std::tanh(s) : s > 0.0 ? std::pow(s, p) : 0.0);
    }
    return m;
  }

  // The nearest error on a dense grid of directions and lengths.
  double brute_force(double farthest) const {
    constexpr int kAngles = 360, kLengths = 150;
    double best = farthest;
    for (int k = 0; k < kAngles; ++k) {
      const double angle = 6.283185307179586 * k / kAngles, c = std::cos(angle), s = std::sin(angle);
      for (int i = 1; i <= kLengths; ++i) {
        const double t = farthest * i / kLengths;
        if (t >= best) break;
        if (margin(t * c, t * s) <= 0.0) best = t;
      }
    }
    return best;
  }

  // The perturbation in coordinates.
  std::vector<double> inputs(const Scaled::Row& d, double share) const {
    std::vector<double> out(kDim);
    for (Index k = 0; k < kDim; ++k) {
      double sum = share * x[static_cast<std::size_t>(k)];
      if (kind.coordinates) sum += d(k);
      for (Index j = 0; j < (kind.coordinates ? 0 : width()); ++j) sum += d(j) * U(j, k);
      out[static_cast<std::size_t>(k)] = sum;
    }
    return out;
  }
};

const Interrupt never;

// How often the attack is clearly longer than the dense search, of so many points.
int misses(const Kind& kind, double p, int count, std::uint32_t seed) {
  Numbers numbers(seed);
  int longer = 0;
  for (int k = 0; k < count;) {
    const Case one(numbers, numbers.integer(2, 8), p, kind);
    if (!(one.margin(0.0, 0.0) > 0.0)) continue;
    ++k;
    const Neurons net = one.neurons();
    const Pair pair = one.pair();
    Attack attack(net, {3, 2, 30, 0}, never);
    const double found = attack.run(pair, Groups(net, pair), one.point(), 0.0, static_cast<std::uint64_t>(k));
    const double farthest = one.homogeneous() ? 1.0 : 3.0, truth = one.brute_force(farthest);
    if (truth < farthest && !(found <= 1.01 * truth)) ++longer;
    if (!std::isfinite(found)) continue;
    const std::vector<double> d = one.inputs(attack.d(), attack.share());
    CHECK_AT_MOST(std::abs(std::hypot(d[0], d[1]) - found), 1e-9 * found);
    double size = 0.0;  // of the terms, against which rounding is measured
    for (std::size_t j = 0; j < one.z.size(); ++j) size += std::exp(one.log_a[j]) * std::pow(1.0 + std::abs(found), p);
    CHECK_AT_MOST(one.margin(d[0], d[1]), 1e-9 * size);
  }
  return longer;
}

TEST(attack_finds_what_a_dense_search_finds) {
  for (const bool coordinates : {false, true})
    for (const double p : {1.0, 1.5, 2.0, 3.0}) {
      CHECK(misses({false, false, false, false, coordinates}, p, 25, 1) == 0);
      CHECK(misses({true, false, false, false, coordinates}, p, 25, 2) == 0);
      CHECK(misses({true, true, false, false, coordinates}, p, 25, 3) == 0);
      CHECK(misses({true, false, true, false, coordinates}, p, 25, 4) == 0);
      CHECK(misses({false, false, true, false, coordinates}, p, 25, 5) == 0);
    }
}

TEST(attack_finds_errors_of_tanh) {
  for (const bool coordinates : {false, true}) {
    CHECK(misses({false, false, false, true, coordinates}, 1.0, 50, 6) == 0);
    CHECK(misses({true, true, false, true, coordinates}, 1.0, 50, 7) == 0);
  }
}

TEST(attack_finds_no_error_where_there_is_none) {
  // sigma(x)^p + 1 > 0 everywhere.
  for (const double p : {1.0, 3.0}) {
    Numbers numbers(8);
    Case one(numbers, 3, p, {true, true, false, false, false});
    one.side = {1.0, 1.0, 1.0};
    const Neurons net = one.neurons();
    const Pair pair = one.pair();
    Attack attack(net, {3, 2, 30, 0}, never);
    CHECK(attack.run(pair, Groups(net, pair), one.point(), 0.0, 0) == kInfinity);
  }
}

TEST(attack_leaves_neurons_that_are_no_part_of_a_pair_alone) {
  Numbers numbers(9);
  for (int k = 0; k < 20; ++k) {
    const Case few(numbers, 6, 2.0, {true, false, false, false, false});
    if (!(few.margin(0.0, 0.0) > 0.0)) continue;
    Case more(few);
    more.U.row(5) = -more.U.row(4);
    more.log_a[5] = -kInfinity;
    more.z[5] = 3.0;
    more.gram = more.U * more.U.transpose();
    Case less(few);
    less.U.conservativeResize(5, Eigen::NoChange);
    less.gram = less.U * less.U.transpose();
    const Neurons with = more.neurons(), without = less.neurons();
    Attack one(with, {3, 0, 30, 0}, never), other(without, {3, 0, 30, 0}, never);
    const Pair pair = more.pair();
    const double found = one.run(pair, Groups(with, pair), more.point(), 0.0, 0);
    const double expected = other.run(less.pair(), Groups(without, less.pair()), less.point(), 0.0, 0);
    CHECK(found == expected || std::abs(found - expected) <= 1e-9 * expected);
  }
}

TEST(attack_gives_up_on_what_is_beyond_other_witnesses) {
  Numbers numbers(10);
  for (int k = 0; k < 20; ++k) {
    const Case one(numbers, 6, 3.0, {true, false, false, false, false});
    if (!(one.margin(0.0, 0.0) > 0.0)) continue;
    const Neurons net = one.neurons();
    const Pair pair = one.pair();
    const Groups groups(net, pair);
    Attack attack(net, {3, 2, 30, 0}, never);
    const double found = attack.run(pair, groups, one.point(), 0.0, 0);
    if (!std::isfinite(found)) continue;
    CHECK_AT_MOST(attack.run(pair, groups, one.point(), 0.0, 0, 1.5 * found), 1.01 * found);
    CHECK(!(attack.run(pair, groups, one.point(), 0.0, 0, 0.1 * found) < 0.99 * found));
  }
}

TEST(attack_groups_neurons_of_one_side_around_the_heaviest) {
  Case one = [] {
    Numbers numbers(11);
    return Case(numbers, 5, 1.0, {false, false, false, false, false});
  }();
  const double angles[] = {0.0, 0.4, 0.8, 0.1, 2.0};  // the cosine of 0.4 is 0.92, of 0.8 it is 0.70
  for (Index j = 0; j < 5; ++j) one.U.row(j) << std::cos(angles[j]), std::sin(angles[j]);
  one.gram = one.U * one.U.transpose();
  one.side = {1.0, 1.0, 1.0, -1.0, 1.0};
  one.log_a = {0.0, 1.0, 0.5, 2.0, -kInfinity};
  const Neurons net = one.neurons();
  const Groups groups(net, one.pair());
  CHECK(groups.count() == 2);  // the rival, and all around the second; the last is no part
  CHECK(!groups.own(0) && groups.own(1));
  CHECK_AT_MOST(std::abs(groups.log_weight(1) - std::log(1.0 + std::exp(1.0) + std::exp(0.5))), 1e-14);
  Scaled::Row direction = Scaled::Row::Zero(5);
  groups.add(1, 1.0, direction);
  CHECK(direction(3) == 0.0 && direction(4) == 0.0);
  CHECK_AT_MOST(std::abs((direction.matrix() * one.gram).cwiseProduct(direction.matrix()).sum() - 1.0), 1e-14);
  const double expected = (direction.matrix() * one.gram)(3);
  CHECK_AT_MOST(std::abs(groups.cosine(net, 1, 0) - expected), 1e-14);
}

}  // namespace

}  // namespace preluflow::tests
