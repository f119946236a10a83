// The linear algebra that brackets are built on, against slower and more exact forms of it.
#include <algorithm>
#include <cmath>

#include "check.hpp"
#include "oracle.hpp"
#include "preluflow/lanes.hpp"
#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/shift.hpp"

namespace preluflow::tests {

namespace {

using Eigen::MatrixXd;
using LongMatrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;

// No less than the truth, which is found in more digits (where a long double has more), and no more than 1e-8 above.
void check_largest(const MatrixXd& M) {
  const long double truth = eigenvalues(M).maxCoeff(), found = largest_eigenvalue(M);
  CHECK(found >= truth * (1.0L - 1e-17L));
  CHECK(found <= truth * (1.0L + 1e-8L));
}

MatrixXd random_gram(Numbers& numbers, Index m, Index rank) {
  MatrixXd A(m, rank);
  for (Index i = 0; i < m; ++i)
    for (Index k = 0; k < rank; ++k) A(i, k) = numbers.normal();
  return A * A.transpose();
}

TEST(linear_algebra_largest_eigenvalue_is_a_close_upper_bound) {
  Numbers numbers(1);
  for (Index m : {1, 2, 3, 7, 20, 40})
    for (Index rank : {Index{1}, std::max<Index>(m / 2, 1), m})
      for (int repeat = 0; repeat < 4; ++repeat)
        check_largest(random_gram(numbers, m, rank) * std::pow(10.0, numbers.uniform(-100.0, 100.0)));
}

TEST(linear_algebra_largest_eigenvalue_of_awkward_matrices) {
  CHECK(largest_eigenvalue(MatrixXd(0, 0)) == 0.0);
  for (Index m : {1, 5, 30}) {
    check_largest(MatrixXd::Identity(m, m));  // all eigenvalues equal
    check_largest(MatrixXd::Ones(m, m));
    MatrixXd nearly = MatrixXd::Identity(m, m);  // a pair that power iteration does not tell apart
    nearly(0, 0) = 1.0 + 1e-10;
    check_largest(nearly);
  }
  // The eigenvector is orthogonal to where power iteration begins.
  const Index m = 9;
  const Eigen::VectorXd begin = Eigen::VectorXd::LinSpaced(m, 1.0, 2.0).normalized();
  Eigen::VectorXd top = Eigen::VectorXd::Unit(m, 4);
  top = (top - begin.dot(top) * begin).normalized();
  check_largest(begin * begin.transpose() + 1.5 * top * top.transpose());
  check_largest(1.5 * top * top.transpose());
}

TEST(linear_algebra_products_are_within_their_bound) {
  Numbers numbers(2);
  for (Index k : {1, 5, 256, 300, 1000})
    for (Index n : {1, 32, 33, 70}) {
      const Index m = 1 + n % 11;
      const RowMatrix<double> A = numbers.directions(n, k), B = numbers.directions(m, k);
      RowMatrix<double> out(n, m);
      Team::run(3, 1e9, [&](Team& team) { products(team, A.data(), n, B.data(), m, k, out.data()); });
      const LongMatrix truth = A.cast<long double>() * B.cast<long double>().transpose();
      const RowMatrix<double> sizes = A.cwiseAbs() * B.cwiseAbs().transpose();
      const double units = static_cast<double>(std::min<Index>(k, 256)) + static_cast<double>(k) / 256.0 + 2.0;
      const auto error = (out.cast<long double>() - truth).cwiseAbs().cast<double>();
      CHECK((error.array() <= units * 0x1.0p-53 * sizes.array()).all());
    }
}

// The basis as a matrix, once its rows are known to be orthonormal and to span the rows of U up to the tolerance.
RowMatrix<double> checked_basis(const RowMatrix<double>& U, double tolerance) {
  const Index D = U.cols();
  const std::vector<double> entries = orthonormal_basis(U.data(), U.rows(), D, tolerance);
  CHECK(static_cast<Index>(entries.size()) % D == 0);
  const RowMatrix<double> B = ConstMatrixMap<double>(entries.data(), static_cast<Index>(entries.size()) / D, D);
  const RowMatrix<double> gram = B * B.transpose();
  CHECK_AT_MOST((gram - RowMatrix<double>::Identity(B.rows(), B.rows())).cwiseAbs().maxCoeff(), 1e-14);
  CHECK_AT_MOST((U - U * B.transpose() * B).rowwise().norm().maxCoeff(), tolerance + 1e-14);
  return B;
}

TEST(linear_algebra_lanes_see_every_number_once_wherever_it_lies) {
  Numbers numbers(5);
  std::vector<double> room(64);
  for (Index n = 0; n < 40; ++n)
    for (Index from : {Index{0}, Index{1}, Index{3}}) {
      double* v = room.data() + from;
      long double squares = 0.0L;
      double most = 0.0;
      std::fill(room.begin(), room.end(), 1e9);  // what lies beyond must not be read
      for (Index k = 0; k < n; ++k) {
        v[k] = numbers.normal();
        squares += static_cast<long double>(v[k]) * v[k];
        most = std::max(most, std::abs(v[k]));
      }
      CHECK(largest_size(v, n) == most);
      CHECK(std::abs(sum_of_squares(v, n) - static_cast<double>(squares)) <= 1e-14 * static_cast<double>(squares));
      const std::vector<double> copy(v, v + n);
      CHECK(sum_of_squares(copy.data(), n) == sum_of_squares(v, n));  // to the bit, at any address
    }
}

TEST(linear_algebra_add_rows_is_a_product_from_the_left) {
  Numbers numbers(6);
  RowMatrix<double> M(9, 13);
  for (Index k = 0; k < M.size(); ++k) M.data()[k] = numbers.normal();
  const ConstMatrixMap<double> map(M.data(), 9, 13);
  for (Index count = 0; count <= 9; ++count) {
    std::vector<Index> rows;
    std::vector<double> weights;
    Eigen::Array<double, 1, Eigen::Dynamic> out = Eigen::Array<double, 1, Eigen::Dynamic>::Constant(13, 2.0);
    Eigen::RowVectorXd truth = Eigen::RowVectorXd::Constant(13, 2.0);
    for (Index i = 0; i < count; ++i) {
      rows.push_back((i * 4) % 9);
      weights.push_back(numbers.normal());
      truth += weights.back() * M.row(rows.back());
    }
    add_rows(map, rows.data(), weights.data(), count, out);
    CHECK((out.matrix() - truth).cwiseAbs().maxCoeff() <= 1e-14);
  }
}

TEST(linear_algebra_shift_is_ldexp) {
  Numbers numbers(7);
  for (int exponent : {-2000, -1074, -1023, -1022, -60, 0, 1, 300, 1022, 1023, 2000})
    for (int repeat = 0; repeat < 50; ++repeat) {
      const double value = std::ldexp(numbers.normal(), static_cast<int>(numbers.integer(-1060, 1000)));
      const double shifted = Shift(exponent)(value);
      CHECK(shifted == std::ldexp(value, exponent));
    }
}

TEST(linear_algebra_basis_is_orthonormal_and_spans) {
  Numbers numbers(3);
  for (Index D : {2, 5, 40, 300})
    for (Index h : {1, 2, 4, 39}) {
      if (h >= D) continue;
      CHECK(checked_basis(numbers.directions(h, D), 1e-12).rows() == h);
    }
  const RowMatrix<double> many = numbers.directions(7, 5);
  CHECK(checked_basis(many, 1e-12).isIdentity(0.0));
}

TEST(linear_algebra_basis_leaves_out_what_depends_on_others) {
  Numbers numbers(4);
  RowMatrix<double> U = numbers.directions(12, 30);
  for (Index j = 4; j < 12; ++j) U.row(j) = (U.row(j - 4) + 0.5 * U.row(j - 3)).normalized();
  CHECK(checked_basis(U, 1e-12).rows() == 4);
  U.row(11) = (U.row(0) + 1e-7 * numbers.directions(1, 30).row(0)).normalized();  // nearly a twin
  CHECK(checked_basis(U, 1e-12).rows() == 5);
  CHECK(checked_basis(U, 1e-5).rows() == 4);
  U.row(2).setZero();
  checked_basis(U, 1e-12);
}

}  // namespace

}  // namespace preluflow::tests
