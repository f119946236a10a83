// The largest value of a quadratic on a ball, or on a slab of it, bounded from above.
#pragma once

#include "preluflow/robustness/cholesky.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// c0 + <b,d> + sum_k bend_k <column_k,d>^2 + grow ||d||^2 in the span; across it grow t^2 + cross t besides.
struct Quadratic {
  Quadratic(Index rank, Index width)
      : b(rank), bend(width), columns(rank, width), weighted(rank, width), Q(rank, rank) {}

  double c0 = 0.0, grow = 0.0, cross = 0.0;
  double scale = 0.0;  // what its terms' absolute values add up to, at most
  double bends = 0.0;  // >= ||Q||
  Index curved = 0;    // how many columns there are
  Eigen::VectorXd b, bend;
  ColumnMatrix columns, weighted, Q;  // Q: the lower triangle, once form_Q has been called

  void clear();
  void form_Q();
};

// All d of the ball with low <= <along,d> <= high; along (rank,), or null: the whole ball.
struct Slab {
  const Eigen::VectorXd* along = nullptr;
  double low = 0.0, high = 0.0;
};

// By multipliers l of ||d||^2 <= r^2 and mu of (<along,d> - low) (high - <along,d>) >= 0
// (docs/mathematics.md#trust-region, docs/mathematics.md#slabs).
class BallMaximum {
 public:
  explicit BallMaximum(Index rank) : d_(rank), residual_(rank), along_(rank), factors_(rank) {}

  // Whether it is below 0, proved: `allowance` is what rounding may have done to the quadratic. Leaves a bound and
  // nearly a maximiser behind, neither better than it takes to tell.
  bool below_zero(Quadratic& quadratic, double radius, const Slab& slab, double allowance);
  // A unit vector along which Q is largest, or nearly.
  Eigen::VectorXd steepest(const Quadratic& quadratic);
  // Where to begin with the multipliers; 0: anywhere.
  void begin(double l, double mu) {
    l_ = l;
    mu_ = mu;
  }

  double bound() const { return bound_; }
  double l() const { return l_; }
  double mu() const { return mu_; }
  const Eigen::VectorXd& maximiser() const { return d_; }  // (rank,)
  double across() const { return across_; }                // and its coordinate across the span
  Index factorisations() const { return factorisations_; }

 private:
  struct Problem;
  bool linear(const Quadratic& quadratic, double radius);
  bool factorise(const Problem& problem);
  double dual(const Problem& problem);
  bool hopeless(const Problem& problem) const;
  bool next(const Problem& problem);
  bool next_on_slab(const Problem& problem);
  double best_mu(const Problem& problem, double along_b, double along_v) const;
  void newton(const Problem& problem, double curvature);
  void set_value_on_ball(const Problem& problem, double bowed);

  Eigen::VectorXd d_, residual_, along_;
  Cholesky factors_;
  double bound_ = 0.0, l_ = 0.0, mu_ = 0.0, across_ = 0.0, length_ = 0.0, room_ = 0.0, gap_across_ = 0.0;
  double value_outside_ = 0.0, value_on_ball_ = 0.0;  // the quadratic at the maximiser, and at that moved into the ball
  double too_small_ = 0.0, enough_ = 0.0;             // of l
  double good_l_ = 0.0, good_mu_ = 0.0;               // the last multipliers that had factors
  Index factorisations_ = 0;
};

}  // namespace preluflow
