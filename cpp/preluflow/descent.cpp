#include "preluflow/descent.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace preluflow {

template <class T>
Descent<T>::Descent(const TrainingData<T>& data, NetworkState<T> start, Loss loss, const StepOptions& options)
    : data_(data),
      state_(std::move(start)),
      loss_(loss),
      trained_(options.trained),
      kernel_(data.n, state_.U.layout(), state_.outputs),
      step_(state_.U.layout(), kernel_.part_count(), options),
      f_(static_cast<std::size_t>(data.n * state_.outputs)) {
  kernel_.want_G(trained_ != Trained::outer);
}

template <class T>
double Descent<T>::evaluate(Team& team) {
  if (!fresh_) {
    value_ = kernel_.evaluate(team, data_.rows(state_.dim()), state_.view(), loss_, f_.data());
    fresh_ = true;
    ++gradients_;
  }
  return value_;
}

template <class T>
bool Descent<T>::advance(Team& team) {
  evaluate(team);
  if (!std::isfinite(value_) || !kernel_.s().allFinite()) return false;
  fresh_ = false;  // the step overwrites G
  step_.plan(team, state_, kernel_);
  if (trained_ != Trained::outer)
    kernel_.for_parts(team, [&](Index part, Index panel, Index d0, Index d1) {
      step_.move(state_.U, kernel_.G(), part, panel, d0, d1);
    });
  return step_.finish(team, state_, kernel_);
}

template <class T, class Step>
StochasticDescent<T, Step>::StochasticDescent(const TrainingData<T>& data, NetworkState<T> start, Loss loss,
                                              const Options& options, Index batch)
    : data_(data),
      batch_(batch),
      state_(std::move(start)),
      loss_(loss),
      trained_(options.trained),
      kernel_(std::max(batch, std::min(data.n, GradientKernel<T>::kStripe)), state_.U.layout(), state_.outputs),
      step_(state_, kernel_.part_count(), options),
      f_(static_cast<std::size_t>(data.n * state_.outputs)) {
  kernel_.want_G(trained_ != Trained::outer);
}

template <class T, class Step>
double StochasticDescent<T, Step>::evaluate(Team& team) {
  const Index C = state_.outputs;
  kernel_.forward(team, data_.rows(state_.dim()), state_.view(), f_.data());
  double total = 0.0;
  for (Index i = 0; i < data_.n; ++i) {
    const double value = row_loss(loss_, data_.y + i * C, f_.data() + i * C, C, nullptr);
    total += data_.weight == nullptr ? value : data_.weight[i] * value;
  }
  return total / static_cast<double>(data_.n);
}

template <class T, class Step>
bool StochasticDescent<T, Step>::advance(Team& team, const Index* rows, Index count) {
  bool finite = false;
  kernel_.evaluate(
      team, data_.rows(state_.dim(), rows, count), state_.view(), loss_, nullptr,
      [&] {
        finite = std::isfinite(kernel_.loss()) && kernel_.s().allFinite();
        if (finite) step_.plan(team, state_, kernel_);
        return finite;
      },
      [&](Index part, Index panel, Index d0, Index d1) { step_.move(state_.U, kernel_.G(), part, panel, d0, d1); });
  return finite && step_.finish(team, state_, kernel_);
}

template class Descent<float>;
template class Descent<double>;
template class StochasticDescent<float>;
template class StochasticDescent<double>;
template class StochasticDescent<float, AdamStep<float>>;
template class StochasticDescent<double, AdamStep<double>>;

}  // namespace preluflow
