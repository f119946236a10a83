// Numbers of the inverse, by factors of the matrix and by the neurons' inner products, against the inverse itself.
#include "preluflow/robustness/resolvent.hpp"

#include <cmath>

#include "check.hpp"
#include "oracle.hpp"

namespace preluflow::tests {

namespace {

using Eigen::Matrix2d;
using Eigen::MatrixXd;
using Eigen::VectorXd;

// Neurons, some of which are curved, with the part along a unit vector taken out of them or not.
struct Drawn {
  MatrixXd gram;  // of all neurons, nothing taken out
  InnerProducts products;
  Quadratic quadratic;
  MatrixXd directions;

  Drawn(Numbers& numbers, Index rank, Index curved, Index count, bool slice, bool across, double up)
      : quadratic(rank, curved + 3), directions(rank, count) {
    const Index width = curved + 3;
    const auto normal = [&](VectorXd& x) {
      for (double& entry : x) entry = numbers.normal();
    };
    MatrixXd U(rank, width);
    VectorXd x(rank);
    for (Index j = 0; j < width; ++j) {
      normal(x);
      U.col(j) = x.normalized();
    }
    gram = U.transpose() * U;
    products = {gram.data(), width, {}};
    if (slice) {
      normal(x);
      x.normalize();
      products.removed = U.transpose() * x;
      U -= x * products.removed.transpose();
    }
    quadratic.clear();
    quadratic.products = &products;
    quadratic.curved = curved;
    for (Index k = 0; k < curved; ++k) {
      const Index j = (k * 7) % width;  // in no order, if each once
      quadratic.which[static_cast<std::size_t>(k)] = j;
      quadratic.columns.col(k) = U.col(j);
      quadratic.bend(k) = numbers.uniform() < up ? numbers.uniform(0.1, 2.0) : -numbers.uniform(0.1, 2.0);
    }
    normal(quadratic.b);
    quadratic.grow = across ? numbers.uniform(-0.5, 0.5) : 0.0;
    quadratic.form_Q();
    for (Index i = 0; i < count; ++i) {
      normal(x);
      directions.col(i) = x.normalized();
    }
  }

  MatrixXd A(double l, const VectorXd& weights) const {
    const MatrixXd Q = quadratic.Q.view().selfadjointView<Eigen::Lower>();
    return l * MatrixXd::Identity(Q.rows(), Q.cols()) - Q + directions * weights.asDiagonal() * directions.transpose();
  }
};

double least_eigenvalue(const MatrixXd& A) { return static_cast<double>(eigenvalues(A).minCoeff()); }

// What a resolvent and the inverse say of A, and of A with another weight of its one direction.
void compare(const Drawn& drawn, Resolvent& resolvent, double l, const VectorXd& weights) {
  resolvent.take(drawn.quadratic, drawn.directions);
  const MatrixXd A = drawn.A(l, weights);
  const bool definite = least_eigenvalue(A) > 0.0;
  CHECK(resolvent.factorise(l, weights.data()) == definite);
  if (!definite) return;
  MatrixXd q(A.rows(), 1 + weights.size());
  q << drawn.quadratic.b, drawn.directions;
  const auto agree = [&](const ResolventMoments& found, const MatrixXd& matrix) {
    const MatrixXd solved = inverse(matrix) * q;  // A^-1 q
    const MatrixXd first = q.transpose() * solved, second = solved.transpose() * solved;
    CHECK((found.first - first).norm() <= 1e-9 * first.norm());
    CHECK((found.second - second).norm() <= 1e-9 * second.norm());
  };
  const ResolventMoments found = resolvent.moments();
  agree(found, A);
  const MatrixXd of_A = inverse(A), solved = of_A * q;
  const VectorXd shares = VectorXd::LinSpaced(q.cols(), 0.7, -0.4), x = solved * shares, after = of_A * x;
  CHECK((resolvent.combine(shares) - x).norm() <= 1e-9 * solved.norm());
  CHECK(std::abs(resolvent.third(shares) - x.dot(after)) <= 1e-9 * x.norm() * after.norm());
  if (q.cols() != 2) return;
  agree(found.moved(0.3), A + 0.3 * q.col(1) * q.col(1).transpose());
  const double by = -0.5 / found.first(1, 1);
  agree(found.moved(by), A + by * q.col(1) * q.col(1).transpose());
}

TEST(resolvent_moments_are_those_of_the_inverse) {
  Numbers numbers(1);
  int definite = 0, refused = 0;
  for (Index rank : {24, 33, 50})
    for (Index curved : {Index{0}, Index{1}, Index{9}, Index{20}, rank})
      for (int kind = 0; kind < 12; ++kind) {
        const Index count = kind % 3 == 2 ? 3 : kind % 3;
        const Drawn drawn(numbers, rank, curved, count, kind % 2 == 1, kind % 4 == 1, 0.5 * (kind / 4));
        DenseResolvent dense(rank);
        GramResolvent gram;
        CHECK(GramResolvent::suits(drawn.quadratic));
        const double top = std::max(-least_eigenvalue(drawn.A(0.0, VectorXd::Zero(count))), 0.1);
        for (double share : {0.6, 0.95, 1.05, 3.0})
          for (double weight : {0.0, 0.2, 5.0}) {
            const VectorXd weights = VectorXd::LinSpaced(count, weight, 0.0);  // the last is 0, where there are three
            (least_eigenvalue(drawn.A(share * top, weights)) > 0.0 ? definite : refused)++;
            compare(drawn, dense, share * top, weights);
            compare(drawn, gram, share * top, weights);
          }
      }
  CHECK(definite > 100);
  CHECK(refused > 100);
}

}  // namespace

}  // namespace preluflow::tests
