// Numbers of the inverse, by factors of the matrix and by the neurons' inner products, against the inverse itself.
#include "preluflow/robustness/resolvent.hpp"

#include <Eigen/Dense>
#include <cmath>

#include "check.hpp"

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
  VectorXd v;
  Slab slab;

  Drawn(Numbers& numbers, Index rank, Index curved, bool slice, bool across, double up)
      : quadratic(rank, curved + 3), v(rank) {
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
    normal(v);
    v.normalize();
    slab.along = &v;
  }

  MatrixXd A(double l, double mu) const {
    const MatrixXd Q = quadratic.Q.view().selfadjointView<Eigen::Lower>();
    return l * MatrixXd::Identity(v.size(), v.size()) - Q + mu * v * v.transpose();
  }
};

// What both resolvents and the inverse say of A at l and mu, and of A with another mu; `slab` may be the whole ball.
void compare(const Drawn& drawn, const Slab& slab, Resolvent& resolvent, double l, double mu) {
  resolvent.take(drawn.quadratic, slab);
  const MatrixXd A = drawn.A(l, mu);
  const bool definite = A.selfadjointView<Eigen::Lower>().eigenvalues().minCoeff() > 0.0;
  CHECK(resolvent.factorise(l, mu) == definite);
  if (!definite) return;
  MatrixXd q(drawn.v.size(), 2);
  q << drawn.quadratic.b, (slab.along == nullptr ? VectorXd(VectorXd::Zero(drawn.v.size())) : drawn.v);
  const auto agree = [&](const ResolventMoments& found, const MatrixXd& matrix) {
    const MatrixXd inverse = matrix.inverse();
    const Matrix2d first = q.transpose() * inverse * q, second = q.transpose() * inverse * inverse * q;
    const Matrix2d third = q.transpose() * inverse * inverse * inverse * q;
    CHECK((found.first - first).norm() <= 1e-9 * first.norm());
    CHECK((found.second - second).norm() <= 1e-9 * second.norm());
    CHECK((found.third - third).norm() <= 1e-9 * third.norm());
  };
  const ResolventMoments found = resolvent.moments();
  agree(found, A);
  CHECK((resolvent.combine(0.7, -0.4) - A.inverse() * (0.7 * q.col(0) - 0.4 * q.col(1))).norm() <=
        1e-9 * (A.inverse() * q).norm());
  if (slab.along == nullptr) return;
  agree(found.moved(0.3), drawn.A(l, mu + 0.3));
  agree(found.moved(-0.5 / found.first(1, 1)), drawn.A(l, mu - 0.5 / found.first(1, 1)));
}

TEST(resolvent_moments_are_those_of_the_inverse) {
  Numbers numbers(1);
  int definite = 0, refused = 0;
  for (Index rank : {24, 33, 50})
    for (Index curved : {Index{0}, Index{1}, Index{9}, Index{20}, rank})
      for (int kind = 0; kind < 12; ++kind) {
        const Drawn drawn(numbers, rank, curved, kind % 2 == 1, kind % 3 == 1, 0.5 * (kind / 4));
        DenseResolvent dense(rank);
        GramResolvent gram(drawn.products);
        CHECK(gram.suits(drawn.quadratic));
        const double top = std::max((-drawn.A(0.0, 0.0)).selfadjointView<Eigen::Lower>().eigenvalues().maxCoeff(), 0.1);
        for (double share : {0.6, 0.95, 1.05, 3.0})
          for (double mu : {0.0, 0.2, 5.0}) {
            (drawn.A(share * top, mu).selfadjointView<Eigen::Lower>().eigenvalues().minCoeff() > 0.0 ? definite
                                                                                                     : refused)++;
            for (Resolvent* resolvent : {static_cast<Resolvent*>(&dense), static_cast<Resolvent*>(&gram)}) {
              compare(drawn, drawn.slab, *resolvent, share * top, mu);
              if (mu == 0.0) compare(drawn, Slab(), *resolvent, share * top, mu);
            }
          }
      }
  CHECK(definite > 100);
  CHECK(refused > 100);
}

}  // namespace

}  // namespace preluflow::tests
