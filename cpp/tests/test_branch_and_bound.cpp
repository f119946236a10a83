// Branch and bound: known answers, errors that a dense search of the plane finds, and what its parts claim of points.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/branch_and_bound.hpp"
#include "preluflow/robustness/chord_bound.hpp"
#include "preluflow/robustness/ellipsoid.hpp"
#include "preluflow/robustness/quadratic_bound.hpp"

namespace preluflow::tests {

namespace {

using Eigen::VectorXd;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kGap = 1e-3;

VectorXd plane(double x, double y) {
  VectorXd v(2);
  v << x, y;
  return v;
}

// A pair of classes with offsets, seen from one point; coordinates are the span's.
struct Problem {
  RowMatrix<double> u;  // (h, rank)
  std::vector<double> offset, log_a, side;
  VectorXd x;
  double p;
  bool cone = false;
  std::vector<double> z, slack, doubt;

  Index width() const { return u.rows(); }
  Index rank() const { return u.cols(); }
  double margin(const VectorXd& d) const {
    double sum = 0.0;
    for (Index j = 0; j < width(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      const double t = u.row(j).dot(x + d) + offset[at];
      sum += side[at] * std::exp(log_a[at]) * relu_power(t, p);
    }
    return sum;
  }
  void prepare() {
    z.clear();
    for (Index j = 0; j < width(); ++j) z.push_back(u.row(j).dot(x) + offset[static_cast<std::size_t>(j)]);
    slack.assign(z.size(), 1e-15);
    doubt.assign(z.size(), 1e-15);
  }
  Neurons net() const { return {Curve::power, nullptr, width(), p, 1e-15, nullptr, 0, cone}; }
  Pair pair() const { return {log_a.data(), side.data(), doubt.data(), 1e-15, 0.0}; }
  Point point() const { return {z.data(), slack.data(), x.norm()}; }
  Span span() const { return {u.data(), rank(), 1e-15}; }

  struct Answer {
    double lower;
    VectorXd d;
    Index nodes;
    ExactTrace trace;
  };
  Answer solve(const VectorXd& witness, double limit, Index most_nodes = 20000) const {
    Answer out{0.0, witness, 0, {}};
    out.nodes = exact_radius(net(), span(), pair(), point(), x.data(), limit, {kGap, most_nodes, 1e9}, Interrupt(),
                             out.lower, out.d.data(), &out.trace);
    return out;
  }
};

Problem random_problem(Numbers& numbers, Index rank, Index width) {
  Problem out;
  const double powers[] = {1.0, 1.5, 2.0, 3.0, 4.0};
  out.p = powers[numbers.integer(0, 4)];
  out.u = numbers.directions(width, rank);
  out.cone = numbers.uniform() < 0.4;
  for (Index j = 0; j < width; ++j) {
    out.offset.push_back(out.cone ? 0.0 : numbers.normal());
    out.log_a.push_back(numbers.uniform(-2.0, 2.0));
    out.side.push_back(numbers.uniform() < 0.5 ? 1.0 : -1.0);
  }
  if (!out.cone && numbers.uniform() < 0.5) {  // a constant
    out.u.row(0).setZero();
    out.offset[0] = 1.0;
  }
  out.x.resize(rank);
  for (Index k = 0; k < rank; ++k) out.x(k) = numbers.normal();
  if (out.cone) out.x.normalize();
  out.prepare();
  return out;
}

// The nearest error on rays of the plane, along a fan of angles; zero if there is none within `most`.
VectorXd search_plane(const Problem& problem, double most) {
  constexpr int kAngles = 1200, kSteps = 300;
  double best = most;
  VectorXd found = VectorXd::Zero(2);
  for (int i = 0; i < kAngles; ++i) {
    const double angle = 2.0 * 3.14159265358979323846 * i / kAngles;
    VectorXd along(2);
    along << std::cos(angle), std::sin(angle);
    double low = 0.0, high = 0.0;
    for (int k = 1; k <= kSteps && !(high > 0.0); ++k) {
      const double t = best * k / kSteps;
      if (problem.margin(t * along) <= 0.0)
        high = t;
      else
        low = t;
    }
    if (!(high > 0.0)) continue;
    for (int k = 0; k < 60; ++k) {
      const double middle = 0.5 * (low + high);
      (problem.margin(middle * along) <= 0.0 ? high : low) = middle;
    }
    if (high < best) {
      best = high;
      found = high * along;
    }
  }
  return found;
}

Problem two_neurons(double p, double a_own, double a_rival, bool cone) {
  Problem out;
  out.p = p;
  out.cone = cone;
  out.u = RowMatrix<double>::Identity(2, 2);
  out.offset = {0.0, 0.0};
  out.log_a = {std::log(a_own), std::log(a_rival)};
  out.side = {1.0, -1.0};
  out.x = plane(1.0, 0.0);
  out.prepare();
  return out;
}

TEST(branch_and_bound_knows_two_orthogonal_neurons) {
  for (double p : {1.0, 1.5, 2.0, 3.0, 4.5})
    for (bool cone : {false, true})
      for (double limit : {1.0, 0.8, kInfinity}) {
        const Problem problem = two_neurons(p, 1.0, 1.0, cone);
        const auto answer = problem.solve(plane(-0.6, 0.6), limit);
        CHECK(answer.nodes > 0 && answer.trace.closed);
        CHECK_AT_MOST(answer.lower, std::sqrt(0.5) * (1.0 + 1e-12));
        CHECK_AT_MOST(std::sqrt(0.5) * (1.0 - 1.01 * kGap), answer.lower);
        CHECK_AT_MOST(answer.d.norm(), std::sqrt(0.5) * (1.0 + 2.0 * kGap));
        CHECK_AT_MOST(problem.margin(answer.d), 1e-9);
      }
}

TEST(branch_and_bound_knows_a_neuron_against_a_constant) {
  for (double p : {1.0, 1.5, 2.0, 3.0})
    for (double offset : {0.0, 0.7, 1e6}) {
      Problem problem = two_neurons(p, 1.0, 1.0, false);
      problem.u.row(1).setZero();  // the second is a constant: an error once the first falls to it
      problem.offset = {offset, 0.25 + offset};
      problem.prepare();
      const auto answer = problem.solve(plane(-0.9, 0.1), kInfinity);
      CHECK_AT_MOST(answer.lower, 0.75 * (1.0 + 1e-12));
      CHECK_AT_MOST(0.75 * (1.0 - 1.01 * kGap), answer.lower);
      problem.side = {-1.0, 1.0};  // or rises to it
      problem.offset = {offset, 1.5 + offset};
      problem.prepare();
      const auto other = problem.solve(plane(0.9, 0.1), kInfinity);
      CHECK_AT_MOST(other.lower, 0.5 * (1.0 + 1e-12));
      CHECK_AT_MOST(0.5 * (1.0 - 1.01 * kGap), other.lower);
    }
}

TEST(branch_and_bound_agrees_with_a_dense_search_of_the_plane) {
  Numbers numbers(1);
  int closed = 0, looked = 0;
  for (int repeat = 0; repeat < (kSanitized ? 60 : 300); ++repeat) {
    const Problem problem = random_problem(numbers, 2, numbers.integer(2, 8));
    if (!(problem.margin(VectorXd::Zero(2)) > 1e-3)) continue;
    const VectorXd witness = search_plane(problem, 4.0);
    if (!(witness.norm() > 0.0)) continue;
    const bool known = numbers.uniform() < 0.6;
    const double limit = witness.norm() * (numbers.uniform() < 0.5 ? 1.0 : 1.3);
    const auto answer = problem.solve(known ? witness : VectorXd(VectorXd::Zero(2)), limit, 3000);
    if (answer.nodes == 0) continue;  // nothing speaks for the class with rounding's room
    ++looked;
    closed += answer.trace.closed ? 1 : 0;
    CHECK_AT_MOST(answer.lower, witness.norm() * (1.0 + 1e-9));
    if (answer.d.norm() > 0.0) {
      CHECK_AT_MOST(problem.margin(answer.d), 1e-9);
      CHECK_AT_MOST(answer.lower, answer.d.norm() * (1.0 + 1e-12));
      if (answer.trace.closed)
        CHECK_AT_MOST(
            std::min({answer.d.norm(), limit, problem.cone ? problem.x.norm() : kInfinity}) * (1.0 - 1.01 * kGap),
            answer.lower);
    }
  }
  CHECK(looked > (kSanitized ? 15 : 80));
  CHECK(closed >= looked - looked / 20);
}

TEST(branch_and_bound_says_nothing_beyond_the_limit) {
  const Problem problem = two_neurons(3.0, 1.0, 1.0, false);
  for (double limit : {0.1, 0.5, 0.7}) {
    const VectorXd none = VectorXd::Zero(2), far = plane(-0.9, 0.9);
    for (const VectorXd& witness : {none, far}) {
      const auto answer = problem.solve(witness, limit);
      CHECK_AT_MOST(answer.lower, limit);
      CHECK_AT_MOST(limit * (1.0 - 1.01 * kGap), answer.lower);
      CHECK(answer.d == witness);  // no error that is nearer than the limit
    }
  }
}

TEST(branch_and_bound_leaves_alone_what_it_cannot_bound) {
  Problem problem = two_neurons(3.0, 1.0, 1.0, false);
  CHECK(problem.solve(VectorXd::Zero(2), kInfinity).nodes == 0);  // no length to look within
  problem.side = {-1.0, -1.0};                                    // an error already
  CHECK(problem.solve(plane(0.1, 0.1), 1.0).nodes == 0);
  problem = two_neurons(3.0, 1.0, 1.0, false);
  problem.log_a[1] = -kInfinity;  // no part of this pair: an error is x_1 <= 0
  const auto answer = problem.solve(plane(-1.1, 0.0), kInfinity);
  CHECK_AT_MOST(answer.lower, 1.0);
  CHECK_AT_MOST(1.0 - 1.01 * kGap, answer.lower);
}

// Points of a ball, some of them errors.
VectorXd within(Numbers& numbers, Index rank, double reach) {
  VectorXd d(rank);
  for (Index k = 0; k < rank; ++k) d(k) = numbers.normal();
  return d * (reach * std::pow(numbers.uniform(), 0.3) / d.norm());
}

double margin_of(const Sides& sides, const VectorXd& d, double p) {
  return sides.own.value(d, p) - sides.rival.value(d, p);
}

TEST(branch_and_bound_majorants_lie_above_and_ellipsoids_hold_all_errors) {
  Numbers numbers(2);
  int errors = 0;
  for (int repeat = 0; repeat < 60; ++repeat) {
    const Index rank = numbers.integer(2, 5);
    const Problem problem = random_problem(numbers, rank, 8);
    Sides sides;
    if (!sides.set(problem.net(), problem.span(), problem.pair(), problem.point(), 1.5, VectorXd::Zero(rank))) continue;
    const double reach = 1.5 / sides.unit;
    const ChordBound chords(sides, problem.p, 1e-15, rank);
    Node node = chords.root(reach);
    node.add_direction(within(numbers, rank, 1.0).normalized(), -reach, reach);
    node.centre = within(numbers, rank, reach);
    NodeMajorant F(sides, problem.p, 1e-15);
    Ellipsoid ellipsoid(rank);
    NodeMultipliers multipliers(rank);
    F.take(node);
    VectorXd weights;
    Moments mixture;
    for (int k = 0; k < 3; ++k) {
      const VectorXd seen = F.columns.leftCols(F.neurons()).transpose() * within(numbers, rank, reach);
      if (k == 0)
        mixture.set(seen, 0.0);
      else
        mixture.mix(seen, 0.0, 1.0 / (k + 1.0));
    }
    for (const Kind& kind :
         {Kind{false, 0.0, 0.0}, Kind{false, 1.0, -1.0}, Kind{false, 0.5, 0.9}, Kind{true, 0.0, -1.0}}) {
      if (!F.build(node, reach, node.centre, kind, mixture)) continue;
      F.wanted(node.centre, std::max(kind.press, 0.0), weights);
      if (!multipliers.search(F, node, reach, 0.0, weights, kind.press >= 0.0)) continue;
      CHECK(multipliers.w().size() == 0 || multipliers.w().minCoeff() >= 0.0);
      F.press(node, reach, multipliers.w());
      const bool set = ellipsoid.set(F, reach, multipliers.l());
      Node narrow = node;
      double gained = 0.0;
      if (set) ellipsoid.meet(node, F);
      const bool left = !set || ellipsoid.narrow(narrow, F, gained);
      for (int sample = 0; sample < 200; ++sample) {
        const VectorXd d = within(numbers, rank, reach);
        const double m = margin_of(sides, d, problem.p);
        const VectorXd bow = F.quadratic.Q.view().selfadjointView<Eigen::Lower>() * d;
        const double above = F.quadratic.c0 + F.quadratic.b.dot(d) + d.dot(bow);
        CHECK_AT_MOST(-m, above + 1e-12 * (1.0 + std::abs(m)));
        if (m > 0.0) continue;
        ++errors;
        CHECK(left);
        if (!set) continue;
        CHECK_AT_MOST(ellipsoid.bound(), d.norm() * (1.0 + 1e-12));
        const VectorXd seen = F.z + F.columns.transpose() * d;
        CHECK_AT_MOST((narrow.low - seen).maxCoeff(), 1e-12 * reach);
        CHECK_AT_MOST((seen - narrow.high).maxCoeff(), 1e-12 * reach);
      }
    }
  }
  CHECK(errors > 1000);
}

// V(l, w) of docs/mathematics.md#node-multipliers; infinite where A is not positive definite.
double dual_value(const NodeMajorant& F, const Node& node, double enough, double l, const VectorXd& w) {
  Eigen::MatrixXd A = -Eigen::MatrixXd(F.quadratic.Q.view().selfadjointView<Eigen::Lower>());
  A.diagonal().array() += l;
  VectorXd b = F.quadratic.b;
  double value = F.quadratic.c0 + l * enough * enough;
  for (Index i = 0; i < w.size(); ++i) {
    const VectorXd n = F.columns.col(F.neurons() + i);
    const double low = node.low(F.neurons() + i), high = node.high(F.neurons() + i);
    A += w(i) * n * n.transpose();
    b += w(i) * (low + high) * n;
    value -= w(i) * low * high;
  }
  const Eigen::LLT<Eigen::MatrixXd> factors(A);
  return factors.info() == Eigen::Success ? value + 0.25 * b.dot(factors.solve(b)) : kInfinity;
}

// In the others the search ends at an edge of V, which does not pay to follow: docs/decisions/011.
TEST(branch_and_bound_multipliers_are_nearly_the_best_in_most_nodes) {
  Numbers numbers(4);
  int looked = 0, near = 0;
  for (int repeat = 0; repeat < 100; ++repeat) {
    const Index rank = numbers.integer(2, 6);
    const Problem problem = random_problem(numbers, rank, 10);
    Sides sides;
    if (!sides.set(problem.net(), problem.span(), problem.pair(), problem.point(), 1.5, VectorXd::Zero(rank))) continue;
    const double reach = 1.5 / sides.unit;
    Node node = ChordBound(sides, problem.p, 1e-15, rank).root(reach);
    for (int k = 0; k < 3; ++k) {
      const double low = numbers.uniform(-1.0, 0.5) * reach;
      node.add_direction(within(numbers, rank, 1.0).normalized(), low, low + numbers.uniform(0.1, 1.0) * reach);
    }
    NodeMajorant F(sides, problem.p, 1e-15);
    F.take(node);
    if (!F.build(node, reach, within(numbers, rank, reach), {false, 0.0, 0.0}, Moments())) continue;
    NodeMultipliers multipliers(rank);
    if (!multipliers.search(F, node, reach, 0.0, VectorXd(), false) || multipliers.value() < 0.0) continue;
    ++looked;
    const double l = multipliers.l(), found = dual_value(F, node, reach, l, multipliers.w());
    CHECK_AT_MOST(std::abs(found - multipliers.value()), 1e-6 * (1.0 + std::abs(found)));
    double least = found;
    for (int trial = 0; trial < 300; ++trial) {
      VectorXd w = multipliers.w();
      for (double& weight : w) weight = std::max(weight + numbers.normal() * 0.2 * l, 0.0);
      least = std::min(least, dual_value(F, node, reach, l * std::exp(0.3 * numbers.normal()), w));
    }
    near += found - least <= 0.05 * l * reach * reach ? 1 : 0;
  }
  CHECK(looked > 20);
  CHECK(3 * near >= 2 * looked);
}

TEST(branch_and_bound_half_spaces_bound_what_satisfies_them) {
  Numbers numbers(3);
  for (int repeat = 0; repeat < 200; ++repeat) {
    const Index rank = numbers.integer(1, 6), count = numbers.integer(1, 10);
    const VectorXd d = within(numbers, rank, 2.0);
    HalfSpaces spaces(rank);
    VectorXd weights(count);
    for (Index i = 0; i < count; ++i) {
      const VectorXd c = within(numbers, rank, 1.0).normalized();
      spaces.add(c, -c.dot(d) - (numbers.uniform() < 0.5 ? 0.0 : numbers.uniform()), 1e-15);
      weights(i) = numbers.uniform();
    }
    VectorXd shortest;
    CHECK_AT_MOST(spaces.bound(weights, 2.0), d.norm());
    const VectorXd best = spaces.shortest(2.0, 0.0, {}, shortest);
    CHECK_AT_MOST(spaces.bound(best, 2.0), d.norm());
    CHECK_AT_MOST(shortest.norm() * (1.0 - 1e-9) - 1e-9, spaces.bound(best, 2.0));
  }
}

}  // namespace

}  // namespace preluflow::tests
