// Gradient descent w <- w - step dL/dw, v <- v - step dL/dv on a network held in polar form: the very iteration a
// torch script runs, but exact at any scale of theta.
#pragma once

#include <vector>

#include "preluflow/gradient.hpp"

namespace preluflow {

// A network that owns its arrays: the state of a training run.
template <class T>
struct NetworkState {
  RowMatrix<T> U;
  Vector<double> log_norm, sign, log_abs_v;
  Activation activation;
  double p;

  explicit NetworkState(const Network<T>& net);
  Network<T> view() const {
    return {U.data(), log_norm.data(), sign.data(), log_abs_v.data(), U.rows(), U.cols(), activation, p};
  }
};

template <class T>
class Descent {
 public:
  // X (n, D) and y (n,) must outlive this object.
  Descent(const T* X, const double* y, Index n, const Network<T>& start, Loss loss, double step, int threads);

  // Loss and outputs at the present theta; the gradient found on the way serves the next advance().
  void evaluate();
  // One descent step. Returns false, and leaves theta alone, when the loss or the gradient is not finite.
  bool advance();

  double loss_value() const { return value_; }
  const std::vector<double>& outputs() const { return f_; }
  const NetworkState<T>& state() const { return state_; }
  Index gradients() const { return gradients_; }

 private:
  void update_neuron(Index j);

  const T* X_;
  const double* y_;
  Index n_;
  NetworkState<T> state_;
  Loss loss_;
  double log_step_;
  int threads_;
  GradientKernel<T> kernel_;
  std::vector<double> f_;
  double value_ = 0.0;
  bool fresh_ = false;  // kernel_ and f_ belong to the present theta
  Index gradients_ = 0;
};

}  // namespace preluflow
