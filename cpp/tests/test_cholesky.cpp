// Products, factors and solutions against their definitions, with the bounds that proofs take for granted.
#include "preluflow/robustness/cholesky.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"

namespace preluflow::tests {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using LongMatrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// Every remainder of vectors, tiles and blocks there is, and orders whose columns would share places of a cache.
constexpr Index kOrders[] = {1,  2,  3,  4,  5,  7,  8,  9,  15, 16, 17,  23, 24,
                             25, 31, 32, 33, 40, 47, 63, 64, 65, 97, 128, 200};

MatrixXd random_matrix(Numbers& numbers, Index rows, Index cols) {
  MatrixXd A(rows, cols);
  for (Index j = 0; j < cols; ++j)
    for (Index i = 0; i < rows; ++i) A(i, j) = numbers.normal();
  return A;
}

ColumnMatrix columns_of(const MatrixXd& A) {
  ColumnMatrix out(A.rows(), A.cols());
  out.view() = A;
  return out;
}

MatrixXd definite(Numbers& numbers, Index n) {
  const MatrixXd A = random_matrix(numbers, n, n);
  return A * A.transpose() + MatrixXd::Identity(n, n);
}

// L's columns, as L^-1 is known by what it does: the inverse of L^-1 I.
MatrixXd lower_of(const Cholesky& factors, Index n) {
  MatrixXd inverse = MatrixXd::Identity(n, n);
  factors.solve_lower(inverse);
  return inverse.triangularView<Eigen::Lower>().solve(MatrixXd::Identity(n, n));
}

TEST(cholesky_lower_product_is_within_its_bound) {
  Numbers numbers(1);
  for (Index n : kOrders)
    for (Index count : {Index{0}, Index{1}, std::min<Index>(n, 150), Index{150}}) {
      const MatrixXd A = random_matrix(numbers, n, 150), B = random_matrix(numbers, n, 150);
      ColumnMatrix Q = columns_of(random_matrix(numbers, n, n));
      lower_product(columns_of(A), columns_of(B), count, Q);
      const LongMatrix longA = A.leftCols(count).cast<long double>(), longB = B.leftCols(count).cast<long double>();
      const LongMatrix exact = longA * longB.transpose();
      const MatrixXd sizes = A.leftCols(count).cwiseAbs() * B.leftCols(count).cwiseAbs().transpose();
      for (Index j = 0; j < n; ++j)
        for (Index i = j; i < n; ++i)
          CHECK(std::abs(static_cast<double>(Q.view()(i, j) - exact(i, j))) <=
                kEpsilon * static_cast<double>(count) * sizes(i, j));
    }
}

TEST(cholesky_factors_are_those_of_the_matrix) {
  Numbers numbers(2);
  for (Index n : kOrders) {
    Cholesky factors(n);
    for (int repeat = 0; repeat < 3; ++repeat) {  // what the last one left behind is not in the next one's way
      const MatrixXd A = definite(numbers, n), N = random_matrix(numbers, n, 3);
      const double diagonal = numbers.uniform(1.0, 2.0);
      const VectorXd weight = VectorXd::LinSpaced(3, -0.5, 1.0);  // those that are not above 0 are left out
      MatrixXd whole = A;
      for (Index i = 0; i < 3; ++i)
        if (weight(i) > 0.0) whole += weight(i) * N.col(i) * N.col(i).transpose();
      factors.set(diagonal, columns_of(diagonal * MatrixXd::Identity(n, n) - A));
      factors.add(N, weight.data());
      CHECK(factors.factorise());
      const MatrixXd L = lower_of(factors, n);
      const MatrixXd off = L * L.transpose() - whole;
      const VectorXd sizes = whole.diagonal().cwiseSqrt();
      const double units = 200.0 * static_cast<double>(n + 1) * kEpsilon;  // that of L's inverse besides
      for (Index j = 0; j < n; ++j)
        for (Index i = 0; i < n; ++i) CHECK(std::abs(off(i, j)) <= units * sizes(i) * sizes(j));
      CHECK(std::abs(factors.squares() - whole.trace()) <= units * whole.trace());

      const VectorXd x = random_matrix(numbers, n, 1);
      VectorXd solved = x, halves = x;
      factors.solve(solved);
      CHECK((whole * solved - x).norm() <= units * whole.norm() * solved.norm());
      factors.solve_lower(halves);
      ColumnMatrix rows = columns_of(random_matrix(numbers, 2 * n + 1, n));
      rows.view().row(n) = x.transpose();
      factors.solve_rows(rows);
      CHECK((rows.view().row(n).transpose() - halves).norm() <= units * whole.norm() * halves.norm());
      factors.solve_upper(halves);
      CHECK((halves - solved).norm() <= units * whole.norm() * solved.norm());
    }
  }
}

TEST(cholesky_says_where_there_are_no_factors) {
  Numbers numbers(3);
  for (Index n : kOrders) {
    Cholesky factors(n);
    const MatrixXd Q = definite(numbers, n);
    factors.set(0.0, columns_of(Q));
    CHECK(!factors.factorise());
    factors.set(0.0, ColumnMatrix(n, n));
    CHECK(!factors.factorise());
    MatrixXd unknown = -Q;
    unknown(n - 1, n / 2) = std::numeric_limits<double>::quiet_NaN();
    factors.set(0.0, columns_of(unknown));
    CHECK(!factors.factorise());
    MatrixXd nearly = -Q;  // singular but for its last pivot, which is below 0
    nearly.row(n - 1).setZero();
    nearly.col(n - 1).setZero();
    nearly(n - 1, n - 1) = 1e-9;
    factors.set(0.0, columns_of(nearly));
    CHECK(!factors.factorise());
    factors.set(0.0, columns_of(-Q));  // and then they are found all the same
    CHECK(factors.factorise());
  }
}

}  // namespace

}  // namespace preluflow::tests
