// Linear algebra that brackets are built on. NumPy's own products change their last bits with the number of OpenBLAS's
// threads; these do not, and each has an error bound of its own (docs/mathematics.md#rounding-products).
#pragma once

#include <vector>

#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// out (n, m) = A B^T with A (n, k) and B (m, k). Every entry is one sum over k in runs of 256, whose order depends on k
// alone: it errs by at most (min(k, 256) + k / 256 + 2) units of rounding times sum |a b|.
void products(Team& team, const double* A, Index n, const double* B, Index m, Index k, double* out);

// The same on the calling thread alone, with B in panels: bit for bit.
void products(const PanelMatrix<double>& B, const double* A, Index n, double* out);

// out (1, k) += sum_i weight[i] (row row[i] of M), four rows at a time.
template <class Row>
void add_rows(const ConstMatrixMap<double>& M, const Index* row, const double* weight, Index count, Row& out) {
  const auto at = [&](Index i) { return weight[i] * M.row(row[i]).array(); };
  Index i = 0;
  for (; i + 4 <= count; i += 4) out += (at(i) + at(i + 1)) + (at(i + 2) + at(i + 3));
  for (; i < count; ++i) out += at(i);
}

// An upper bound on the largest eigenvalue of the symmetric matrix M (m, m), within 1e-9 of it or so: the least l found
// for which the Cholesky factors of l - M exist, which proves l - M >= 0 up to their rounding, which is added.
double largest_eigenvalue(const Eigen::MatrixXd& M);

// Orthonormal rows (rank, D) that span the rows of U (h, D), by Gram and Schmidt, each twice; a row within `tolerance`
// of the span of those before it adds none. The unit vectors themselves where h >= D.
std::vector<double> orthonormal_basis(const double* U, Index h, Index D, double tolerance);

}  // namespace preluflow
