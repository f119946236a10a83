// The outer layer of C outputs over rows of activations, for training: with phi (h,) of a row,
//   F_c = kappa sum_j V_cj phi_j + B_c                 V_cj = what multiplies phi_j in output c
//   m_j = kappa sum_c R_c v_cj                         v_.j = V_.j / |V_.j|, for one output 1
//   S_cj += kappa R_c phi_j
// Rows go four at a time so that what is loaded of a layer serves all; every sum has a fixed order.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "preluflow/network.hpp"
#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

template <class T>
class OuterLayer {
 public:
  static constexpr Index kRows = 4;  // at a time

  // sign, log_abs_v of the network are (h, C). Allocates only when sizes grow.
  void set(Team& team, const Network<T>& net, Index outputs, Index padded) {
    outputs_ = outputs;
    padded_ = padded;
    coefficients_.assign(static_cast<std::size_t>(outputs * padded), T(0));
    units_.assign(static_cast<std::size_t>(outputs * padded), T(0));
    log_lengths_.resize(static_cast<std::size_t>(outputs == 1 ? 0 : net.width));
    directions_.resize(log_lengths_.size() * static_cast<std::size_t>(outputs));
    double largest = -kInfinity;
    for (Index j = 0; j < net.width; ++j)
      for (Index c = 0; c < outputs; ++c) largest = std::max(largest, log_of(net, j, c));
    scale_ = std::isfinite(largest) ? std::exp(largest) : 0.0;
    for_neurons(team, net.width, outputs, [&](Index j) { set_neuron(net, j, largest); });
  }

  // F (rows, C) of phi (kRows, padded), without kappa and B. Rows beyond `rows` may hold anything finite.
  void outputs(const T* phi, Index rows, double* F) const {
    for (Index c = 0; c < outputs_; ++c) {
      typename S::V sum[kRows] = {};
      const T* coefficient = coefficients_.data() + c * padded_;
      for (Index j = 0; j < padded_; j += S::lanes) {
        const typename S::V a = S::load(coefficient + j);
        for (Index i = 0; i < kRows; ++i) sum[i] += a * S::load(phi + i * padded_ + j);
      }
      for (Index i = 0; i < rows; ++i) F[i * outputs_ + c] = scale_ * total(sum[i]);
    }
  }

  // For R (rows, C), which has kappa in it: dphi (rows, padded) times m, and S (C, padded) += R^T phi.
  void back(const T* phi, const T* R, Index rows, T* dphi, T* S_) const {
    T r[kRows] = {};
    for (Index j = 0; j < padded_; j += S::lanes) {
      typename S::V m[kRows] = {}, value[kRows];
      for (Index i = 0; i < kRows; ++i) value[i] = S::load(phi + i * padded_ + j);
      for (Index c = 0; c < outputs_; ++c) {
        const typename S::V unit = S::load(units_.data() + c * padded_ + j);
        typename S::V s = S::load(S_ + c * padded_ + j);
        for (Index i = 0; i < kRows; ++i) {
          r[i] = i < rows ? R[i * outputs_ + c] : T(0);
          m[i] += unit * r[i];
          s += value[i] * r[i];
        }
        S::store(S_ + c * padded_ + j, s);
      }
      for (Index i = 0; i < rows; ++i) S::store(dphi + i * padded_ + j, m[i] * S::load(dphi + i * padded_ + j));
    }
  }

  // Of several outputs: log |V_.j|, and <v_.j,s_j> for s (h, C).
  double log_length_of(Index j) const { return log_lengths_[static_cast<std::size_t>(j)]; }
  double along(const Vector<double>& s, Index j) const {
    double sum = 0.0;
    for (Index k = j * outputs_; std::isfinite(log_length_of(j)) && k < (j + 1) * outputs_; ++k)
      sum += directions_[static_cast<std::size_t>(k)] * s(k);
    return sum;
  }

  Index count() const { return outputs_; }

 private:
  using S = Simd<T>;
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  // log |coefficient|, as log_coefficient has it of one output.
  double log_of(const Network<T>& net, Index j, Index c) const {
    const double degree = net.activation == Activation::prelu        ? 1.0
                          : net.activation == Activation::polynomial ? net.p
                                                                     : 0.0;
    return net.log_abs_v[j * outputs_ + c] + log_power(degree, net.log_norm[j]);
  }

  void set_neuron(const Network<T>& net, Index j, double largest) {
    const double* log_v = net.log_abs_v + j * outputs_;
    const double* sign = net.sign + j * outputs_;
    const double log_norm = outputs_ == 1 ? 0.0 : log_length(log_v, outputs_);
    if (outputs_ > 1) log_lengths_[static_cast<std::size_t>(j)] = log_norm;
    for (Index c = 0; c < outputs_; ++c) {
      const auto k = static_cast<std::size_t>(c * padded_ + j);
      coefficients_[k] = static_cast<T>(std::isfinite(largest) ? sign[c] * std::exp(log_of(net, j, c) - largest) : 0.0);
      if (outputs_ == 1) {
        units_[k] = T(1);
      } else if (std::isfinite(log_norm)) {
        const double unit = sign[c] * std::exp(log_v[c] - log_norm);
        directions_[static_cast<std::size_t>(j * outputs_ + c)] = unit;
        units_[k] = static_cast<T>(unit);
      }
    }
  }

  static double total(const typename S::V& v) {
    T lanes[S::lanes];
    S::store(lanes, v);
    double sum = 0.0;
    for (Index k = 0; k < S::lanes; ++k) sum += static_cast<double>(lanes[k]);
    return sum;
  }

  Index outputs_ = 1, padded_ = 0;
  double scale_ = 0.0;
  AlignedVector<T> coefficients_;                 // (C, padded h), relative to the largest
  AlignedVector<T> units_;                        // (C, padded h)
  std::vector<double> log_lengths_, directions_;  // (h,) and (h, C), of several outputs: log |V_.j| and v_.j
};

}  // namespace preluflow
