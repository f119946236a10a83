// Quadratic bounds of -m from above on a ball around a point, and their largest value there.
//
// Each term of -m is bounded by a quadratic in <u_j,d> that touches it at a contact c_j, on the range
// [z_j - r ||u_j||, z_j + r ||u_j||]; the norm's, if there is one, by a line in ||x + d||^2. The sum is c0 + <b,d> +
// d^T Q d in coordinates of the span, and what the norm's line says across it (docs/mathematics.md#trust-region).
#pragma once

#include <Eigen/Cholesky>

#include "preluflow/robustness/trust_region.hpp"

namespace preluflow {

// The neurons as a form of the certificate sees them: values z_j + <column_j, d>.
struct View {
  Eigen::MatrixXd columns;  // (rank, h)
  Eigen::VectorXd z;        // (h,)
  Eigen::VectorXd reach;    // (h,) ||column_j||, rounded up
};

// Where quadratics touch.
struct Contacts {
  Eigen::VectorXd value;  // (h,)
  double square = 0.0;    // ||x + d||^2, for the norm's line
  double share = 0.0;     // p < 2: rivals' contacts keep this share of the range's upper end away from the kink
};

// value + slant (t - c) + bend (t - c)^2.
struct Parabola {
  double value, slant, bend;
};

// c0 + <b,d> + sum_k bend_k <column_k,d>^2 + grow ||d||^2 in the span; across it grow t^2 + cross t besides.
struct Quadratic {
  explicit Quadratic(Index rank, Index width)
      : b(rank), bend(width), columns(rank, width), weighted(rank, width), Q(rank, rank) {}

  double c0 = 0.0, grow = 0.0, cross = 0.0;
  double scale = 0.0;  // what its terms' absolute values add up to, at most
  double bends = 0.0;  // >= ||Q||
  Index curved = 0;    // how many columns there are
  Eigen::VectorXd b, bend;
  Eigen::MatrixXd columns, weighted, Q;  // Q: the lower triangle, once form_Q has been called

  void clear();
  void form_Q();
};

// Adds up the bounds; false if something beyond float64 may be active on the ball.
class Majorant {
 public:
  Majorant(const Neurons& net, const Span& span, const SpanPoint& point) : net_(net), span_(span), point_(point) {}

  bool at(const View& view, const Contacts& contacts, double radius, Quadratic& out) const;
  // What rounding may have done to it.
  double allowance(const Quadratic& bound) const;

 private:
  bool add_neurons(const View& view, const Contacts& contacts, double radius, Quadratic& out) const;
  Parabola power_bound(bool own, double a, double low, double high, double c) const;
  Parabola tanh_bound(bool own, double a, double low, double high, double c) const;
  bool add_norm(const Contacts& contacts, double radius, Quadratic& out) const;

  const Neurons& net_;
  const Span& span_;
  const SpanPoint& point_;
};

// The largest value of a quadratic on a ball, by the multiplier l of ||d||^2 <= r^2
// (docs/mathematics.md#trust-region, docs/mathematics.md#approximate-maximiser).
class BallMaximum {
 public:
  explicit BallMaximum(Index rank) : half_(rank), residual_(rank), A_(rank, rank), llt_(rank) {}

  // Whether it is below 0, proved. Leaves the least bound found and nearly the maximiser behind.
  bool below_zero(Quadratic& quadratic, double radius, double allowance);

  double bound() const { return bound_; }
  const Eigen::VectorXd& maximiser() const { return half_; }  // (rank,)
  double across() const { return across_; }                   // and its coordinate across the span
  Index factorisations() const { return factorisations_; }

 private:
  bool factorise(const Quadratic& quadratic, double l, double floor, double lost);
  double dual(const Quadratic& quadratic, double l, double square, double room, double allowance);
  double next(double l, double radius, double bad, double good);

  Eigen::VectorXd half_, residual_;
  Eigen::MatrixXd A_;
  Eigen::LLT<Eigen::MatrixXd> llt_;
  double bound_ = 0.0, across_ = 0.0, length_ = 0.0, gap_across_ = 0.0;
  Index factorisations_ = 0;
};

}  // namespace preluflow
