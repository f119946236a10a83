#include "preluflow/descent.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

template <class T>
NetworkState<T>::NetworkState(const Network<T>& net)
    : U(net.directions()),
      log_norm(ConstVectorMap<double>(net.log_norm, net.width)),
      sign(ConstVectorMap<double>(net.sign, net.width)),
      log_abs_v(ConstVectorMap<double>(net.log_abs_v, net.width)),
      activation(net.activation),
      p(net.p) {}

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
void Descent<T>::evaluate() {
  if (fresh_) return;
  value_ = kernel_.evaluate(X_, y_, n_, state_.view(), loss_, f_.data());
  fresh_ = true;
  ++gradients_;
}

// With l = log||w||, eta the step and (G, s) of gradient.hpp (fresh values on the right throughout):
//   prelu       w + eta v (G - (p-1) s u)       v + eta ||w|| s
//   polynomial  w + eta v ||w||^(p-1) G         v + eta ||w||^p s
//   tanh        w + eta v G                     v + eta s
// Each is a sum of two terms with a known logarithm of their scale; the larger is factored out before adding.
template <class T>
void Descent<T>::update_neuron(Index j) {
  constexpr double kDead = -std::numeric_limits<double>::infinity();
  const double l = state_.log_norm(j), log_v = state_.log_abs_v(j), sign = state_.sign(j);
  const double s = kernel_.s()(j);
  const bool prelu = state_.activation == Activation::prelu, polynomial = state_.activation == Activation::polynomial;

  const double log_move = log_step_ + log_v + (polynomial ? log_power(state_.p - 1.0, l) : 0.0);
  const double scale = std::max(l, log_move);
  if (scale > kDead) {
    const double keep = std::exp(l - scale), move = sign * std::exp(log_move - scale);
    const double along = prelu ? keep - move * (state_.p - 1.0) * s : keep;
    auto u = state_.U.row(j);
    const auto w = along * u.template cast<double>() + move * kernel_.G().row(j);  // e^{-scale} w, not yet computed
    const double norm = std::sqrt(w.squaredNorm());
    if (norm > 0.0) {
      u = (w / norm).template cast<T>();
      state_.log_norm(j) = scale + std::log(norm);
    } else {
      u.setZero();
      state_.log_norm(j) = kDead;
    }
  }

  const double log_grow = log_step_ + log_power(prelu ? 1.0 : polynomial ? state_.p : 0.0, l);
  const double v_scale = std::max(log_v, log_grow);
  if (v_scale > kDead) {
    const double v = sign * std::exp(log_v - v_scale) + s * std::exp(log_grow - v_scale);  // e^{-v_scale} v
    state_.sign(j) = v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0;
    state_.log_abs_v(j) = v == 0.0 ? kDead : v_scale + std::log(std::abs(v));
  }
}

template <class T>
bool Descent<T>::advance() {
  evaluate();
  if (!std::isfinite(value_) || !kernel_.s().allFinite() || !kernel_.G().allFinite()) return false;
  const Blocking blocks(n_, state_.U.rows());
  parallel_for(threads_, blocks.tiles, [&](Index tile) {
    for (Index j = blocks.tile_begin(tile); j < blocks.tile_begin(tile + 1); ++j) update_neuron(j);
  });
  fresh_ = false;
  return true;
}

template struct NetworkState<float>;
template struct NetworkState<double>;
template class Descent<float>;
template class Descent<double>;

}  // namespace preluflow
