// The shortest d with <c_i,d> <= -e_i: its conditions of optimality, on random and on awkward instances.
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow::tests {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

struct Instance {
  MatrixXd c;    // (m, dim) unit or zero rows
  VectorXd e;    // (m,)
  double scale;  // the length of a d that satisfies all

  VectorXd solve(const VectorXd& start = {}) const { return min_norm_weights(c * c.transpose(), e, scale, start); }
  VectorXd point(const VectorXd& w) const { return -c.transpose() * w; }
};

// Random constraints that a random point satisfies, some of them with equality.
Instance feasible(Numbers& numbers, Index m, Index dim) {
  Instance out{numbers.directions(m, dim), VectorXd(m), 0.0};
  VectorXd inside(dim);
  for (Index k = 0; k < dim; ++k) inside(k) = numbers.normal();
  out.scale = inside.norm();
  out.e = -out.c * inside;
  for (Index i = 0; i < m; ++i)
    if (numbers.uniform() < 0.7) out.e(i) -= numbers.uniform();
  return out;
}

// w >= 0, d = -sum w c satisfies all, and w_i > 0 only where d does so with equality. This proves d the shortest.
void check_optimal(const Instance& problem, const VectorXd& w) {
  const double tolerance = 1e-9 * problem.scale;
  CHECK(w.size() == problem.e.size() && w.allFinite());
  CHECK(w.minCoeff() >= 0.0);
  const VectorXd room = -problem.e - problem.c * problem.point(w);
  CHECK_AT_MOST(-room.minCoeff(), tolerance);
  CHECK_AT_MOST((w.array() * room.array()).abs().maxCoeff(), tolerance * std::max(1.0, w.maxCoeff()));
  CHECK_AT_MOST(problem.point(w).norm(), problem.scale * (1.0 + 1e-9));
}

TEST(qp_meets_the_conditions_of_optimality) {
  Numbers numbers(1);
  for (Index m : {1, 2, 3, 5, 10, 20})
    for (Index dim : {1, 2, 3, 8, 30})
      for (int repeat = 0; repeat < 20; ++repeat) {
        const Instance problem = feasible(numbers, m, dim);
        check_optimal(problem, problem.solve());
      }
}

TEST(qp_of_constraints_that_hold_at_zero_is_zero) {
  Numbers numbers(2);
  Instance problem{numbers.directions(6, 4), VectorXd::Constant(6, -0.5), 1.0};
  problem.e(2) = 0.0;
  CHECK(problem.solve().isZero(0.0));
}

TEST(qp_sees_constraints_that_are_violated_by_little) {
  for (double little : {1e-3, 1e-6, 3e-9}) {
    const Instance problem{MatrixXd::Identity(2, 2), Eigen::Vector2d(1.0, little), 1.0 + little};
    const VectorXd w = problem.solve();
    check_optimal(problem, w);
    CHECK_AT_MOST((problem.point(w) + problem.e).norm(), 1e-11);
  }
}

TEST(qp_takes_constraints_that_depend_on_each_other) {
  Numbers numbers(3);
  for (int repeat = 0; repeat < 50; ++repeat) {
    Instance problem = feasible(numbers, 12, 3);
    for (Index i = 0; i < 4; ++i) {  // twins, equal ones and weaker ones
      problem.c.row(i + 4) = problem.c.row(i);
      problem.e(i + 4) = problem.e(i) - (i % 2 == 0 ? 0.0 : 0.1);
    }
    problem.c.row(11).setZero();
    problem.e(11) = -0.3;
    check_optimal(problem, problem.solve());
  }
}

TEST(qp_without_a_solution_ends_with_a_bound_beyond_the_scale) {
  Numbers numbers(4);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const Index dim = numbers.integer(1, 6);
    Instance problem{numbers.directions(8, dim), VectorXd::Constant(8, -1.0), 1.0};
    problem.c.row(5) = -problem.c.row(2);
    problem.e(2) = 0.25;
    problem.e(5) = 0.5;  // <c,d> <= -0.25 and <c,d> >= 0.5
    const VectorXd w = problem.solve();
    CHECK(w.allFinite() && w.minCoeff() >= 0.0);
    CHECK(w.dot(problem.e) > problem.scale * problem.point(w).norm());
  }
}

TEST(qp_from_any_start_finds_the_same_point) {
  Numbers numbers(5);
  for (int repeat = 0; repeat < 50; ++repeat) {
    const Instance problem = feasible(numbers, 10, 6);
    const VectorXd cold = problem.solve();
    VectorXd random(10);
    for (Index i = 0; i < 10; ++i) random(i) = numbers.uniform(-1.0, 2.0);
    for (const VectorXd& start : {cold, random, VectorXd(random.head(4))}) {
      const VectorXd warm = problem.solve(start);
      check_optimal(problem, warm);
      CHECK_AT_MOST((problem.point(warm) - problem.point(cold)).norm(), 1e-8 * problem.scale);
    }
  }
}

}  // namespace

}  // namespace preluflow::tests
