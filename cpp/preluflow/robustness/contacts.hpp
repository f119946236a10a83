// Where the quadratics that bound the terms of -m should touch them.
//
// Certificates hold for any contacts. The best are those of a saddle: contacts against maximisers d of the sum of
// quadratics on the ball. For a mixture of d only the mean and the variance of every t_j = z_j + <u_j,d> count, and for
// these the best contact is known in closed form; a mixture of the maximisers so far, each of the last contacts, is
// that of Frank and Wolfe's method (docs/mathematics.md#moving-contacts, docs/mathematics.md#best-contact).
#pragma once

#include <algorithm>

#include "preluflow/robustness/trust_region.hpp"

namespace preluflow {

// Ranges of the values on a part of the ball.
struct Ranges {
  Eigen::VectorXd low, high;  // (h,)
};

// A mixture of perturbations: of <u_j,d> the mean and the mean square, and the mean of ||x + d||^2.
struct Moments {
  Eigen::VectorXd mean, second;  // (h,)
  double square = 0.0;

  // One perturbation only.
  void set(const Eigen::VectorXd& change, double square_there);
  // Some of it is put in the place of `share` of the mixture.
  void mix(const Eigen::VectorXd& change, double square_there, double share);
  // The same of perturbations `factor` times as long; x is `length` long.
  void stretch(double factor, double length);
};

// Where quadratics touch. Of own neurons at p = 1, which have lines through their kink, the slope of that, in [0, 1].
struct Contacts {
  Eigen::VectorXd value;  // (h,)
  double square = 0.0;    // ||x + d||^2, for the norm's line
};

// What is known of one value: its range, mean and variance.
struct Spread {
  double low, high, mean, variance;

  // The best contact among quadratics that meet the function at the range's upper (lower) end.
  double through_high() const { return mean - variance / std::max(high - mean, 1e-12 * (high - low)); }
  double through_low() const { return mean + variance / std::max(mean - low, 1e-12 * (high - low)); }
  double inside(double c) const { return std::min(std::max(c, low), high); }
};

// The best contact for sigma^p; of own neurons at p = 1 the slope.
double power_contact(const Spread& t, bool own, double p);

void best_contacts(const Neurons& net, const SpanPoint& point, const Eigen::VectorXd& z, const Ranges& ranges,
                   const Moments& moments, Contacts& contacts);

}  // namespace preluflow
