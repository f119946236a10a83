// A quadratic in a perturbation, as the sum of neurons' quadratics, and slabs of a ball.
#pragma once

#include <vector>

#include "preluflow/robustness/cholesky.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// Inner products of the neurons' columns: gram (h, h), less those of their components along a unit vector, `removed`
// (h,), if there are any. Null: not known.
struct InnerProducts {
  const double* gram = nullptr;
  Index width = 0;
  Eigen::VectorXd removed;

  double operator()(Index i, Index j) const {
    const double product = gram[i * width + j];
    return removed.size() > 0 ? product - removed(i) * removed(j) : product;
  }
};

// c0 + <b,d> + sum_k bend_k <column_k,d>^2 + grow ||d||^2 in the span; across it grow t^2 + cross t besides.
struct Quadratic {
  Quadratic(Index rank, Index width)
      : b(rank),
        bend(width),
        which(static_cast<std::size_t>(width)),
        columns(rank, width),
        weighted(rank, width),
        Q(rank, rank) {}

  double c0 = 0.0, grow = 0.0, cross = 0.0;
  double scale = 0.0;  // what its terms' absolute values add up to, at most
  double bends = 0.0;  // >= ||Q||
  Index curved = 0;    // how many columns there are
  Eigen::VectorXd b, bend;
  std::vector<Index> which;                 // the neurons that the columns are,
  const InnerProducts* products = nullptr;  // and their products
  ColumnMatrix columns, weighted, Q;
  bool formed = false;  // Q's lower triangle, by form_Q

  void clear();
  void form_Q();
};

// All d of the ball with low <= <along,d> <= high; along (rank,), or null: the whole ball.
struct Slab {
  const Eigen::VectorXd* along = nullptr;
  double low = 0.0, high = 0.0;
};

}  // namespace preluflow
