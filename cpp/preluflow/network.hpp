// A two-layer network in polar form: w_j = exp(log_norm_j) u_j and v_j = sign_j exp(log_abs_v_j).
//
//   prelu       f(x) = sum_j v_j sigma(<x,w_j>)^p / ||w_j||^(p-1)      (MV25, eq. 5)
//   polynomial  f(x) = sum_j v_j sigma(<x,w_j>)^p                      (MV25, App. B.2)
//   tanh        f(x) = sum_j v_j tanh(<x,w_j>)
//
// The first two are f(x) = sum_j c_j sigma(z_j)^p with z_j = <x,u_j> and c_j = v_j ||w_j|| or v_j ||w_j||^p, so nothing
// small is ever raised to a power: the form is exact at any initialisation scale.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/thread.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

enum class Activation { prelu, polynomial, tanh };

// A view; whoever makes it keeps the arrays alive. A neuron with w_j = 0 has u_j = 0 and log_norm_j = -inf.
template <class T>
struct Network {
  const T* U;               // (h, D) unit rows
  const double* log_norm;   // (h,)
  const double* sign;       // (h,) -1, 0 or +1
  const double* log_abs_v;  // (h,)
  Index width;              // h
  Index dim;                // D
  Activation activation;
  double p;

  ConstMatrixMap<T> directions() const { return {U, width, dim}; }
};

// log of the length of a vector (n,) of which the logarithms of entries are given; -inf of 0.
inline double log_length(const double* log_abs, Index n) {
  const double largest = *std::max_element(log_abs, log_abs + n);
  if (n == 1 || !std::isfinite(largest)) return largest;
  double sum = 0.0;
  for (Index c = 0; c < n; ++c) sum += std::exp(2.0 * (log_abs[c] - largest));
  return largest + 0.5 * std::log(sum);
}

// k * x with 0 * inf = 0: the logarithm of ||w||^k, also when w = 0 and k = 0.
inline double log_power(double k, double log_x) { return k == 0.0 ? 0.0 : k * log_x; }

// log |c_j|, c_j being what multiplies the activation of neuron j in f; -inf when it contributes nothing.
template <class T>
double log_coefficient(const Network<T>& net, Index j) {
  if (net.activation == Activation::prelu) return net.log_abs_v[j] + net.log_norm[j];
  if (net.activation == Activation::polynomial) return net.log_abs_v[j] + log_power(net.p, net.log_norm[j]);
  return net.log_abs_v[j];
}

// phi and phi' of one row of z = <x,u_j> (h,): sigma(z)^p and p sigma(z)^(p-1), or tanh(n_j z) and sech^2(n_j z) with
// n_j = ||w_j||. sigma(z)^(p-1) is 0 where z <= 0, also at p = 1. Integer and half-integer p cost no pow().
template <class T>
class RowActivation {
 public:
  // Takes the network's activation and coefficients; allocates only when the width grows. (One copy of the machine
  // code: a product and a sum may be fused here and not there, and outputs would depend on who asks for them.)
  PRELUFLOW_NOINLINE void set(const Network<T>& net) {
    tanh_ = net.activation == Activation::tanh;
    p_ = net.p;
    // Coefficients relative to the largest, whose scale is put back in double: 1e-60 is no float32.
    double largest = -std::numeric_limits<double>::infinity();
    for (Index j = 0; j < net.width; ++j) largest = std::max(largest, log_coefficient(net, j));
    scale_ = std::isfinite(largest) ? std::exp(largest) : 0.0;
    coefficients_.resize(net.width);
    for (Index j = 0; j < net.width; ++j) {
      const double relative = std::isfinite(largest) ? std::exp(log_coefficient(net, j) - largest) : 0.0;
      coefficients_(j) = static_cast<T>(net.sign[j] * relative);
    }
    set_activation(net);
  }

  // The activation alone, for transform().
  void set_activation(const Network<T>& net) {
    tanh_ = net.activation == Activation::tanh;
    p_ = net.p;
    if (tanh_) {
      norms_.resize(net.width);
      for (Index j = 0; j < net.width; ++j) norms_(j) = static_cast<T>(std::exp(net.log_norm[j]));
      return;
    }
    const double twice = 2.0 * (p_ - 1.0);
    exact_ = twice == std::floor(twice) && twice <= 64.0;
    halves_ = exact_ ? static_cast<int>(twice) : 0;
  }

  // z (h,) becomes phi'(z); value (h,) becomes phi(z). Returns f = sum_j c_j phi_j.
  // (One copy of the machine code, so that its sums have the same bits wherever they are called from.)
  PRELUFLOW_NOINLINE double apply(RowArrayMap<T> z, RowArrayMap<T> value) const {
    if (tanh_) {
      value = (z * norms_).tanh();
      z = T(1) - value.square();
    } else {
      slope(z, value);
    }
    return scale_ * static_cast<double>((value * coefficients_).sum());
  }

  // z (h,) becomes phi'(z); value (h,) becomes phi(z).
  PRELUFLOW_NOINLINE void transform(RowArrayMap<T> z, RowArrayMap<T> value) const {
    if (tanh_) {
      value = (z * norms_).tanh();
      z = T(1) - value.square();
    } else {
      slope(z, value);
    }
  }

  // z (h,) becomes sigma'(z) and value sigma(z)^p, no coefficients; not for tanh.
  void power(RowArrayMap<T> z, RowArrayMap<T> value) const { slope(z, value); }

  // d f / d z of the row, given the phi' that apply() left in z: multiplied in place.
  void chain(RowArrayMap<T> dz) const {
    dz *= coefficients_ * static_cast<T>(scale_);
    if (tanh_) dz *= norms_;
  }

 private:
  using Row = Eigen::Array<T, 1, Eigen::Dynamic>;

  // value = of(sigma(z), slope), z = slope, in one pass.
  template <class Of>
  static void each(RowArrayMap<T>& z, RowArrayMap<T>& value, const Of& of) {
    T* __restrict zs = z.data(), * __restrict values = value.data();
    const Index width = z.size();
    for (Index j = 0; j < width; ++j) {
      T slope;
      values[j] = of(std::max(zs[j], T(0)), slope);
      zs[j] = slope;
    }
  }

  void slope(RowArrayMap<T>& z, RowArrayMap<T>& value) const {
    const T p = static_cast<T>(p_);
    switch (exact_ ? halves_ : -1) {
      case 0:  // p = 1
        each(z, value, [](T t, T& slope) {
          slope = t > T(0) ? T(1) : T(0);
          return t;
        });
        return;
      case 2:  // p = 2
        each(z, value, [p](T t, T& slope) {
          slope = t * p;
          return t * t;
        });
        return;
      case 4:  // p = 3, the paper's
        each(z, value, [p](T t, T& slope) {
          const T square = t * t;
          slope = square * p;
          return square * t;
        });
        return;
      default:
        any_slope(z, value);
    }
  }

  void any_slope(RowArrayMap<T>& z, RowArrayMap<T>& value) const {
    const T p = static_cast<T>(p_);
    z = z.max(T(0));
    if (!exact_) {
      value = z.pow(p);
      z = (z > T(0)).select(z.pow(p - T(1)) * p, T(0));
      return;
    }
    // value = z^(p-1): a square root when 2p is odd, then multiplications; the last loop swaps the two in one pass.
    int multiply = halves_ / 2;
    if (halves_ & 1) {
      value = z.sqrt();
    } else {
      value = z;
      --multiply;
    }
    for (int k = 0; k < multiply; ++k) value *= z;
    for (Index j = 0; j < z.size(); ++j) {
      const T power = value(j);
      value(j) = power * z(j);
      z(j) = power * p;
    }
  }

  bool tanh_ = false;
  double p_ = 1.0;
  bool exact_ = false;
  int halves_ = 0;  // 2 (p - 1)
  double scale_ = 0.0;
  Row coefficients_;
  Row norms_;
};

}  // namespace preluflow
