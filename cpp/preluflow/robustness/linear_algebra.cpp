#include "preluflow/robustness/linear_algebra.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/lanes.hpp"
#include "preluflow/panels.hpp"
#include "preluflow/robustness/cholesky.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

double dot(const double* a, const double* b, Index n) {
  Lanes sum = Lanes::Zero();
  for_lanes(n, [&](const auto& at) { sum += at(a) * at(b); });
  return total(sum);
}

}  // namespace

namespace {

constexpr Index kRows = 32;  // of a task

void product_rows(const PanelMatrix<double>& B, const double* A, Index rows, double* out) {
  const Index m = B.layout().width, k = B.layout().dim, padded = B.layout().padded();
  const double* row[kRows];
  for (Index i = 0; i < rows; ++i) row[i] = A + i * k;
  Vector<double> z(rows * padded);
  for (Index panel = 0; panel < B.layout().panels; ++panel) panel_product(B, panel, row, rows, z.data(), padded);
  for (Index i = 0; i < rows; ++i) std::copy_n(z.data() + i * padded, m, out + i * m);
}

}  // namespace

void products(Team& team, const double* A, Index n, const double* B, Index m, Index k, double* out) {
  const PanelMatrix<double> panels(ConstMatrixMap<double>(B, m, k));
  team.parallel_for((n + kRows - 1) / kRows, [&](Index task) {
    const Index first = task * kRows;
    product_rows(panels, A + first * k, std::min(kRows, n - first), out + first * m);
  });
}

void products(const PanelMatrix<double>& B, const double* A, Index n, double* out) {
  for (Index first = 0; first < n; first += kRows)
    product_rows(B, A + first * B.layout().dim, std::min(kRows, n - first), out + first * B.layout().width);
}

// docs/mathematics.md#rounding-eigenvalue
double largest_eigenvalue(const Eigen::MatrixXd& M) {
  const Index m = M.rows();
  if (m == 0) return 0.0;
  const double trace = M.trace(), most = M.cwiseAbs().rowwise().sum().maxCoeff();
  ColumnMatrix columns(m, m);
  columns.view() = M;
  Cholesky factors(m);
  const auto above = [&](double l) {
    factors.set(l, columns);
    return factors.factorise();
  };
  // Power iteration from below; from above the trace and the largest row sum.
  Eigen::VectorXd x = Eigen::VectorXd::LinSpaced(m, 1.0, 2.0).normalized(), product(m);
  double low = 0.0;
  for (int k = 0; k < 300; ++k) {
    product.noalias() = M * x;
    const double next = x.dot(product), length = product.norm();
    if (!(length > 0.0)) break;
    x = product / length;
    const bool settled = next - low <= 1e-12 * next;
    low = std::max(low, next);
    if (settled) break;
  }
  double high = std::min(trace, most) * (1.0 + 1e-12 + kEpsilon * static_cast<double>(m));
  for (double step = 1e-10; low * (1.0 + step) < high; step *= 8.0) {
    if (above(low * (1.0 + step))) {
      high = low * (1.0 + step);
      break;
    }
    low *= 1.0 + step;
  }
  while (high - low > 1e-9 * high) {
    const double middle = 0.5 * (low + high);
    (above(middle) ? high : low) = middle;
  }
  // Success proves l - M >= -(m + 1) u trace(l - M) (Higham, Accuracy and Stability, theorem 10.3), trace <= m l.
  return high * (1.0 + kEpsilon * static_cast<double>(m + 4) * static_cast<double>(m));
}

std::vector<double> orthonormal_basis(const double* U, Index h, Index D, double tolerance) {
  std::vector<double> basis;
  if (h >= D) {
    basis.assign(static_cast<std::size_t>(D * D), 0.0);
    for (Index d = 0; d < D; ++d) basis[static_cast<std::size_t>(d * D + d)] = 1.0;
    return basis;
  }
  std::vector<double> v(static_cast<std::size_t>(D));
  for (Index j = 0; j < h; ++j) {
    std::copy_n(U + j * D, D, v.begin());
    const auto rank = static_cast<Index>(basis.size()) / D;
    double length = 1.0;
    for (int pass = 0; pass < 3 && length > tolerance; ++pass) {
      for (Index r = 0; r < rank; ++r) {
        const double* b = basis.data() + r * D;
        const double share = dot(v.data(), b, D);
        for (Index d = 0; d < D; ++d) v[static_cast<std::size_t>(d)] -= share * b[d];
      }
      const double now = std::sqrt(dot(v.data(), v.data(), D));
      length *= now;
      if (!(length > tolerance)) break;
      for (double& entry : v) entry /= now;
    }
    if (length > tolerance) basis.insert(basis.end(), v.begin(), v.end());
  }
  return basis;
}

}  // namespace preluflow
