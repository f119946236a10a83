// Full-batch gradient descent and mini-batch SGD as steppers; Adam is SGD with another step.
#pragma once

#include <vector>

#include "preluflow/adam.hpp"
#include "preluflow/gradient.hpp"
#include "preluflow/update.hpp"

namespace preluflow {

// What is trained on: X (n, D), y (n, C), and weights (n,) of mean 1 or null; it must outlive a stepper.
template <class T>
struct TrainingData {
  const T* X;
  const double* y;
  Index n;
  const double* weight = nullptr;

  Rows<T> rows(Index dim) const { return {X, y, dim, nullptr, n, weight}; }
  Rows<T> rows(Index dim, const Index* index, Index count) const { return {X, y, dim, index, count, weight}; }
};

template <class T>
class Descent {
 public:
  Descent(const TrainingData<T>& data, NetworkState<T> start, Loss loss, const StepOptions& options);

  // Mean loss and outputs at the present theta; the gradient found on the way serves the next advance().
  double evaluate(Team& team);
  // One descent step. Returns false, and leaves theta alone, when the loss or the gradient is not finite.
  bool advance(Team& team);

  const std::vector<double>& outputs() const { return f_; }
  const NetworkState<T>& state() const { return state_; }
  Index gradients() const { return gradients_; }

 private:
  TrainingData<T> data_;
  NetworkState<T> state_;
  Loss loss_;
  Trained trained_;
  GradientKernel<T> kernel_;
  DescentStep<T> step_;
  std::vector<double> f_;
  double value_ = 0.0;
  bool fresh_ = false;  // value_, f_ and kernel_'s gradient belong to the present theta
  Index gradients_ = 0;
};

// Steps on mini-batches of rows that the caller names; the rows are read where they lie.
template <class T, class Step = DescentStep<T>>
class StochasticDescent {
 public:
  using Options = typename Step::Options;

  StochasticDescent(const TrainingData<T>& data, NetworkState<T> start, Loss loss, const Options& options, Index batch);

  // Mean loss and outputs over all of (X, y) at the present theta.
  double evaluate(Team& team);
  // One step on rows[0 .. count-1], count <= batch. Returns false, and leaves theta alone, when not finite.
  bool advance(Team& team, const Index* rows, Index count);

  const std::vector<double>& outputs() const { return f_; }
  const NetworkState<T>& state() const { return state_; }
  Index n() const { return data_.n; }
  Index batch() const { return batch_; }

 private:
  TrainingData<T> data_;
  Index batch_;
  NetworkState<T> state_;
  Loss loss_;
  Trained trained_;
  GradientKernel<T> kernel_;
  Step step_;
  std::vector<double> f_;
};

template <class T>
using Adam = StochasticDescent<T, AdamStep<T>>;

}  // namespace preluflow
