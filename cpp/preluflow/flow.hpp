// Gradient flow theta' = -grad L, integrated by explicit Runge-Kutta methods with error control
// (docs/mathematics.md#polar-flow).
//
// Per neuron, with w_j = e^{l_j} u_j, rho_j = V_j. / ||w_j|| in R^C, G, s from the kernel (gradient.hpp) and q = p for
// polynomial networks, 1 otherwise:
//
//   prelu       phi' = |phi| |rho| (G - (p-1) <v,s> u)   l' = <rho,s>       rho' = s - <rho,s> rho
//   polynomial  phi' = |phi| |rho| m G                   l' = q m <rho,s>   rho' = m (s - q <rho,s> rho)
//   tanh        phi' = |rho| G                                              rho' = s / sigma
//
// with m = ||w||^(p-1). (v = rho / |rho|; of one output |rho| G stands for rho G, as the kernel has it.) phi is the raw
// weight in units of its norm at the beginning of the step, of which only the direction u is kept: once a neuron is
// aligned, G is parallel to u, phi merely grows, and the neuron stays where it is however long the step. The tangential
// field (I - u u^T) G has the eigenvalue -p l' there instead, and holds explicit steps to about 3 / (p l'). Norms are
// integrated as logarithms, so that epsilon = 1e-300 is an ordinary number. tanh is not homogeneous: it is integrated
// in raw coordinates, in units of sigma = ||(w_j, V_j.)|| at the beginning of the step (phi = w / sigma, rho = V /
// sigma, l = log sigma). Output biases are coordinates as they are, B' = b.
//
// Weight decay lambda takes lambda off l' - for tanh sigma = e^l shrinks, and (phi, rho) move as without it - and
// lambda B off B'. With the outer layer frozen V is what it was at the start, and rho = V e^{-l} wherever it is needed;
// with the inner one phi and l are, and rho' = m s - lambda rho. A neuron with w_j = 0 (for tanh also V_j. = 0) is
// dead: nothing but weight decay changes it, and its l is the logarithm of the factor by which V_j. has shrunk since
// the start.
//
// The error of a step is measured neuron by neuron, free of scale: the angle of the direction, the change of l, and of
// rho (relative, where |rho| > 1); for tanh the change of (w_j, V_j.) relative to its norm; of output biases one by one
// (relative, where |B_c| > 1: outputs are as large as targets, or logits). A step is accepted when the largest is
// within rtol.
#pragma once

#include <vector>

#include "preluflow/descent.hpp"
#include "preluflow/gradient.hpp"
#include "preluflow/tableau.hpp"
#include "preluflow/update.hpp"

namespace preluflow {

struct FlowOptions {
  double t0 = 0.0, t1 = 0.0;
  double rtol = 1e-3;
  double step = 0.0;  // of a method without error estimate; otherwise the first step, 0 to have it chosen
  double weight_decay = 0.0;
  Trained trained = Trained::both;
};

enum class FlowStatus { ok, step_too_small, not_finite };

// Where a network goes, or polynomials of it: U (h, D), log_norm (h,), sign and log_abs_v (h, C), output_bias (C,),
// which may be null if there is none.
template <class T>
struct NetworkArraysOut {
  T* U;
  double *log_norm, *sign, *log_abs_v, *output_bias;
};

template <class T>
class Flow {
 public:
  Flow(const TrainingData<T>& data, const NetworkState<T>& start, Loss loss, const Tableau& method,
       const FlowOptions& options);

  // One accepted step. After a failure the solution stays known where it was.
  FlowStatus advance(Team& team);

  // The solution is known on [begin(), end()]; before the first step that is t0.
  double begin() const { return begin_; }
  double end() const { return end_; }
  // The network at t in that interval. Methods of order 8 evaluate further stages for it.
  void interpolate(Team& team, double t, const NetworkArraysOut<T>& out);

  // The last step as polynomials in theta = (t - begin) / (end - begin), by which it is known wherever interpolate()
  // is: coefficients of theta^0 .. theta^degree() of phi (degree + 1, h, D; of neurons that grow much within the step,
  // of something of the same direction), of l (degree + 1, h), of rho (degree + 1,
  // h, C) and B (degree + 1, C). phi of a frozen inner layer and rho of a frozen outer one are not written. Of a dead
  // neuron the first coefficient of l is -inf; the others are those of the logarithm by which V_j. shrinks.
  int degree() const;
  void polynomials(Team& team, T* phi, double* l, double* rho, double* output_bias);

  // Mean loss and outputs f (n, C) at end(), which the field there has cost anyway.
  double loss(Team& team);
  const std::vector<double>& outputs() const { return f_; }

  double next_step() const { return next_; }
  Index accepted() const { return accepted_; }
  Index rejected() const { return rejected_; }
  Index gradients() const { return gradients_; }
  Index width() const { return width_; }
  Index seen() const { return dim_; }  // inputs of a neuron, D or D + 1
  Index outputs_count() const { return outputs_; }
  Trained trained() const { return options_.trained; }
  bool has_output_bias() const { return !bias_.empty(); }

 private:
  void start(Team& team);
  bool choose_first_step(Team& team);
  void commit(Team& team);
  double attempt(Team& team);
  void build(Team& team, const double* weights, int count);
  void field(Team& team, int slot, bool aside = false);
  T scalar_field(int slot, Index j, T* along);
  double error(Index j) const;
  double bias_error() const;
  double worst(const double (&parts)[2][3]) const;
  void estimate(Index j, const std::vector<double>& e, double (&parts)[3]) const;
  double estimate_direction(Index j, const std::vector<double>& e) const;
  double choose_stages(Team& team, double h, bool rejected);
  void measure_stiffness(Team& team, int times);
  void keep_pace();
  void begin_window();
  double length_of(Team& team, int slot);
  void complete(Team& team);
  std::vector<double> weights_at(Team& team, double t);
  double growth(Index j) const;
  bool outgrows(Index j) const;
  // Powers of theta in the weight of each stage, after complete().
  const std::vector<std::vector<double>>& dense() const { return bridged_ ? hermite_ : method().dense; }
  template <class Out>
  void turn(Index j, Out* out, Index apart);
  double turned(Index j, double theta, std::vector<double>& room);
  double combine(Index j, const double* weights, int count, double l);
  void combine_scalars(Index j, const double* weights, int count, double* out) const;
  void combine_bias(const double* weights, int count, double* out) const;
  void network_scalars(Index j, const double* scalars, double norm, double* log_norm, double* sign,
                       double* log_abs_v) const;
  double speed(int slot, Index j) const;

  static std::size_t at(Index j) { return static_cast<std::size_t>(j); }
  static double row_norm(const double* row, Index dim) { return ConstVectorMap<double>(row, dim).norm(); }
  static double inverse_of(double norm) { return norm > 0.0 ? 1.0 / norm : 0.0; }
  T* K(int slot, Index j) { return K_[at(slot)].data() + j * dim_; }
  const T* K(int slot, Index j) const { return K_[at(slot)].data() + j * dim_; }
  // (l, rho_1 .. rho_C) of a neuron: of the field, now, and where a stage is.
  double* k(int slot, Index j) { return k_.data() + (slot * width_ + j) * parts_; }
  const double* k(int slot, Index j) const { return k_.data() + (slot * width_ + j) * parts_; }
  double* now(Index j) { return now_.data() + j * parts_; }
  const double* now(Index j) const { return now_.data() + j * parts_; }
  double* stage(Index j) { return stage_scalars_.data() + j * parts_; }
  const double* stage(Index j) const { return stage_scalars_.data() + j * parts_; }
  double& kb(int slot, Index c) { return kb_[at(slot * outputs_ + c)]; }
  const double& kb(int slot, Index c) const { return kb_[at(slot * outputs_ + c)]; }
  const Tableau& method() const { return *method_; }
  // Of K_, k_ and kb_: the stages, and of a stabilised method the direction in which it is stiff.
  std::size_t slots() const { return at(given_.stabilized ? kStiffSlot + 1 : given_.all_stages()); }
  static constexpr int kStiffSlot = kMostStages + 1;
  void need(int slot) {
    if (inner_moves() && K_[at(slot)].empty()) K_[at(slot)].resize(at(width_ * dim_));
  }
  bool raw() const { return activation_ == Activation::tanh; }
  bool inner_moves() const { return options_.trained != Trained::outer; }
  bool outer_moves() const { return options_.trained != Trained::inner; }

  TrainingData<T> data_;
  Index width_, dim_, outputs_, parts_;  // h, inputs of a neuron, C, 1 + C
  Activation activation_;
  double p_;
  Loss loss_;
  const Tableau& given_;   // the method asked for
  const Tableau* method_;  // that of the present step: given_, or one of Chebyshev's
  FlowOptions options_;
  GradientKernel<T> kernel_;

  // The present step: from the state at begin_ over size_ to end_, taken if has_step_.
  double begin_, end_, size_ = 0.0, next_ = 0.0, last_error_ = 1.0;
  double stiffness_ = 0.0;     // spectral radius of the field's Jacobian as last found, 0 at first
  Index since_stiffness_ = 0;  // steps since then
  // How far a gradient carries: counted since `begin`, and `given` by the given method alone, to which the next `wait`
  // steps are held; `grew` is the last step's factor for the next.
  struct Pace {
    double begin = 0.0, given = 0.0, grew = 0.0;
    Index gradients = 0, steps = 0, wait = 0, patience = 0;
    bool alone = true;
  } pace_;
  bool started_ = false, has_step_ = false, has_dense_ = false;
  bool bridged_ = false;  // whether the step is known by hermite_, its further stages being not to be trusted
  const std::vector<std::vector<double>> hermite_;
  AlignedVector<double> U_;                      // (h, D) unit directions; for tanh w / sigma
  std::vector<double> now_;                      // (h, 1 + C)
  std::vector<double> bias_;                     // (C,) B, or empty
  std::vector<char> dead_;                       // (h,)
  std::vector<AlignedVector<T>> K_;              // slots of (h, D), made when needed; none if the inner layer is frozen
  std::vector<double> k_, kb_;                   // (stages, h, 1 + C), (stages, C)
  Vector<double> start_sign_, start_log_abs_v_;  // (h, C): what dead neurons and a frozen layer keep

  // Where a stage is evaluated.
  NetworkState<T> stage_;
  AlignedVector<double> phi_;  // (h, D)
  std::vector<double> norm_;   // (h,) |phi|
  std::vector<double> stage_scalars_, error_;

  std::vector<double> f_;
  double loss_value_ = 0.0;
  Index accepted_ = 0, rejected_ = 0, gradients_ = 0;
};

}  // namespace preluflow
