#include "preluflow/descent.hpp"

#include <algorithm>
#include <cmath>

namespace preluflow {

template <class T>
Descent<T>::Descent(const T* X, const double* y, Index n, const Network<T>& start, Loss loss, double step)
    : X_(X),
      y_(y),
      n_(n),
      state_(start),
      loss_(loss),
      kernel_(n, state_.U.layout()),
      step_(state_.U.layout(), kernel_.part_count(), step),
      f_(static_cast<std::size_t>(n)) {}

template <class T>
double Descent<T>::evaluate(Team& team) {
  if (!fresh_) {
    value_ = kernel_.evaluate(team, {X_, y_, state_.U.layout().dim, nullptr, n_}, state_.view(), loss_, f_.data());
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
  step_.plan(state_, kernel_.s());
  kernel_.for_parts(team, [&](Index part, Index panel, Index d0, Index d1) {
    step_.move(state_.U, kernel_.G(), part, panel, d0, d1);
  });
  return step_.finish(team, state_, kernel_);
}

template <class T>
StochasticDescent<T>::StochasticDescent(const T* X, const double* y, Index n, const Network<T>& start, Loss loss,
                                        double step, Index batch)
    : X_(X),
      y_(y),
      n_(n),
      batch_(batch),
      state_(start),
      loss_(loss),
      kernel_(std::max(batch, std::min(n, GradientKernel<T>::kStripe)), state_.U.layout()),
      step_(state_.U.layout(), kernel_.part_count(), step),
      f_(static_cast<std::size_t>(n)) {}

template <class T>
double StochasticDescent<T>::evaluate(Team& team) {
  kernel_.forward(team, {X_, y_, state_.U.layout().dim, nullptr, n_}, state_.view(), f_.data());
  double total = 0.0;
  for (Index i = 0; i < n_; ++i) total += loss_value(loss_, y_[i], f_[static_cast<std::size_t>(i)]);
  return total / static_cast<double>(n_);
}

template <class T>
bool StochasticDescent<T>::advance(Team& team, const Index* rows, Index count) {
  bool finite = false;
  kernel_.evaluate(
      team, {X_, y_, state_.U.layout().dim, rows, count}, state_.view(), loss_, nullptr,
      [&] {
        finite = std::isfinite(kernel_.loss()) && kernel_.s().allFinite();
        if (finite) step_.plan(state_, kernel_.s());
        return finite;
      },
      [&](Index part, Index panel, Index d0, Index d1) { step_.move(state_.U, kernel_.G(), part, panel, d0, d1); });
  return finite && step_.finish(team, state_, kernel_);
}

template class Descent<float>;
template class Descent<double>;
template class StochasticDescent<float>;
template class StochasticDescent<double>;

}  // namespace preluflow
