#include "preluflow/flow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

constexpr double kSafety = 0.9, kShrink = 0.2, kGrow = 5.0;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Index kBlock = 256;  // inputs combined at a time, so that the sum stays in the nearest cache

// |x|, one by one, so that nothing overflows.
double length(const double* x, Index size) {
  double sum = std::abs(x[0]);
  for (Index i = 1; i < size; ++i) sum = std::hypot(sum, x[i]);
  return sum;
}

// PI control (Hairer, Wanner, IV.2): the factor for the next step after an accepted one.
double grow(double error, double last_error, int order) {
  const double q = static_cast<double>(order), beta = 0.2 / q;
  const double factor = kSafety * std::pow(std::max(error, 1e-10), -1.0 / q + 0.75 * beta) * std::pow(last_error, beta);
  return std::min(std::max(factor, kShrink), kGrow);
}

double shrink(double error, int order) {
  return std::isfinite(error) ? std::max(kShrink, kSafety * std::pow(error, -1.0 / order)) : kShrink;
}

// The shortest step that still moves t.
double shortest_step(double t) { return 16.0 * std::numeric_limits<double>::epsilon() * std::abs(t); }

}  // namespace

template <class T>
Flow<T>::Flow(const TrainingData<T>& data, const NetworkState<T>& start, Loss loss, const Tableau& method,
              const FlowOptions& options)
    : data_(data),
      width_(start.U.layout().width),
      dim_(start.U.layout().dim),
      outputs_(start.outputs),
      parts_(1 + start.outputs),
      activation_(start.activation),
      p_(start.p),
      loss_(loss),
      given_(method),
      method_(&method),
      options_(options),
      kernel_(data.n, start.U.layout(), start.outputs),
      begin_(options.t0),
      end_(options.t0),
      hermite_(hermite(method.b)),
      now_(at(width_ * parts_)),
      bias_(start.output_bias.data(), start.output_bias.data() + start.output_bias.size()),
      dead_(at(width_)),
      k_(slots() * at(width_ * parts_)),
      kb_(slots() * bias_.size()),
      start_sign_(start.sign),
      start_log_abs_v_(start.log_abs_v),
      stage_(start),
      norm_(at(width_)),
      stage_scalars_(at(width_ * parts_)),
      error_(at(width_)),
      f_(at(data.n * start.outputs)) {
  kernel_.want_G(inner_moves());
  AlignedVector<T> rows;
  if (inner_moves()) {
    U_.resize(at(width_ * dim_));
    phi_.resize(at(width_ * dim_));
    K_.resize(slots());
    for (int slot = 0; slot < method.all_stages(); ++slot) need(slot);
    if (method.stabilized) need(kStiffSlot);
    rows.resize(at(width_ * dim_));
    start.U.copy_to(rows.data());
  }
  for (Index j = 0; j < width_; ++j) {
    const double l = start.log_norm(j), log_v = start.log_outer(j);
    const double top = raw() ? std::max(l, log_v) : l;
    dead_[at(j)] = top == -kInfinity;
    if (dead_[at(j)]) continue;
    const double sigma = raw() ? top + 0.5 * std::log(std::exp(2.0 * (l - top)) + std::exp(2.0 * (log_v - top))) : l;
    now(j)[0] = sigma;
    for (Index c = 0; c < outputs_; ++c)
      now(j)[1 + c] = start.sign(j * outputs_ + c) * std::exp(start.log_abs_v(j * outputs_ + c) - sigma);
    for (Index k = j * dim_; inner_moves() && k < (j + 1) * dim_; ++k)
      U_[at(k)] = std::exp(l - sigma) * static_cast<double>(rows[at(k)]);
  }
}

// ---- evaluations

// phi_j = U_j + size sum_m weights_m K_m, where l is that of combine_scalars(); |phi_j|. Of a frozen layer only that.
template <class T>
double Flow<T>::combine(Index j, const double* weights, int count, double l) {
  if (!inner_moves()) return raw() && !dead_[at(j)] ? std::exp(stage_.log_norm(j) - l) : 1.0;
  const double* u = U_.data() + j * dim_;
  double* out = phi_.data() + j * dim_;
  for (Index d0 = 0; d0 < dim_; d0 += kBlock) {
    const Index d1 = std::min(d0 + kBlock, dim_);
    std::copy(u + d0, u + d1, out + d0);
    for (int m = 0; m < count; ++m) {
      const double weight = size_ * weights[m];
      if (weight == 0.0) continue;
      const T* km = K(m, j);
      for (Index d = d0; d < d1; ++d) out[d] += weight * static_cast<double>(km[d]);
    }
  }
  return row_norm(out, dim_);
}

// (l, rho) likewise.
template <class T>
void Flow<T>::combine_scalars(Index j, const double* weights, int count, double* out) const {
  const double* from = now(j);
  if (outputs_ == 1) {
    double l = 0.0, rho = 0.0;
    for (int m = 0; m < count; ++m) {
      const double* km = k(m, j);
      l += weights[m] * km[0];
      rho += weights[m] * km[1];
    }
    out[0] = from[0] + size_ * l;
    out[1] = from[1] + size_ * rho;
  } else {
    std::fill_n(out, parts_, 0.0);
    for (int m = 0; m < count; ++m) {
      const double* km = k(m, j);
      for (Index i = 0; i < parts_; ++i) out[i] += weights[m] * km[i];
    }
    for (Index i = 0; i < parts_; ++i) out[i] = from[i] + size_ * out[i];
  }
  if (outer_moves() || dead_[at(j)]) return;
  for (Index c = 0; c < outputs_; ++c)
    out[1 + c] = start_sign_(j * outputs_ + c) * std::exp(start_log_abs_v_(j * outputs_ + c) - out[0]);
}

template <class T>
void Flow<T>::combine_bias(const double* weights, int count, double* out) const {
  for (Index c = 0; c < static_cast<Index>(bias_.size()); ++c) {
    double sum = 0.0;
    for (int m = 0; m < count; ++m) sum += weights[m] * kb(m, c);
    out[c] = bias_[at(c)] + size_ * sum;
  }
}

// Neuron j as part of a network, where it stands at (phi, scalars), |phi| = norm.
template <class T>
void Flow<T>::network_scalars(Index j, const double* scalars, double norm, double* log_norm, double* sign,
                              double* log_abs_v) const {
  const double l = scalars[0];
  *log_norm = dead_[at(j)] || !inner_moves() ? stage_.log_norm(j) : raw() ? l + std::log(norm) : l;
  for (Index c = 0; c < outputs_; ++c) {
    const double rho = scalars[1 + c];
    if (dead_[at(j)] || !outer_moves()) {
      sign[c] = start_sign_(j * outputs_ + c);
      log_abs_v[c] = start_log_abs_v_(j * outputs_ + c) + (dead_[at(j)] ? l : 0.0);
    } else {
      sign[c] = rho > 0.0 ? 1.0 : rho < 0.0 ? -1.0 : 0.0;
      log_abs_v[c] = rho == 0.0 ? -kInfinity : l + std::log(std::abs(rho));
    }
  }
}

// Puts every neuron at y + size sum_m weights_m K_m.
template <class T>
void Flow<T>::build(Team& team, const double* weights, int count) {
  constexpr Index lanes = PanelLayout<T>::lanes;
  combine_bias(weights, count, stage_.output_bias.data());
  team.parallel_for((width_ + lanes - 1) / lanes, [&](Index task) {  // a task owns whole cache lines of the panels
    const Index j0 = task * lanes, j1 = std::min(j0 + lanes, width_);
    double inverse[lanes];
    for (Index j = j0; j < j1; ++j) {
      combine_scalars(j, weights, count, stage(j));
      norm_[at(j)] = combine(j, weights, count, stage(j)[0]);
      inverse[j - j0] = inverse_of(norm_[at(j)]);
      network_scalars(j, stage(j), norm_[at(j)], &stage_.log_norm(j), &stage_.sign(j * outputs_),
                      &stage_.log_abs_v(j * outputs_));
    }
    if (!inner_moves()) return;
    T* out = stage_.U.row(j0);
    const Index stride = stage_.U.stride(j0);
    const double* phi = phi_.data() + j0 * dim_;
    for (Index d = 0; d < dim_; ++d)
      for (Index i = 0; i < j1 - j0; ++i) out[d * stride + i] = static_cast<T>(phi[i * dim_ + d] * inverse[i]);
  });
}

// The field of (l, rho) of neuron j into slot (docs/mathematics.md#training-outputs); what multiplies G in that of phi,
// and the u taken off G.
template <class T>
T Flow<T>::scalar_field(int slot, Index j, T* along) {
  double* out = k(slot, j);
  const double *rho = stage(j) + 1, *s = kernel_.s().data() + j * outputs_;
  const double l = stage(j)[0], decay = options_.weight_decay;
  *along = T(0);
  if (dead_[at(j)]) {
    std::fill_n(out, parts_, 0.0);
    if (outer_moves()) out[0] = -decay;
    return T(0);
  }
  const bool polynomial = activation_ == Activation::polynomial, one = outputs_ == 1;
  const double degree = polynomial ? p_ : 1.0;
  // By which s is multiplied in V' / ||w||; for tanh in V' / sigma.
  const double m = raw() ? std::exp(-l) : polynomial ? std::exp(log_power(p_ - 1.0, l)) : 1.0;
  double size = rho[0], s_along = s[0], product = 0.0;  // rho, <v,s>; of several outputs also <rho,s>
  if (!one) {
    size = length(rho, outputs_);
    for (Index c = 0; c < outputs_; ++c) product += rho[c] * s[c];
    s_along = product * inverse_of(size);
  }
  out[0] = !inner_moves() ? 0.0 : (raw() ? 0.0 : one ? degree * m * rho[0] * s[0] : degree * m * product) - decay;
  for (Index c = 0; c < outputs_; ++c) {
    if (!outer_moves()) {
      out[1 + c] = 0.0;
    } else if (!inner_moves()) {
      out[1 + c] = m * s[c] - decay * rho[c];
    } else if (raw()) {
      out[1 + c] = s[c] * m;
    } else {
      out[1 + c] = one ? m * (1.0 - degree * rho[0] * rho[0]) * s[0] : m * (s[c] - degree * product * rho[c]);
    }
  }
  if (activation_ == Activation::prelu) *along = static_cast<T>((p_ - 1.0) * s_along);
  return static_cast<T>(raw() ? size : size * (m * norm_[at(j)]));
}

// The field where build() has put the neurons, into slot.
template <class T>
void Flow<T>::field(Team& team, int slot, bool aside) {
  const bool kept = !aside && slot <= method().stages();  // loss and outputs, of the last evaluation in a step
  const double value =
      kernel_.evaluate(team, data_.rows(stage_.dim()), stage_.view(), loss_, kept ? f_.data() : nullptr);
  if (kept) loss_value_ = value;
  ++gradients_;
  for (Index c = 0; c < static_cast<Index>(bias_.size()); ++c)
    kb(slot, c) = outer_moves() ? kernel_.b()(c) - options_.weight_decay * stage_.output_bias(c) : 0.0;
  constexpr Index lanes = PanelLayout<T>::lanes;
  team.parallel_for((width_ + lanes - 1) / lanes, [&](Index task) {
    const Index j0 = task * lanes, j1 = std::min(j0 + lanes, width_);
    T scale[lanes], along[lanes];
    T* out[lanes];
    for (Index j = j0; j < j1; ++j) {
      scale[j - j0] = scalar_field(slot, j, along + (j - j0));
      if (inner_moves()) out[j - j0] = K(slot, j);
    }
    if (!inner_moves()) return;
    const T* g = kernel_.G().row(j0);
    const T* u = stage_.U.row(j0);
    const Index stride = stage_.U.stride(j0);
    for (Index d = 0; d < dim_; ++d)
      for (Index i = 0; i < j1 - j0; ++i) out[i][d] = scale[i] * (g[d * stride + i] - along[i] * u[d * stride + i]);
  });
}

// ---- steps

// Stages and the field at the new state; returns the largest error of a neuron or bias in units of rtol.
template <class T>
double Flow<T>::attempt(Team& team) {
  has_dense_ = false;
  const int s = method().stages();
  for (int i = 1; i < s; ++i) {
    build(team, method().a[static_cast<std::size_t>(i - 1)].data(), i);
    field(team, i);
  }
  build(team, method().b.data(), s);
  field(team, s);
  team.parallel_for(width_, [&](Index j) { error_[at(j)] = error(j); });
  return std::max(*std::max_element(error_.begin(), error_.end()), bias_error());
}

// The largest of the parts of an error in units of rtol, of which a method has one estimate or two.
template <class T>
double Flow<T>::worst(const double (&parts)[2][3]) const {
  double largest = 0.0;
  for (int c = 0; c < 3; ++c) {
    double part = parts[0][c];
    // DOP853's combination of its estimates of order 5 and 3 (Hairer, Norsett, Wanner, II.10).
    if (method().e.size() == 2 && part > 0.0) part *= part / std::hypot(part, 0.1 * parts[1][c]);
    largest = std::isfinite(part) ? std::max(largest, part) : kInfinity;
  }
  return largest / options_.rtol;
}

// Error of neuron j in units of rtol, infinite where it is not finite; 0 without an estimate.
template <class T>
double Flow<T>::error(Index j) const {
  if (dead_[at(j)]) return 0.0;
  const int s = method().stages();
  // The field at the new state need be finite too: it is the next step's first.
  double all = norm_[at(j)] + speed(s, j);
  for (Index i = 0; i < parts_; ++i) all += stage(j)[i] + k(s, j)[i];
  if (!std::isfinite(all) || !std::isfinite(loss_value_)) return kInfinity;
  if (method().control_order == 0) return 0.0;
  double parts[2][3];
  for (std::size_t row = 0; row < method().e.size(); ++row) estimate(j, method().e[row], parts[row]);
  return worst(parts);
}

// The same of output biases.
template <class T>
double Flow<T>::bias_error() const {
  const int s = method().stages();
  double largest = 0.0;
  for (Index c = 0; c < static_cast<Index>(bias_.size()); ++c) {
    const double B = stage_.output_bias(c);
    if (!std::isfinite(B + kb(s, c) + loss_value_)) return kInfinity;
    double parts[2][3] = {};
    for (std::size_t row = 0; row < method().e.size(); ++row) {
      double sum = 0.0;
      for (int m = 0; m <= s; ++m) sum += method().e[row][static_cast<std::size_t>(m)] * kb(m, c);
      parts[row][0] = size_ * std::abs(sum) / std::max(1.0, std::abs(B));
    }
    if (method().control_order > 0) largest = std::max(largest, worst(parts));
  }
  return largest;
}

// One estimate: of the direction in radians (without its part along phi, which does not matter), of l, of rho.
template <class T>
void Flow<T>::estimate(Index j, const std::vector<double>& e, double (&parts)[3]) const {
  const auto count = static_cast<int>(e.size());
  const double rho = length(stage(j) + 1, outputs_);
  const double unit = raw() ? std::hypot(norm_[at(j)], rho) : norm_[at(j)];
  double of_l = 0.0, of_rho = 0.0;
  for (Index i = 0; i < parts_; ++i) {
    double sum = 0.0;
    for (int m = 0; m < count; ++m) sum += e[static_cast<std::size_t>(m)] * k(m, j)[i];
    if (i == 0) of_l = std::abs(sum);
    if (i == 1) of_rho = std::abs(sum);
    if (i > 1) of_rho = std::hypot(of_rho, sum);
  }
  parts[0] = inner_moves() ? size_ * estimate_direction(j, e) * inverse_of(unit) : 0.0;
  parts[1] = size_ * of_l;
  parts[2] = size_ * of_rho * (raw() ? inverse_of(unit) : 1.0 / std::max(1.0, rho));
}

// Length of an estimate of phi, for other than tanh without the part along phi.
template <class T>
double Flow<T>::estimate_direction(Index j, const std::vector<double>& e) const {
  const double* phi = phi_.data() + j * dim_;
  const double norm = norm_[at(j)];
  double square = 0.0, along = 0.0;
  for (int pass = 0; pass < (raw() ? 1 : 2); ++pass) {  // first the part along phi, then the rest: no cancellation
    const double coefficient = pass == 0 ? 0.0 : along * inverse_of(norm) * inverse_of(norm);
    square = 0.0;
    double block[kBlock];
    for (Index d0 = 0; d0 < dim_; d0 += kBlock) {
      const Index d1 = std::min(d0 + kBlock, dim_);
      std::fill_n(block, d1 - d0, 0.0);
      for (std::size_t m = 0; m < e.size(); ++m) {
        const double weight = e[m];
        if (weight == 0.0) continue;
        const T* km = K(static_cast<int>(m), j);
        for (Index d = d0; d < d1; ++d) block[d - d0] += weight * static_cast<double>(km[d]);
      }
      for (Index d = d0; d < d1; ++d) {
        const double x = block[d - d0] - coefficient * phi[d];
        square += x * x;
        along += pass == 0 ? x * phi[d] : 0.0;
      }
    }
  }
  return std::sqrt(square);
}

// The end of the step becomes the beginning of the next.
template <class T>
void Flow<T>::commit(Team& team) {
  const int s = method().stages();
  combine_bias(method().b.data(), s, stage_.output_bias.data());
  for (std::size_t c = 0; c < bias_.size(); ++c) bias_[c] = stage_.output_bias(static_cast<Index>(c));
  std::copy_n(kb_.data() + at(s) * bias_.size(), bias_.size(), kb_.data());
  team.parallel_for(width_, [&](Index j) {
    double* next = stage(j);
    combine_scalars(j, method().b.data(), s, next);
    double norm = combine(j, method().b.data(), s, next[0]);
    if (raw()) norm = std::hypot(norm, length(next + 1, outputs_));
    const double inverse = inverse_of(norm);
    std::copy_n(k(s, j), parts_, k(0, j));
    if (raw() && !dead_[at(j)]) {
      next[0] += std::log(norm);
      for (Index c = 1; c < parts_; ++c) {
        next[c] *= inverse;
        k(0, j)[c] *= inverse;
      }
    }
    std::copy_n(next, parts_, now(j));
    if (!inner_moves()) return;
    const double* phi = phi_.data() + j * dim_;
    double* u = U_.data() + j * dim_;
    for (Index d = 0; d < dim_; ++d) u[d] = phi[d] * inverse;
    const T* last = K(s, j);
    T* first = K(0, j);
    for (Index d = 0; d < dim_; ++d) first[d] = last[d] * static_cast<T>(inverse);
  });
  begin_ = end_;
  has_step_ = false;
}

// How fast neuron j moves, by the same measure as errors, per unit time.
template <class T>
double Flow<T>::speed(int slot, Index j) const {
  const double direction =
      inner_moves() ? std::sqrt(static_cast<double>(ConstVectorMap<T>(K(slot, j), dim_).squaredNorm())) : 0.0;
  return std::max({direction, std::abs(k(slot, j)[0]),
                   length(k(slot, j) + 1, outputs_) / std::max(1.0, length(now(j) + 1, outputs_))});
}

template <class T>
void Flow<T>::start(Team& team) {
  if (started_) return;
  started_ = true;
  build(team, nullptr, 0);
  field(team, 0);
}

// A sensible first step (Hairer, Norsett, Wanner, II.4): an Euler step of a hundredth of the field's scale shows how
// fast the field changes. False if the field is not finite.
template <class T>
bool Flow<T>::choose_first_step(Team& team) {
  const auto biases = static_cast<Index>(bias_.size());
  double d1 = 0.0, d2 = 0.0;
  for (Index j = 0; j < width_; ++j) d1 = std::max(d1, speed(0, j));
  for (Index c = 0; c < biases; ++c) d1 = std::max(d1, std::abs(kb(0, c)) / std::max(1.0, std::abs(bias_[at(c)])));
  if (!std::isfinite(d1) || !std::isfinite(loss_value_)) return false;
  const double span = options_.t1 - options_.t0;
  next_ = options_.step;
  if (next_ > 0.0) return true;
  const double h0 = d1 > 0.0 ? std::min(0.01 / d1, span) : span, one[] = {1.0};
  size_ = h0;
  build(team, one, 1);
  field(team, 1, true);
  for (Index j = 0; j < width_; ++j) {
    const double *k0 = k(0, j), *k1 = k(1, j);
    const double direction =
        inner_moves()
            ? static_cast<double>((ConstVectorMap<T>(K(1, j), dim_) - ConstVectorMap<T>(K(0, j), dim_)).norm())
            : 0.0;
    double of_rho = std::abs(k1[1] - k0[1]);
    for (Index c = 2; c < parts_; ++c) of_rho = std::hypot(of_rho, k1[c] - k0[c]);
    d2 = std::max({d2, direction / h0, std::abs(k1[0] - k0[0]) / h0, of_rho / h0});
  }
  for (Index c = 0; c < biases; ++c) d2 = std::max(d2, std::abs(kb(1, c) - kb(0, c)) / h0);
  const double steepest = std::max(d1, d2) / options_.rtol;
  const double h1 = steepest > 0.0 ? std::pow(0.01 / steepest, 1.0 / method().control_order) : span;
  next_ = std::min({100.0 * h0, h1, span});
  return true;
}

template <class T>
FlowStatus Flow<T>::advance(Team& team) {
  start(team);
  if (next_ == 0.0 && !choose_first_step(team)) return FlowStatus::not_finite;
  if (has_step_) commit(team);
  double h = next_;
  for (bool rejected = false;; rejected = true) {
    if (given_.stabilized) h = choose_stages(team, h, rejected);
    const double reach = begin_ + h;
    const bool last = reach > options_.t1 - 1e-9 * h;
    const double end = last ? options_.t1 : reach;
    if (!(end - begin_ > shortest_step(begin_))) return FlowStatus::step_too_small;
    size_ = end - begin_;
    const double error = attempt(team);
    if (error <= 1.0) {
      end_ = end;
      has_step_ = true;
      ++accepted_;
      next_ = h;
      // A step cut off at t1 says little about the next.
      if (method().control_order > 0 && size_ > 0.99 * h) {
        const double factor = grow(error, last_error_, method().control_order);
        next_ = h * (rejected ? std::min(factor, 1.0) : factor);
        last_error_ = std::max(error, 1e-4);
        pace_.grew = next_ / h;
      }
      return FlowStatus::ok;
    }
    if (method().control_order == 0) return FlowStatus::not_finite;
    ++rejected_;
    h = size_ * shrink(error, method().control_order);
    if (!std::isfinite(error) && h < shortest_step(std::max(std::abs(begin_), 1e-300))) return FlowStatus::not_finite;
  }
}

template <class T>
double Flow<T>::loss(Team& team) {
  start(team);
  return loss_value_;
}

template class Flow<float>;
template class Flow<double>;

}  // namespace preluflow
