// One step of Adam (Kingma and Ba, ICLR 2015), as torch.optim.Adam takes it, on the raw weights theta = (W, V, B),
// where biases of neurons are the last column of W. With gamma = -dL/dtheta - lambda theta (the decay is in the
// gradient), entry by entry in the t-th step,
//
//   m <- beta1 m + (1 - beta1) gamma       q <- beta2 q + (1 - beta2) gamma^2
//   theta <- theta + eta / (1 - beta1^t) m / (sqrt(q / (1 - beta2^t)) + eps)
//
// The state stays polar (docs/mathematics.md#adam), w_j = e^l_j u_j, and gamma of w_j = along u_j + move G_j with
// (V_.j as in update.hpp)
//
//   prelu       move = v                    along = -(p-1) s v - lambda e^l
//   polynomial  move = v e^(l (p-1))        along = -lambda e^l
//   tanh        move = v                    along = -lambda e^l
//
// but nothing here is free of scale: eta is a length in weights, eps one in gradients. Of W the moments are in T, in
// panels, of V and B in double. A gradient below T's range counts as 0, so that weights of 1e-300 stay where they are
// as long as theirs is. Where w = 0 the gradient is that of update.hpp (0, but for tanh), and momentum goes on.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "preluflow/update.hpp"

namespace preluflow {

struct AdamOptions : StepOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

// What all entries have in common in one step.
struct AdamRates {
  double beta1, beta2, step, root, eps;  // step = eta / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t)

  AdamRates(const AdamOptions& options, Index t)
      : beta1(options.beta1),
        beta2(options.beta2),
        step(options.step / -std::expm1(static_cast<double>(t) * std::log(options.beta1))),
        root(1.0 / std::sqrt(-std::expm1(static_cast<double>(t) * std::log(options.beta2)))),
        eps(options.eps) {}

  // Moves the moments of one entry; returns by how much it goes.
  double move(double gamma, double& m, double& q) const {
    m = beta1 * m + (1.0 - beta1) * gamma;
    q = beta2 * q + (1.0 - beta2) * gamma * gamma;
    return step * m / (std::sqrt(q) * root + eps);
  }
};

// One step in the three moves of DescentStep. G becomes the new W; a neuron whose weights leave T's range, before or
// after, is put together entry by entry from e^l u and the update, which then is all that is left in G.
template <class T>
class AdamStep {
 public:
  using Options = AdamOptions;

  AdamStep(const NetworkState<T>& start, Index parts, const AdamOptions& options)
      : options_(options),
        rates_(options, 1),
        lanes_(start.U.layout().panel_lanes_max()),
        log_(size(start.U.layout().padded())),
        keep_(size(start.U.layout().padded())),
        along_(keep_.size()),
        move_(keep_.size()),
        inverse_(keep_.size()),
        squares_(size(parts * lanes_)) {
    if (options.trained != Trained::outer) {
      m_ = PanelMatrix<T>(start.U.layout());
      q_ = PanelMatrix<T>(start.U.layout());
    }
    if (options.trained != Trained::inner) {
      const auto count = size(start.sign.size() + start.output_bias.size());
      outer_m_.resize(count);
      outer_q_.resize(count);
      outer_move_.resize(count);
    }
  }

  void plan(Team& team, const NetworkState<T>& state, const GradientKernel<T>& kernel) {
    const bool one = state.outputs == 1;
    rates_ = AdamRates(options_, steps_ + 1);
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    for_neurons(team, state.U.layout().width, state.outputs, [&](Index j) {
      const auto k = size(j);
      const double l = state.log_norm(j), norm = std::exp(l);
      const double log_v = one ? state.log_abs_v(j) : kernel.outer().log_length_of(j);
      const double along = one ? kernel.s()(j) : kernel.outer().along(kernel.s(), j);
      const double log_move = log_v + (polynomial ? log_power(state.p - 1.0, l) : 0.0);
      const double move = (one ? state.sign(j) : 1.0) * std::exp(log_move);
      const double decay = options_.weight_decay * norm;
      log_[k] = l;
      keep_[k] = within(l) ? static_cast<T>(norm) : T(0);
      along_[k] = static_cast<T>((prelu ? -move * (state.p - 1.0) * along : 0.0) - decay);
      move_[k] = static_cast<T>(move);
    });
  }

  PRELUFLOW_NOINLINE void move(const PanelMatrix<T>& U, PanelMatrix<T>& G, Index part, Index panel, Index d0,
                               Index d1) {
    const PanelLayout<T>& layout = U.layout();
    const Index lanes = layout.panel_lanes(panel), first = layout.neuron_begin(panel);
    double* squares = squares_.data() + part * lanes_;
    const T* u_of = U.panel(panel);  // found by divisions, which take longer than what follows
    T *g_of = G.panel(panel), *m_of = m_.panel(panel), *q_of = q_.panel(panel);
    for (Index k = 0; k < lanes; k += kLanes) {
      const Lanes along = load(along_.data() + first + k), step = load(move_.data() + first + k),
                  keep = load(keep_.data() + first + k);
      Eigen::Array<double, kLanes, 1> total = Eigen::Array<double, kLanes, 1>::Zero();
      for (Index begin = d0; begin < d1; begin += kShort) {
        Lanes some = Lanes::Zero();
        for (Index d = begin; d < std::min(begin + kShort, d1); ++d) {
          const Index at = d * lanes + k;
          const Lanes u = load(u_of + at);
          Eigen::Map<Lanes> g(g_of + at), m(m_of + at), q(q_of + at);
          const Lanes w = keep * u + update(along * u + step * g, m, q);
          g = w;
          some += w * w + T(0) * q;  // NaN where a second moment has left T: no step can be taken then
        }
        total += some.template cast<double>();
      }
      Eigen::Map<Eigen::Array<double, kLanes, 1>>(squares + k) = total;
    }
  }

  bool finish(Team& team, NetworkState<T>& state, GradientKernel<T>& kernel) {
    if (options_.trained != Trained::inner && !plan_outer(team, state, kernel)) return false;
    if (options_.trained != Trained::outer && !finish_directions(team, state, kernel)) return false;
    if (options_.trained != Trained::inner) finish_outer(team, state);
    ++steps_;
    return true;
  }

 private:
  static constexpr Index kLanes = Simd<T>::lanes;
  static constexpr Index kShort = 8;  // squares summed in T before they are added in double
  static constexpr double kDead = -std::numeric_limits<double>::infinity();
  // Logarithms of norms whose entries T holds, and the least sum of squares that T's squares give to its precision.
  static constexpr double kLog = std::is_same_v<T, float> ? 69.0 : 667.0;
  static constexpr double kLeast = std::is_same_v<T, float> ? 1e-24 : 1e-280;

  using Lanes = Eigen::Array<T, kLanes, 1>;
  static Lanes load(const T* p) { return Eigen::Map<const Lanes>(p); }
  static std::size_t size(Index n) { return static_cast<std::size_t>(n); }
  static bool within(double l) { return l == kDead || (l > -kLog && l < kLog); }

  Lanes update(const Lanes& gamma, Eigen::Map<Lanes>& m, Eigen::Map<Lanes>& q) const {
    const T beta1 = static_cast<T>(rates_.beta1), beta2 = static_cast<T>(rates_.beta2);
    m = beta1 * m + static_cast<T>(1.0 - rates_.beta1) * gamma;
    q = beta2 * q + static_cast<T>(1.0 - rates_.beta2) * (gamma * gamma);
    return static_cast<T>(rates_.step) * m / (q.sqrt() * static_cast<T>(rates_.root) + static_cast<T>(rates_.eps));
  }

  bool finish_directions(Team& team, NetworkState<T>& state, GradientKernel<T>& kernel) {
    const PanelLayout<T>& layout = state.U.layout();
    const Index runs = kernel.input_runs();
    for (Index j = 0; j < layout.width; ++j) {
      const auto k = size(j);
      const Index panel = layout.panel_of(j);
      double square = 0.0;
      for (Index run = 0; run < runs; ++run)
        square += squares_[size((panel * runs + run) * lanes_ + j - layout.neuron_begin(panel))];
      if (std::isnan(square)) return false;
      if (within(log_[k]) && square >= kLeast && std::isfinite(square)) {
        const double norm = std::sqrt(square);
        inverse_[k] = static_cast<T>(1.0 / norm);
        log_[k] = std::log(norm);
      } else if (!put_together(state.U, kernel.G(), j)) {
        return false;
      }
    }
    kernel.for_parts(team, [&](Index, Index panel, Index d0, Index d1) {
      const Index lanes = layout.panel_lanes(panel);
      const T* inverse = inverse_.data() + layout.neuron_begin(panel);
      T* g = kernel.G().panel(panel) + d0 * lanes;
      for (Index d = d0; d < d1; ++d, g += lanes) {
        for (Index k = 0; k < lanes; ++k) g[k] *= inverse[k];
      }
    });
    state.U.swap(kernel.G());
    for (Index j = 0; j < layout.width; ++j) state.log_norm(j) = log_[size(j)];
    return true;
  }

  // Makes a unit row of G in double, where T's squares will not do: of the row itself, or of e^l u and the row where
  // e^l is beyond T. False if it is not finite.
  bool put_together(const PanelMatrix<T>& U, PanelMatrix<T>& G, Index j) {
    const auto k = size(j);
    const Index dim = U.layout().dim, stride = U.stride(j);
    const T* u = U.row(j);
    T* g = G.row(j);
    double largest = 0.0;
    for (Index d = 0; d < dim; ++d) {
      const double entry = std::abs(static_cast<double>(g[d * stride]));
      if (!std::isfinite(entry)) return false;
      largest = std::max(largest, entry);
    }
    if (largest == 0.0 && !within(log_[k])) {  // nothing moves
      for (Index d = 0; d < dim; ++d) g[d * stride] = u[d * stride];
      inverse_[k] = T(1);
      return true;
    }
    const double log_kept = within(log_[k]) ? kDead : log_[k], log_moved = std::log(largest);
    const double scale = std::max(log_kept, log_moved);
    const double keep = scale == kDead ? 0.0 : std::exp(log_kept - scale);
    const double move = scale == kDead || largest == 0.0 ? 0.0 : std::exp(log_moved - scale) / largest;
    const auto entry = [&](Index d) { return keep * u[d * stride] + move * g[d * stride]; };
    double square = 0.0;
    for (Index d = 0; d < dim; ++d) square += entry(d) * entry(d);
    const double norm = std::sqrt(square);
    for (Index d = 0; d < dim; ++d) g[d * stride] = norm > 0.0 ? static_cast<T>(entry(d) / norm) : T(0);
    inverse_[k] = T(1);
    log_[k] = norm > 0.0 ? scale + std::log(norm) : kDead;
    return true;
  }

  // Moves of V and B, from the state before the step; false if one leaves float64.
  bool plan_outer(Team& team, const NetworkState<T>& state, GradientKernel<T>& kernel) {
    const bool prelu = state.activation == Activation::prelu, polynomial = state.activation == Activation::polynomial;
    const Index weights = state.sign.size(), C = state.outputs;
    std::atomic<bool> finite{true};
    for_neurons(team, weights / C, C, [&](Index j) {
      const double degree = prelu ? 1.0 : polynomial ? state.p : 0.0;
      const double grow = std::exp(log_power(degree, state.log_norm(j)));
      bool all = true;
      for (Index k = j * C; k < (j + 1) * C; ++k) all &= plan_entry(k, weight(state, k), grow * kernel.s()(k));
      if (!all) finite.store(false, std::memory_order_relaxed);
    });
    for (Index c = 0; c < state.output_bias.size(); ++c)
      if (!plan_entry(weights + c, state.output_bias(c), kernel.b()(c))) return false;
    return finite.load(std::memory_order_relaxed);
  }

  bool plan_entry(Index k, double value, double descent) {
    const auto i = size(k);
    outer_move_[i] = rates_.move(descent - options_.weight_decay * value, outer_m_[i], outer_q_[i]);
    return std::isfinite(value + outer_move_[i]) && std::isfinite(outer_q_[i]);
  }

  void finish_outer(Team& team, NetworkState<T>& state) {
    const Index weights = state.sign.size(), C = state.outputs;
    for_neurons(team, weights / C, C, [&](Index j) {
      for (Index k = j * C; k < (j + 1) * C; ++k) finish_entry(state, k);
    });
    for (Index c = 0; c < state.output_bias.size(); ++c) state.output_bias(c) += outer_move_[size(weights + c)];
  }

  void finish_entry(NetworkState<T>& state, Index k) const {
    const double move = outer_move_[size(k)];
    if (move == 0.0) return;  // also where v itself is below float64
    const double v = weight(state, k) + move;
    state.sign(k) = v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0;
    state.log_abs_v(k) = v == 0.0 ? kDead : std::log(std::abs(v));
  }

  static double weight(const NetworkState<T>& state, Index k) { return state.sign(k) * std::exp(state.log_abs_v(k)); }

  AdamOptions options_;
  AdamRates rates_;
  Index steps_ = 0;
  Index lanes_;
  std::vector<double> log_;                             // log-norms before the step, then after it
  AlignedVector<T> keep_, along_, move_, inverse_;      // zero in the lanes beyond the last neuron
  std::vector<double> squares_;                         // (parts, lanes of a panel)
  PanelMatrix<T> m_, q_;                                // moments of W
  std::vector<double> outer_m_, outer_q_, outer_move_;  // of V (h, C), then B (C,)
};

}  // namespace preluflow
