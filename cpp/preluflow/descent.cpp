#include "preluflow/descent.hpp"

#include <algorithm>
#include <cmath>

namespace preluflow {

template <class T>
Descent<T>::Descent(const T* X, const double* y, Index n, const Network<T>& start, Loss loss, double step, int threads)
    : X_(X),
      y_(y),
      n_(n),
      state_(start),
      loss_(loss),
      log_step_(std::log(step)),
      threads_(threads),
      kernel_(n, start.width, start.dim, threads),
      f_(static_cast<std::size_t>(n)) {}

template <class T>
double Descent<T>::evaluate() {
  if (!fresh_) {
    value_ = kernel_.evaluate(X_, y_, n_, state_.view(), loss_, f_.data());
    fresh_ = true;
    ++gradients_;
  }
  return value_;
}

template <class T>
bool Descent<T>::advance() {
  evaluate();
  if (!std::isfinite(value_) || !kernel_.s().allFinite() || !kernel_.G().allFinite()) return false;
  const Blocking blocks(n_, state_.U.rows());
  std::atomic<bool> finite{true};
  parallel_for(threads_, blocks.tiles, [&](Index tile) {
    for (Index j = blocks.tile_begin(tile); j < blocks.tile_begin(tile + 1); ++j)
      if (!descend_neuron(state_, j, log_step_, kernel_.G().row(j).data(), kernel_.s()(j))) finite = false;
  });
  fresh_ = false;
  return finite;
}

template <class T>
StochasticDescent<T>::StochasticDescent(const T* X, const double* y, Index n, const Network<T>& start, Loss loss,
                                        double step, Index batch, int threads)
    : X_(X),
      y_(y),
      n_(n),
      batch_(batch),
      state_(start),
      loss_(loss),
      log_step_(std::log(step)),
      threads_(threads),
      kernel_(batch, start.width, start.dim, threads),
      rows_(batch, start.dim),
      labels_(static_cast<std::size_t>(batch)),
      f_(static_cast<std::size_t>(n)) {}

template <class T>
double StochasticDescent<T>::evaluate() {
  forward(X_, n_, state_.view(), threads_, f_.data());
  double total = 0.0;
  for (Index i = 0; i < n_; ++i) total += loss_value(loss_, y_[i], f_[static_cast<std::size_t>(i)]);
  return total / static_cast<double>(n_);
}

template <class T>
bool StochasticDescent<T>::advance(const Index* rows, Index count) {
  const Index dim = rows_.cols();
  const Blocking blocks(count, state_.U.rows());
  parallel_for(threads_, blocks.groups, [&](Index group) {
    for (Index i = blocks.group_begin(group); i < blocks.group_begin(group + 1); ++i) {
      std::copy_n(X_ + rows[i] * dim, dim, rows_.data() + i * dim);
      labels_[static_cast<std::size_t>(i)] = y_[rows[i]];
    }
  });
  std::atomic<bool> finite{true};
  const double value =
      kernel_.evaluate(rows_.data(), labels_.data(), count, state_.view(), loss_, nullptr, [&](Index begin, Index end) {
        for (Index j = begin; j < end; ++j)
          if (!descend_neuron(state_, j, log_step_, kernel_.G().row(j).data(), kernel_.s()(j))) finite = false;
      });
  return finite && std::isfinite(value);
}

template class Descent<float>;
template class Descent<double>;
template class StochasticDescent<float>;
template class StochasticDescent<double>;

}  // namespace preluflow
