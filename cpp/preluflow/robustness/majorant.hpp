// Quadratic bounds of -m from above on a ball around a point, or on a slab of it.
//
// Each term of -m is bounded by a quadratic in <u_j,d> that touches it at a contact c_j, on the range that z_j +
// <u_j,d> has there; the norm's, if there is one, by a line in ||x + d||^2. The sum is c0 + <b,d> + d^T Q d in
// coordinates of the span, and what the norm's line says across it (docs/mathematics.md#trust-region).
#pragma once

#include "preluflow/robustness/ball_maximum.hpp"
#include "preluflow/robustness/contacts.hpp"
#include "preluflow/robustness/trust_region.hpp"

namespace preluflow {

// The neurons as a form of the certificate sees them: values z_j + <column_j, d>.
struct View {
  Eigen::MatrixXd columns;  // (rank, h)
  Eigen::VectorXd z;        // (h,)
  Eigen::VectorXd reach;    // (h,) ||column_j||, rounded up
  InnerProducts products;   // of the columns
};

// value + slant (t - at) + bend (t - at)^2.
struct Parabola {
  double at, value, slant, bend;
};

// Adds up the bounds; false if something beyond float64 may be active on the ball.
class Majorant {
 public:
  Majorant(const Neurons& net, const Span& span, const SpanPoint& point) : net_(net), span_(span), point_(point) {}

  bool at(const View& view, const Ranges& ranges, const Contacts& contacts, double radius, Quadratic& out) const;
  // What rounding may have done to it.
  double allowance(const Quadratic& bound) const;

 private:
  bool add_neurons(const View& view, const Ranges& ranges, const Contacts& contacts, double radius,
                   Quadratic& out) const;
  Parabola power_bound(bool own, double a, double low, double high, double c) const;
  Parabola tanh_bound(bool own, double a, double low, double high, double c) const;
  bool add_norm(const Contacts& contacts, double radius, Quadratic& out) const;

  const Neurons& net_;
  const Span& span_;
  const SpanPoint& point_;
};

}  // namespace preluflow
