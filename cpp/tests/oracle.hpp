// What the tests compare with, in more digits: compiled once, since a minute of templates goes into it.
#pragma once

#include <Eigen/Core>

namespace preluflow::tests {

// Of a symmetric matrix, from its lower triangle; (n,), the least first.
Eigen::Matrix<long double, Eigen::Dynamic, 1> eigenvalues(const Eigen::MatrixXd& A);

// Of any matrix that has one, (n, n).
Eigen::MatrixXd inverse(const Eigen::MatrixXd& A);

}  // namespace preluflow::tests
