// The parameters of a training run, and one descent step on them. w <- w - eta dL/dw, v <- v - eta dL/dv is the very
// iteration a torch script runs, carried out on the polar form and so exact at any scale of theta. With l = log||w||:
//
//   prelu       w + eta v (g - (p-1) s u)       v + eta ||w|| s
//   polynomial  w + eta v ||w||^(p-1) g         v + eta ||w||^p s
//   tanh        w + eta v g                     v + eta s
//
// Each is a sum of two terms with a known logarithm of their scale; the larger is factored out before adding.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "preluflow/gradient.hpp"

namespace preluflow {

// A network that owns its arrays, directions in panels.
template <class T>
struct NetworkState {
  PanelMatrix<T> U;
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

  PanelNetwork<T> view() const {
    const PanelLayout<T>& layout = U.layout();
    return {U, {nullptr, log_norm.data(), sign.data(), log_abs_v.data(), layout.width, layout.dim, activation, p}};
  }
};

// One descent step, in three moves so that G is used while it is in cache and theta stays whole when something
// overflows:
//   plan(s)        from the scalars: w = e^scale (along u + move g) for each neuron
//   move(part)     G <- along u + move g on a part of (h, D), with the part's share of the squared norms
//   finish(s)      norms; if all are finite: u <- G / norm, and log_norm, v
template <class T>
class DescentStep {
 public:
  DescentStep(const PanelLayout<T>& layout, Index parts, double step)
      : log_step_(std::log(step)),
        lanes_(layout.panel_lanes_max()),
        scale_(static_cast<std::size_t>(layout.padded())),
        inverse_norm_(static_cast<std::size_t>(layout.padded())),
        along_(static_cast<std::size_t>(layout.padded())),
        move_(static_cast<std::size_t>(layout.padded())),
        squares_(static_cast<std::size_t>(parts * lanes_)) {}

  void plan(const NetworkState<T>& state, const Vector<double>& s) {
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    for (Index j = 0; j < state.U.layout().width; ++j) {
      const auto k = static_cast<std::size_t>(j);
      const double l = state.log_norm(j);
      const double log_move = log_step_ + state.log_abs_v(j) + (polynomial ? log_power(state.p - 1.0, l) : 0.0);
      scale_[k] = std::max(l, log_move);
      const bool dead = scale_[k] == kDead;
      const double keep = dead ? 0.0 : std::exp(l - scale_[k]);
      const double move = dead ? 0.0 : state.sign(j) * std::exp(log_move - scale_[k]);
      along_[k] = static_cast<T>(prelu ? keep - move * (state.p - 1.0) * s(j) : keep);
      move_[k] = static_cast<T>(move);
    }
  }

  void move(const PanelMatrix<T>& U, PanelMatrix<T>& G, Index part, Index panel, Index d0, Index d1) {
    const PanelLayout<T>& layout = U.layout();
    const Index lanes = layout.panel_lanes(panel);
    const T* along = along_.data() + layout.neuron_begin(panel);
    const T* step = move_.data() + layout.neuron_begin(panel);
    double* squares = squares_.data() + part * lanes_;
    std::fill_n(squares, lanes, 0.0);
    constexpr Index kShort = 8;  // squares summed in T before they are added in double
    T some[PanelLayout<T>::panel_lanes_max()];
    for (Index first = d0; first < d1; first += kShort) {
      std::fill_n(some, lanes, T(0));
      for (Index d = first; d < std::min(first + kShort, d1); ++d) {
        const T* u = U.panel(panel) + d * lanes;
        T* g = G.panel(panel) + d * lanes;
        for (Index k = 0; k < lanes; ++k) {
          const T w = along[k] * u[k] + step[k] * g[k];
          g[k] = w;
          some[k] += w * w;
        }
      }
      for (Index k = 0; k < lanes; ++k) squares[k] += static_cast<double>(some[k]);
    }
  }

  bool finish(Team& team, NetworkState<T>& state, GradientKernel<T>& kernel) {
    const PanelLayout<T>& layout = state.U.layout();
    const Index runs = kernel.input_runs();
    for (Index panel = 0; panel < layout.panels; ++panel) {
      const Index begin = layout.neuron_begin(panel);
      for (Index j = begin; j < std::min(begin + layout.panel_lanes(panel), layout.width); ++j) {
        double square = 0.0;
        for (Index run = 0; run < runs; ++run)
          square += squares_[static_cast<std::size_t>((panel * runs + run) * lanes_ + j - begin)];
        if (!std::isfinite(square)) return false;
        const auto k = static_cast<std::size_t>(j);
        const double norm = std::sqrt(square);
        inverse_norm_[k] = norm > 0.0 ? static_cast<T>(1.0 / norm) : T(0);
        scale_[k] = norm > 0.0 ? scale_[k] + std::log(norm) : kDead;  // from now on the new log_norm
      }
    }
    kernel.for_parts(team, [&](Index, Index panel, Index d0, Index d1) {
      const Index lanes = layout.panel_lanes(panel);
      const T* inverse = inverse_norm_.data() + layout.neuron_begin(panel);
      for (Index d = d0; d < d1; ++d) {
        T* g = kernel.G().panel(panel) + d * lanes;
        for (Index k = 0; k < lanes; ++k) g[k] *= inverse[k];
      }
    });
    state.U.swap(kernel.G());
    for (Index j = 0; j < layout.width; ++j) finish_scalars(state, j, kernel.s()(j));
    return true;
  }

 private:
  static constexpr double kDead = -std::numeric_limits<double>::infinity();

  void finish_scalars(NetworkState<T>& state, Index j, double s) {
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    const double log_v = state.log_abs_v(j);
    const double log_grow = log_step_ + log_power(prelu ? 1.0 : polynomial ? state.p : 0.0, state.log_norm(j));
    const double scale = std::max(log_v, log_grow);
    if (scale > kDead) {
      const double v = state.sign(j) * std::exp(log_v - scale) + s * std::exp(log_grow - scale);  // e^{-scale} v
      state.sign(j) = v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0;
      state.log_abs_v(j) = v == 0.0 ? kDead : scale + std::log(std::abs(v));
    }
    state.log_norm(j) = scale_[static_cast<std::size_t>(j)];
  }

  double log_step_;
  Index lanes_;
  std::vector<double> scale_;
  std::vector<T> inverse_norm_, along_, move_;  // zero in the lanes beyond the last neuron
  std::vector<double> squares_;                 // (parts, lanes of a panel)
};

}  // namespace preluflow
