#include "oracle.hpp"

#include <Eigen/Eigenvalues>
#include <Eigen/LU>

namespace preluflow::tests {

using LongMatrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;

Eigen::Matrix<long double, Eigen::Dynamic, 1> eigenvalues(const Eigen::MatrixXd& A) {
  return Eigen::SelfAdjointEigenSolver<LongMatrix>(A.cast<long double>(), Eigen::EigenvaluesOnly).eigenvalues();
}

Eigen::MatrixXd inverse(const Eigen::MatrixXd& A) {
  return Eigen::PartialPivLU<LongMatrix>(A.cast<long double>()).inverse().cast<double>();
}

}  // namespace preluflow::tests
