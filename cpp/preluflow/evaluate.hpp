// Any two-layer network in float64, evaluated: outputs, and gradients of weighted sums of outputs
// (docs/mathematics.md#general-networks).
//
//   F_c(x) = kappa sum_j v_jc phi_j(x') + B_c,    x' = x - center,   z_j = <x',u_j> + o_j,   o_j = b_j / ||w_j||
//   phi_j  = ||w_j|| sigma(z_j)^p (prelu),  ||w_j||^p sigma(z_j)^p (polynomial),  tanh(||w_j|| z_j)
//   kappa  = ||x'||^-(p-1) for the normalised input, where the sum is 0 at x' = 0 and p > 1; else 1
//
// Every row's result is a function of that row alone, bit for bit: not of the rows around it, nor of the threads.
//
// Range. A row is summed as it stands, in units of the largest coefficient; where the sum leaves what float64 holds of
// that (SumRange), it is taken again by logarithms, from x' in units of its largest entry. F_c is then 0 or infinite
// only where it is beyond float64 itself.
//
// Rounding. With eps = 2^-52 and delta_j = (min(D, 256) + D/256 + 2) eps/2 ||x'|| + eps/2 |o_j| for an error of z_j,
//   |F_c - exact| <= kappa sum_j |v_jc| (phi_j(z_j + delta_j) - phi_j(z_j) +
//                                        (h + 8 p + 8 + 8 log_jc) eps phi_j(z_j + delta_j)) +
//                    (D + 4) p eps kappa |sum| + eps |F_c|
// up to terms of order eps^2; log_jc is the largest logarithm the term is made of
// (docs/mathematics.md#rounding-evaluation).
#pragma once

#include <cmath>
#include <vector>

#include "preluflow/network.hpp"
#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

// A view; whoever makes it keeps the arrays alive. `scalars` has U, log_norm, and sign and log_abs_v, which are (h, C).
template <class T>
struct GeneralNetwork {
  Network<T> scalars;
  Index outputs = 1;                    // C
  const double* offsets = nullptr;      // (h,) b_j / ||w_j||, or null
  const double* output_bias = nullptr;  // (C,), or null
  const double* center = nullptr;       // (D,), or null
  bool normalize_input = false;

  // One output and none of the parts: what GradientKernel evaluates too.
  bool plain() const {
    return outputs == 1 && offsets == nullptr && output_bias == nullptr && center == nullptr && !normalize_input;
  }
  bool normalized() const { return normalize_input && scalars.activation != Activation::tanh && scalars.p > 1.0; }
};

// log |c_jc|, c_jc being what multiplies sigma(z_j)^p or tanh in output c.
template <class T>
double log_coefficient(const GeneralNetwork<T>& net, Index j, Index c) {
  Network<T> column = net.scalars;
  column.log_abs_v = net.scalars.log_abs_v + (j * net.outputs + c) - j;
  return log_coefficient(column, j);
}

// One row at a time by logarithms, right at any scale; some times as dear as a row among many.
template <class T>
class LogRow {
 public:
  // Directions come in panels, in float64 also for a network in float32.
  LogRow(const GeneralNetwork<T>& net, const PanelMatrix<double>& U);

  // Takes a row x (D,).
  void set(const T* x);
  // The same in two parts, for whoever has many rows: scale() returns what finish() takes the products with U (h,) of.
  const double* scale(const T* x);
  void finish(const double* products);

  // F (C,); times a factor of the row's own that makes the largest about 1, if `relative`.
  void outputs(double* F, bool relative);
  // The gradient of sum_c weights_c F_c is e^scale (sum_j g_j u_j + radial x'/||x'||): g (h,), radial, scale.
  double slopes(const double* weights, double* g, double* radial);
  // x'/||x'|| (D,).
  void direction(double* unit) const;

 private:
  struct Signed {  // sign e^log
    double sign, log;
  };
  Signed sum_of(const std::vector<Signed>& terms) const;
  Signed sum(Index c);
  Signed weight(Index j, const double* weights);
  double log_slope(Index j) const;
  void set_neuron(Index j, double product, int exponent);

  const GeneralNetwork<T>& net_;
  const PanelMatrix<double>& U_;
  AlignedVector<double> products_;  // (padded h,) <x_,u_j>
  std::vector<double> x_;           // (D,) x' in units of its largest entry, rounded to a power of 2
  std::vector<Signed> z_;           // (h,)
  std::vector<double> log_phi_;     // (h,) of sigma(z)^p or |tanh|
  std::vector<Signed> terms_, parts_;
  double size_ = 0.0, log_length_ = 0.0, log_kappa_ = 0.0;  // ||x_||, log ||x'||, log kappa
  int exponent_ = 0;                                        // of the unit of x_
  bool silent_ = false;                                     // the sum is 0 by definition
};

// Whether the sum of a row, in units of its largest coefficient, can be trusted as float64 summed it: what underflowed
// is far below it, and nothing overflowed.
inline bool in_sum_range(double sum) {
  constexpr double kLeast = 1e-200, kMost = 1e200;  // float64 ends at 1e-308 and 1e308
  const double size = std::abs(sum);
  return size >= kLeast && size <= kMost;
}

// Takes f (n,) of a plain network again where powers of <x,u_j> may have left the range of T.
template <class T>
void mend_range(const Network<T>& net, const T* X, Index n, int threads, double* f);

// What is kept of a network between calls. The view's arrays must outlive it.
class Evaluator {
 public:
  explicit Evaluator(const GeneralNetwork<double>& net);

  const GeneralNetwork<double>& network() const { return net_; }
  // Lays out what gradient() needs; not while another thread uses the evaluator.
  void prepare_gradient();

  // F (n, C) of X (n, D). The bits of decision_function of the float64 network in Python.
  void outputs(Team& team, const double* X, Index n, double* F) const;
  // The same for up to kBlock rows on the calling thread alone, from within a task of a team.
  void outputs_here(const double* X, Index n, double* F) const;
  // The same times a factor of each row's own, so that signs and the order of outputs survive where F leaves float64.
  void relative_outputs(Team& team, const double* X, Index n, double* F) const;
  // F (n, C) and the gradient in x of sum_c weights_ic F_c(x_i), (n, D); weights (n, C). After prepare_gradient().
  void gradient(Team& team, const double* X, Index n, const double* weights, double* F, double* gradient) const;

  static constexpr Index kBlock = 48;  // rows of a task

 private:
  struct Block;
  struct Row;
  void plain_outputs(const double* X, Index rows, double* F) const;
  void products(const double* X, Index rows, Block& block) const;
  Row activate(Block& block, Index i, bool slopes) const;
  bool direct_outputs(const Row& row, double* F) const;
  bool direct_slopes(Row& row, const double* weights, double* V, double* radial, double* scale) const;
  void plain_row(const double* x, Block& block, Index i, double* F) const;
  double row_gradient(const double* x, const double* weights, Block& block, Index i, LogRow<double>& logarithms,
                      double* F, double* radial, double* direction) const;
  void general_outputs(const double* X, Index rows, double* F) const;
  void block_gradient(const double* X, Index rows, const double* weights, double* F, double* gradient) const;

  GeneralNetwork<double> net_;
  PanelMatrix<double> U_, Ut_;
  RowActivation<double> activation_;
  RowMatrix<double> coefficients_;  // (C, padded h), relative to the output's largest, e^most
  std::vector<double> most_;        // (C,) -inf where an output has no neuron
  std::vector<double> norms_;       // (h,) for tanh
  bool direct_ = true;              // false where no row can be trusted without logarithms
};

// F (n, C): Evaluator::outputs for one call. Robustness code keeps an Evaluator.
inline void outputs(Team& team, const Evaluator& network, const double* X, Index n, double* F) {
  network.outputs(team, X, n, F);
}

}  // namespace preluflow
