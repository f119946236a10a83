// Gradient flow theta' = -grad L, integrated by explicit Runge-Kutta methods with error control
// (docs/mathematics.md#polar-flow).
//
// Per neuron, with w_j = e^{l_j} u_j, rho_j = v_j / ||w_j||, and G, s from the kernel (gradient.hpp):
//
//   prelu       phi' = |phi| rho (G - (p-1) s u)      l' = rho s          rho' = (1 - rho^2) s
//   polynomial  phi' = |phi| rho m G                  l' = p rho m s      rho' = (1 - p rho^2) m s     m = ||w||^(p-1)
//   tanh        phi' = rho G                                              rho' = s / sigma
//
// phi is the raw weight in units of its norm at the beginning of the step, of which only the direction u is kept: once
// a neuron is aligned, G is parallel to u, phi merely grows, and the neuron stays where it is however long the step.
// The tangential field (I - u u^T) G has the eigenvalue -p l' there instead, and holds explicit steps to about 3 / (p
// l'). Norms are integrated as logarithms, so that epsilon = 1e-300 is an ordinary number. tanh is not homogeneous: it
// is integrated in raw coordinates, in units of sigma = ||(w_j, v_j)|| at the beginning of the step (phi = w / sigma,
// rho = v / sigma, l = log sigma).
//
// The error of a step is measured neuron by neuron, free of scale: the angle of the direction, the change of l, and of
// rho (relative, where |rho| > 1); for tanh the change of (w_j, v_j) relative to its norm. A step is accepted when the
// largest is within rtol.
#pragma once

#include <vector>

#include "preluflow/gradient.hpp"
#include "preluflow/tableau.hpp"

namespace preluflow {

struct FlowOptions {
  double t0 = 0.0, t1 = 0.0;
  double rtol = 1e-3;
  double step = 0.0;  // of a method without error estimate; otherwise the first step, 0 to have it chosen
};

enum class FlowStatus { ok, step_too_small, not_finite };

// X (n, D) and y (n,) must outlive it.
template <class T>
class Flow {
 public:
  Flow(const T* X, const double* y, Index n, const Network<T>& start, Loss loss, const Tableau& method,
       const FlowOptions& options);

  // One accepted step. After a failure the solution stays known where it was.
  FlowStatus advance(Team& team);

  // The solution is known on [begin(), end()]; before the first step that is t0.
  double begin() const { return begin_; }
  double end() const { return end_; }
  // The network at t in that interval: U (h, D), and (h,) each. Methods of order 8 evaluate further stages for it.
  void interpolate(Team& team, double t, T* U, double* log_norm, double* sign, double* log_abs_v);

  // The last step as polynomials in theta = (t - begin) / (end - begin), by which it is known wherever interpolate()
  // is: coefficients of theta^0 .. theta^degree() of phi (degree + 1, h, D), and of l and rho (degree + 1, h).
  int degree() const;
  void polynomials(Team& team, T* phi, double* l, double* rho);

  // Mean loss and outputs f (n,) at end(), which the field there has cost anyway.
  double loss(Team& team);
  const std::vector<double>& outputs() const { return f_; }

  double next_step() const { return next_; }
  Index accepted() const { return accepted_; }
  Index rejected() const { return rejected_; }
  Index gradients() const { return gradients_; }
  Index width() const { return width_; }

 private:
  struct Scalars {
    double l, rho;
  };

  void start(Team& team);
  bool choose_first_step(Team& team);
  void commit(Team& team);
  double attempt(Team& team);
  void build(Team& team, const double* weights, int count);
  void field(Team& team, int slot);
  double error(Index j) const;
  void estimate(Index j, const std::vector<double>& e, double (&parts)[3]) const;
  void complete(Team& team);
  std::vector<double> weights_at(Team& team, double t);
  void combine(Index j, const double* weights, int count, double* out) const;
  Scalars combine_scalars(Index j, const double* weights, int count) const;
  void network_scalars(Index j, const Scalars& at, double norm, double* log_norm, double* sign,
                       double* log_abs_v) const;
  double speed(int slot, Index j) const;

  static std::size_t at(Index j) { return static_cast<std::size_t>(j); }
  T* K(int slot, Index j) { return K_.data() + (slot * width_ + j) * dim_; }
  const T* K(int slot, Index j) const { return K_.data() + (slot * width_ + j) * dim_; }
  Scalars& k(int slot, Index j) { return k_[at(slot * width_ + j)]; }
  const Scalars& k(int slot, Index j) const { return k_[at(slot * width_ + j)]; }
  bool raw() const { return activation_ == Activation::tanh; }

  const T* X_;
  const double* y_;
  Index n_, width_, dim_;
  Activation activation_;
  double p_;
  Loss loss_;
  const Tableau& method_;
  FlowOptions options_;
  GradientKernel<T> kernel_;

  // The present step: from the state at begin_ over size_ to end_, taken if has_step_.
  double begin_, end_, size_ = 0.0, next_ = 0.0, last_error_ = 1.0;
  bool started_ = false, has_step_ = false, has_dense_ = false;
  AlignedVector<double> U_;                           // (h, D) unit directions; for tanh w / sigma
  std::vector<Scalars> now_;                          // (h,)
  std::vector<char> dead_;                            // (h,) neurons that can never move: w = 0, for tanh also v = 0
  AlignedVector<T> K_;                                // (stages, h, D)
  std::vector<Scalars> k_;                            // (stages, h)
  std::vector<double> start_sign_, start_log_abs_v_;  // what dead neurons keep

  // Where a stage is evaluated.
  PanelMatrix<T> stage_;
  AlignedVector<double> phi_;  // (h, D)
  std::vector<double> norm_;   // (h,) |phi|
  std::vector<Scalars> stage_scalars_;
  std::vector<double> log_norm_, sign_, log_abs_v_, error_;

  std::vector<double> f_;
  double loss_value_ = 0.0;
  Index accepted_ = 0, rejected_ = 0, gradients_ = 0;
};

}  // namespace preluflow
