// The parameters of a training run, and one descent step on them. w <- w - eta dL/dw, v <- v - eta dL/dv is the very
// iteration a torch script runs, carried out on the polar form and so exact at any scale of theta.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/network.hpp"

namespace preluflow {

// A network that owns its arrays.
template <class T>
struct NetworkState {
  RowMatrix<T> U;
  Vector<double> log_norm, sign, log_abs_v;
  Activation activation;
  double p;

  explicit NetworkState(const Network<T>& net)
      : U(net.directions()),
        log_norm(ConstVectorMap<double>(net.log_norm, net.width)),
        sign(ConstVectorMap<double>(net.sign, net.width)),
        log_abs_v(ConstVectorMap<double>(net.log_abs_v, net.width)),
        activation(net.activation),
        p(net.p) {}

  Network<T> view() const {
    return {U.data(), log_norm.data(), sign.data(), log_abs_v.data(), U.rows(), U.cols(), activation, p};
  }
};

// u <- (along u + move g) / norm; returns the norm, summed in double. u is left alone if the norm is 0 or not finite.
template <class T>
double move_direction(T* u, const T* g, Index dim, double along, double move) {
  constexpr Index kLanes = 16;
  const T a = static_cast<T>(along), m = static_cast<T>(move);
  double lanes[kLanes] = {};
  Index d = 0;
  for (; d + kLanes <= dim; d += kLanes)
    for (Index k = 0; k < kLanes; ++k) {
      const double w = static_cast<double>(a * u[d + k] + m * g[d + k]);
      lanes[k] += w * w;
    }
  double square = 0.0;
  for (; d < dim; ++d) {
    const double w = static_cast<double>(a * u[d] + m * g[d]);
    square += w * w;
  }
  for (const double lane : lanes) square += lane;
  const double norm = std::sqrt(square);
  if (!(norm > 0.0) || !std::isfinite(norm)) return norm;
  const T an = static_cast<T>(along / norm), mn = static_cast<T>(move / norm);
  for (d = 0; d < dim; ++d) u[d] = an * u[d] + mn * g[d];
  return norm;
}

// One descent step on neuron j, given its row g of G (D,) and s_j. With l = log||w||:
//   prelu       w + eta v (g - (p-1) s u)       v + eta ||w|| s
//   polynomial  w + eta v ||w||^(p-1) g         v + eta ||w||^p s
//   tanh        w + eta v g                     v + eta s
// Each is a sum of two terms with a known logarithm of their scale; the larger is factored out before adding.
// Returns false, and leaves the neuron alone, when the new ||w|| is not finite.
template <class T>
bool descend_neuron(NetworkState<T>& state, Index j, double log_step, const T* g, double s) {
  constexpr double kDead = -std::numeric_limits<double>::infinity();
  const double l = state.log_norm(j), log_v = state.log_abs_v(j), sign = state.sign(j);
  const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;

  const double log_move = log_step + log_v + (polynomial ? log_power(state.p - 1.0, l) : 0.0);
  const double scale = std::max(l, log_move);
  if (scale > kDead) {
    const double keep = std::exp(l - scale), move = sign * std::exp(log_move - scale);
    const double along = prelu ? keep - move * (state.p - 1.0) * s : keep;
    T* u = state.U.data() + j * state.U.cols();
    const double norm = move_direction(u, g, state.U.cols(), along, move);  // e^{-scale} ||w||
    if (!std::isfinite(norm)) return false;
    if (norm == 0.0) state.U.row(j).setZero();
    state.log_norm(j) = norm == 0.0 ? kDead : scale + std::log(norm);
  }

  const double log_grow = log_step + log_power(prelu ? 1.0 : polynomial ? state.p : 0.0, l);
  const double v_scale = std::max(log_v, log_grow);
  if (v_scale > kDead) {
    const double v = sign * std::exp(log_v - v_scale) + s * std::exp(log_grow - v_scale);  // e^{-v_scale} v
    state.sign(j) = v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0;
    state.log_abs_v(j) = v == 0.0 ? kDead : v_scale + std::log(std::abs(v));
  }
  return true;
}

}  // namespace preluflow
