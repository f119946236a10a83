// The largest value of a quadratic on a ball, or on a slab of it, bounded from above.
#pragma once

#include "preluflow/robustness/resolvent.hpp"

namespace preluflow {

// By multipliers l of ||d||^2 <= r^2 and mu of (<along,d> - low) (high - <along,d>) >= 0
// (docs/mathematics.md#trust-region, docs/mathematics.md#slabs). What the search for them finds is proved by factors of
// its own.
class BallMaximum {
 public:
  explicit BallMaximum(Index rank) : d_(rank), residual_(rank), along_(rank), by_factors_(rank) {}

  // Whether it is below 0, proved: `allowance` is what rounding may have done to the quadratic. Leaves an
  // estimate of the bound and nearly a maximiser behind, neither better than it takes to tell.
  bool below_zero(Quadratic& quadratic, double radius, const Slab& slab, double allowance);
  // A unit vector along which Q is largest, or nearly.
  Eigen::VectorXd steepest(Quadratic& quadratic);
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
  bool factorise(const Problem& problem, Resolvent& resolvent);
  void look(const Problem& problem, const ResolventMoments& at);
  bool proved(Quadratic& quadratic, const Problem& problem, bool factorised);
  double dual(const Problem& problem);
  bool hopeless(const Problem& problem) const;
  bool next(const Problem& problem, const ResolventMoments& at, const Resolvent& resolvent);
  bool next_on_slab(const Problem& problem, const ResolventMoments& at, const Resolvent& resolvent);
  double beyond() const { return across_ == 0.0 ? 0.0 : across_ * across_ / gap_across_; }  // d^T A^-1 d across
  double best_mu(const Problem& problem, double along_b, double along_v) const;
  void newton(const Problem& problem, double curvature);

  Eigen::VectorXd d_, residual_, along_;
  DenseResolvent by_factors_;
  GramResolvent by_products_;
  double bound_ = 0.0, l_ = 0.0, mu_ = 0.0, room_ = 0.0, floor_ = 0.0, gap_across_ = 0.0;
  // Of the maximiser at the multipliers looked at last: its coordinate across the span, its length, <along,d>, and the
  // bound there; the quadratic at the maximiser moved into the ball; and the shares of A^-1 b and A^-1 v that make it.
  double across_ = 0.0, length_ = 0.0, inside_slab_ = 0.0, value_ = 0.0;
  double value_on_ball_ = 0.0;
  Eigen::VectorXd shares_;
  double too_small_ = 0.0, enough_ = 0.0;  // of l
  double good_l_ = 0.0;                    // the last one that had factors
  Index factorisations_ = 0;
};

}  // namespace preluflow
