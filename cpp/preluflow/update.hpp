// The parameters of a training run, and one descent step on them. w <- w - eta dL/dw, v <- v - eta dL/dv is the very
// iteration a torch script runs, carried out on the polar form and so exact at any scale of theta. With l = log||w||:
//
//   prelu       w + eta v (g - (p-1) s u)       v + eta ||w|| s
//   polynomial  w + eta v ||w||^(p-1) g         v + eta ||w||^p s
//   tanh        w + eta v g                     v + eta s
//
// Each is a sum of two terms with a known logarithm of their scale; the larger is factored out before adding. Of
// several outputs v is a row V_.j: G_j has its direction in it, its length is what multiplies, and <v_.j,s_j> stands
// for s. Weight decay lambda multiplies w and v by 1 - eta lambda first, and the output biases B, which go B + eta b.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "preluflow/gradient.hpp"

namespace preluflow {

// Which layer is trained; output biases belong to the outer one.
enum class Trained { both, inner, outer };

// A network that owns its arrays, directions in panels; sign and log_abs_v are (h, C). `inputs` is of what it sees, of
// which it owns the centre.
template <class T>
struct NetworkState {
  PanelMatrix<T> U;
  Vector<double> log_norm, sign, log_abs_v;
  Activation activation;
  double p;
  Index outputs;
  Vector<double> output_bias;  // (C,), or empty
  Vector<double> center;       // (D,), or empty
  Inputs inputs;

  // net: its U is (h, D), or (h, D + 1) with inputs.constant
  NetworkState(const Network<T>& net, Index outputs_, const double* output_bias_, const Inputs& inputs_)
      : U(net.directions()),
        log_norm(ConstVectorMap<double>(net.log_norm, net.width)),
        sign(ConstVectorMap<double>(net.sign, net.width * outputs_)),
        log_abs_v(ConstVectorMap<double>(net.log_abs_v, net.width * outputs_)),
        activation(net.activation),
        p(net.p),
        outputs(outputs_),
        inputs(inputs_) {
    if (output_bias_ != nullptr) output_bias = ConstVectorMap<double>(output_bias_, outputs);
    if (inputs.center != nullptr) center = ConstVectorMap<double>(inputs.center, net.dim - (inputs.constant ? 1 : 0));
  }

  Index dim() const { return U.layout().dim - (inputs.constant ? 1 : 0); }  // D

  PanelNetwork<T> view() const {
    const PanelLayout<T>& layout = U.layout();
    Inputs seen = inputs;
    seen.center = center.size() == 0 ? nullptr : center.data();
    return {U,
            {nullptr, log_norm.data(), sign.data(), log_abs_v.data(), layout.width, layout.dim, activation, p},
            outputs,
            output_bias.size() == 0 ? nullptr : output_bias.data(),
            seen};
  }

  double log_outer(Index j) const { return log_length(log_abs_v.data() + j * outputs, outputs); }  // log |V_.j|
};

// How a descent step goes.
struct StepOptions {
  double step = 0.0;  // eta
  double weight_decay = 0.0;
  Trained trained = Trained::both;
};

// One descent step, in three moves so that G is used while it is in cache and theta stays whole when something
// overflows:
//   plan(kernel)   from the scalars: w = e^scale (along u + move g) for each neuron
//   move(part)     G <- along u + move g on a part of (h, D), with the part's share of the squared norms
//   finish(kernel) norms; if all are finite: u <- G / norm, and log_norm, v
template <class T>
class DescentStep {
 public:
  using Options = StepOptions;

  DescentStep(const NetworkState<T>& start, Index parts, const StepOptions& options)
      : DescentStep(start.U.layout(), parts, options) {}

  DescentStep(const PanelLayout<T>& layout, Index parts, const StepOptions& options)
      : options_(options),
        log_step_(std::log(options.step)),
        keep_(1.0 - options.step * options.weight_decay),
        lanes_(layout.panel_lanes_max()),
        scale_(static_cast<std::size_t>(layout.padded())),
        inverse_norm_(static_cast<std::size_t>(layout.padded())),
        along_(static_cast<std::size_t>(layout.padded())),
        move_(static_cast<std::size_t>(layout.padded())),
        squares_(static_cast<std::size_t>(parts * lanes_)) {}

  void plan(Team& team, const NetworkState<T>& state, const GradientKernel<T>& kernel) {
    const bool one = state.outputs == 1;
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    for_neurons(team, state.U.layout().width, state.outputs, [&](Index j) {
      const auto k = static_cast<std::size_t>(j);
      const double l = state.log_norm(j);
      const double log_v = one ? state.log_abs_v(j) : kernel.outer().log_length_of(j);
      const double along = one ? kernel.s()(j) : kernel.outer().along(kernel.s(), j);
      const double log_move = log_step_ + log_v + (polynomial ? log_power(state.p - 1.0, l) : 0.0);
      scale_[k] = std::max(l, log_move);
      const bool dead = scale_[k] == kDead;
      const double keep = dead ? 0.0 : keep_ * std::exp(l - scale_[k]);
      const double move = dead ? 0.0 : (one ? state.sign(j) : 1.0) * std::exp(log_move - scale_[k]);
      along_[k] = static_cast<T>(prelu ? keep - move * (state.p - 1.0) * along : keep);
      move_[k] = static_cast<T>(move);
    });
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
    const T* u = U.panel(panel) + d0 * lanes;
    T* g = G.panel(panel) + d0 * lanes;
    for (Index first = d0; first < d1; first += kShort) {
      std::fill_n(some, lanes, T(0));
      for (Index d = first; d < std::min(first + kShort, d1); ++d, u += lanes, g += lanes) {
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
    if (options_.trained != Trained::outer && !finish_directions(team, state, kernel)) return false;
    const Index width = state.U.layout().width;
    if (options_.trained != Trained::inner)
      for_neurons(team, width, state.outputs, [&](Index j) {
        for (Index k = j * state.outputs; k < (j + 1) * state.outputs; ++k) finish_outer(state, j, k, kernel.s()(k));
      });
    if (options_.trained != Trained::outer)
      for (Index j = 0; j < width; ++j) state.log_norm(j) = scale_[static_cast<std::size_t>(j)];
    if (options_.trained != Trained::inner && state.output_bias.size() > 0)
      state.output_bias = keep_ * state.output_bias + options_.step * kernel.b();
    return true;
  }

 private:
  static constexpr double kDead = -std::numeric_limits<double>::infinity();

  bool finish_directions(Team& team, NetworkState<T>& state, GradientKernel<T>& kernel) {
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
      T* g = kernel.G().panel(panel) + d0 * lanes;
      for (Index d = d0; d < d1; ++d, g += lanes) {
        for (Index k = 0; k < lanes; ++k) g[k] *= inverse[k];
      }
    });
    state.U.swap(kernel.G());
    return true;
  }

  // Output weight k = (j, c); log_norm is still that before the step.
  void finish_outer(NetworkState<T>& state, Index j, Index k, double s) {
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    const double log_v = state.log_abs_v(k);
    const double log_grow = log_step_ + log_power(prelu ? 1.0 : polynomial ? state.p : 0.0, state.log_norm(j));
    const double scale = std::max(log_v, log_grow);
    if (scale > kDead) {
      const auto of = [&](double log) { return log == scale ? 1.0 : std::exp(log - scale); };
      const double v = keep_ * state.sign(k) * of(log_v) + s * of(log_grow);  // e^{-scale} v
      state.sign(k) = v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0;
      state.log_abs_v(k) = v == 0.0 ? kDead : scale + std::log(std::abs(v));
    }
  }

  StepOptions options_;
  double log_step_;
  double keep_;  // of theta, under weight decay
  Index lanes_;
  std::vector<double> scale_;
  std::vector<T> inverse_norm_, along_, move_;  // zero in the lanes beyond the last neuron
  std::vector<double> squares_;                 // (parts, lanes of a panel)
};

}  // namespace preluflow
