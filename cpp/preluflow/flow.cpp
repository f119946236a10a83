#include "preluflow/flow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

constexpr double kSafety = 0.9, kShrink = 0.2, kGrow = 5.0;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Index kBlock = 256;  // inputs combined at a time, so that the sum stays in the nearest cache

double row_norm(const double* row, Index dim) { return ConstVectorMap<double>(row, dim).norm(); }

double inverse_of(double norm) { return norm > 0.0 ? 1.0 / norm : 0.0; }

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
Flow<T>::Flow(const T* X, const double* y, Index n, const Network<T>& start, Loss loss, const Tableau& method,
              const FlowOptions& options)
    : X_(X),
      y_(y),
      n_(n),
      width_(start.width),
      dim_(start.dim),
      activation_(start.activation),
      p_(start.p),
      loss_(loss),
      method_(method),
      options_(options),
      kernel_(n, PanelLayout<T>(start.width, start.dim)),
      begin_(options.t0),
      end_(options.t0),
      U_(at(start.width * start.dim)),
      now_(at(start.width)),
      dead_(at(start.width)),
      K_(static_cast<std::size_t>(method.all_stages()) * at(start.width * start.dim)),
      k_(static_cast<std::size_t>(method.all_stages()) * at(start.width)),
      start_sign_(start.sign, start.sign + start.width),
      start_log_abs_v_(start.log_abs_v, start.log_abs_v + start.width),
      stage_(PanelLayout<T>(start.width, start.dim)),
      phi_(at(start.width * start.dim)),
      norm_(at(start.width)),
      stage_scalars_(at(start.width)),
      log_norm_(at(start.width)),
      sign_(at(start.width)),
      log_abs_v_(at(start.width)),
      error_(at(start.width)),
      f_(at(n)) {
  for (Index j = 0; j < width_; ++j) {
    const double l = start.log_norm[j], log_v = start.log_abs_v[j];
    const double top = raw() ? std::max(l, log_v) : l;
    dead_[at(j)] = top == -kInfinity;
    if (dead_[at(j)]) {
      now_[at(j)] = {-kInfinity, 0.0};
      continue;
    }
    const double sigma = raw() ? top + 0.5 * std::log(std::exp(2.0 * (l - top)) + std::exp(2.0 * (log_v - top))) : l;
    now_[at(j)] = {sigma, start.sign[j] * std::exp(log_v - sigma)};
    for (Index d = 0; d < dim_; ++d)
      U_[at(j * dim_ + d)] = std::exp(l - sigma) * static_cast<double>(start.U[j * dim_ + d]);
  }
}

// ---- evaluations

// out (D,) = U_j + size sum_m weights_m K_m.
template <class T>
void Flow<T>::combine(Index j, const double* weights, int count, double* out) const {
  const double* u = U_.data() + j * dim_;
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
}

template <class T>
typename Flow<T>::Scalars Flow<T>::combine_scalars(Index j, const double* weights, int count) const {
  Scalars sum{0.0, 0.0};
  for (int m = 0; m < count; ++m) {
    sum.l += weights[m] * k(m, j).l;
    sum.rho += weights[m] * k(m, j).rho;
  }
  return {now_[at(j)].l + size_ * sum.l, now_[at(j)].rho + size_ * sum.rho};
}

// Neuron j as part of a network, where it stands at (phi, scalars), |phi| = norm.
template <class T>
void Flow<T>::network_scalars(Index j, const Scalars& scalars, double norm, double* log_norm, double* sign,
                              double* log_abs_v) const {
  const double rho = scalars.rho;
  *log_norm = raw() ? scalars.l + std::log(norm) : scalars.l;
  *sign = dead_[at(j)] ? start_sign_[at(j)] : rho > 0.0 ? 1.0 : rho < 0.0 ? -1.0 : 0.0;
  *log_abs_v = dead_[at(j)] ? start_log_abs_v_[at(j)] : rho == 0.0 ? -kInfinity : scalars.l + std::log(std::abs(rho));
}

// Puts every neuron at y + size sum_m weights_m K_m.
template <class T>
void Flow<T>::build(Team& team, const double* weights, int count) {
  constexpr Index lanes = PanelLayout<T>::lanes;
  team.parallel_for((width_ + lanes - 1) / lanes, [&](Index task) {  // a task owns whole cache lines of the panels
    const Index j0 = task * lanes, j1 = std::min(j0 + lanes, width_);
    double inverse[lanes];
    for (Index j = j0; j < j1; ++j) {
      double* phi = phi_.data() + j * dim_;
      combine(j, weights, count, phi);
      stage_scalars_[at(j)] = combine_scalars(j, weights, count);
      norm_[at(j)] = row_norm(phi, dim_);
      inverse[j - j0] = inverse_of(norm_[at(j)]);
      network_scalars(j, stage_scalars_[at(j)], norm_[at(j)], &log_norm_[at(j)], &sign_[at(j)], &log_abs_v_[at(j)]);
    }
    T* out = stage_.row(j0);
    const Index stride = stage_.stride(j0);
    const double* phi = phi_.data() + j0 * dim_;
    for (Index d = 0; d < dim_; ++d)
      for (Index i = 0; i < j1 - j0; ++i) out[d * stride + i] = static_cast<T>(phi[i * dim_ + d] * inverse[i]);
  });
}

// The field where build() has put the neurons, into slot.
template <class T>
void Flow<T>::field(Team& team, int slot) {
  const PanelNetwork<T> net{
      stage_, {nullptr, log_norm_.data(), sign_.data(), log_abs_v_.data(), width_, dim_, activation_, p_}};
  const bool extra = slot > method_.stages();  // loss and outputs are kept of the last evaluation in a step
  const double value = kernel_.evaluate(team, {X_, y_, dim_, nullptr, n_}, net, loss_, extra ? nullptr : f_.data());
  if (!extra) loss_value_ = value;
  ++gradients_;
  constexpr Index lanes = PanelLayout<T>::lanes;
  team.parallel_for((width_ + lanes - 1) / lanes, [&](Index task) {
    const Index j0 = task * lanes, j1 = std::min(j0 + lanes, width_);
    T scale[lanes], along[lanes];
    T* out[lanes];
    for (Index j = j0; j < j1; ++j) {
      const Scalars& stage = stage_scalars_[at(j)];
      const double s = kernel_.s()(j);
      double factor = stage.rho;
      if (dead_[at(j)]) {
        k(slot, j) = {0.0, 0.0};
      } else if (raw()) {
        k(slot, j) = {0.0, s * std::exp(-stage.l)};
      } else {
        const bool polynomial = activation_ == Activation::polynomial;
        const double degree = polynomial ? p_ : 1.0;
        const double m = polynomial ? std::exp(log_power(p_ - 1.0, stage.l)) : 1.0;
        k(slot, j) = {degree * m * stage.rho * s, m * (1.0 - degree * stage.rho * stage.rho) * s};
        factor *= m * norm_[at(j)];
      }
      scale[j - j0] = static_cast<T>(factor);
      along[j - j0] = activation_ == Activation::prelu ? static_cast<T>((p_ - 1.0) * s) : T(0);
      out[j - j0] = K(slot, j);
    }
    const T* g = kernel_.G().row(j0);
    const T* u = stage_.row(j0);
    const Index stride = stage_.stride(j0);
    for (Index d = 0; d < dim_; ++d)
      for (Index i = 0; i < j1 - j0; ++i) out[i][d] = scale[i] * (g[d * stride + i] - along[i] * u[d * stride + i]);
  });
}

// ---- steps

// Stages and the field at the new state; returns the largest error of a neuron in units of rtol.
template <class T>
double Flow<T>::attempt(Team& team) {
  has_dense_ = false;
  const int s = method_.stages();
  for (int i = 1; i < s; ++i) {
    build(team, method_.a[static_cast<std::size_t>(i - 1)].data(), i);
    field(team, i);
  }
  build(team, method_.b.data(), s);
  field(team, s);
  team.parallel_for(width_, [&](Index j) { error_[at(j)] = error(j); });
  return *std::max_element(error_.begin(), error_.end());
}

// Error of neuron j in units of rtol, infinite where it is not finite; 0 without an estimate.
template <class T>
double Flow<T>::error(Index j) const {
  if (dead_[at(j)]) return 0.0;
  const Scalars& end = stage_scalars_[at(j)];
  const int s = method_.stages();
  // The field at the new state need be finite too: it is the next step's first.
  const bool finite = std::isfinite(norm_[at(j)] + end.l + end.rho + k(s, j).l + k(s, j).rho + speed(s, j));
  if (!finite || !std::isfinite(loss_value_)) return kInfinity;
  if (method_.control_order == 0) return 0.0;
  double parts[2][3];
  for (std::size_t row = 0; row < method_.e.size(); ++row) estimate(j, method_.e[row], parts[row]);
  double worst = 0.0;
  for (int c = 0; c < 3; ++c) {
    double part = parts[0][c];
    // DOP853's combination of its estimates of order 5 and 3 (Hairer, Norsett, Wanner, II.10).
    if (method_.e.size() == 2 && part > 0.0) part *= part / std::hypot(part, 0.1 * parts[1][c]);
    worst = std::isfinite(part) ? std::max(worst, part) : kInfinity;
  }
  return worst / options_.rtol;
}

// One estimate: of the direction in radians (without its part along phi, which does not matter), of l, of rho.
template <class T>
void Flow<T>::estimate(Index j, const std::vector<double>& e, double (&parts)[3]) const {
  const double* phi = phi_.data() + j * dim_;
  const auto count = static_cast<int>(e.size());
  const double norm = norm_[at(j)], rho = stage_scalars_[at(j)].rho;
  const double unit = raw() ? std::hypot(norm, rho) : norm;
  double square = 0.0, along = 0.0;
  for (int pass = 0; pass < (raw() ? 1 : 2); ++pass) {  // first the part along phi, then the rest: no cancellation
    const double coefficient = pass == 0 ? 0.0 : along * inverse_of(norm) * inverse_of(norm);
    square = 0.0;
    double block[kBlock];
    for (Index d0 = 0; d0 < dim_; d0 += kBlock) {
      const Index d1 = std::min(d0 + kBlock, dim_);
      std::fill_n(block, d1 - d0, 0.0);
      for (int m = 0; m < count; ++m) {
        const double weight = e[static_cast<std::size_t>(m)];
        if (weight == 0.0) continue;
        const T* km = K(m, j);
        for (Index d = d0; d < d1; ++d) block[d - d0] += weight * static_cast<double>(km[d]);
      }
      for (Index d = d0; d < d1; ++d) {
        const double x = block[d - d0] - coefficient * phi[d];
        square += x * x;
        along += pass == 0 ? x * phi[d] : 0.0;
      }
    }
  }
  Scalars sum{0.0, 0.0};
  for (int m = 0; m < count; ++m) {
    sum.l += e[static_cast<std::size_t>(m)] * k(m, j).l;
    sum.rho += e[static_cast<std::size_t>(m)] * k(m, j).rho;
  }
  parts[0] = size_ * std::sqrt(square) * inverse_of(unit);
  parts[1] = size_ * std::abs(sum.l);
  parts[2] = size_ * std::abs(sum.rho) * (raw() ? inverse_of(unit) : 1.0 / std::max(1.0, std::abs(rho)));
}

// The end of the step becomes the beginning of the next.
template <class T>
void Flow<T>::commit(Team& team) {
  const int s = method_.stages();
  team.parallel_for(width_, [&](Index j) {
    double* phi = phi_.data() + j * dim_;
    combine(j, method_.b.data(), s, phi);
    Scalars now = combine_scalars(j, method_.b.data(), s);
    double norm = row_norm(phi, dim_);
    if (raw()) norm = std::hypot(norm, now.rho);
    const double inverse = inverse_of(norm);
    k(0, j) = k(s, j);
    if (raw() && !dead_[at(j)]) {
      now = {now.l + std::log(norm), now.rho * inverse};
      k(0, j).rho *= inverse;
    }
    now_[at(j)] = now;
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
  const double direction = std::sqrt(static_cast<double>(ConstVectorMap<T>(K(slot, j), dim_).squaredNorm()));
  return std::max(
      {direction, std::abs(k(slot, j).l), std::abs(k(slot, j).rho) / std::max(1.0, std::abs(now_[at(j)].rho))});
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
  double d1 = 0.0, d2 = 0.0;
  for (Index j = 0; j < width_; ++j) d1 = std::max(d1, speed(0, j));
  if (!std::isfinite(d1) || !std::isfinite(loss_value_)) return false;
  const double span = options_.t1 - options_.t0;
  next_ = options_.step;
  if (next_ > 0.0) return true;
  const double h0 = d1 > 0.0 ? std::min(0.01 / d1, span) : span, one[] = {1.0}, value = loss_value_;
  size_ = h0;
  build(team, one, 1);
  field(team, 1);
  loss_value_ = value;
  for (Index j = 0; j < width_; ++j) {
    const Scalars &k0 = k(0, j), &k1 = k(1, j);
    const double direction =
        static_cast<double>((ConstVectorMap<T>(K(1, j), dim_) - ConstVectorMap<T>(K(0, j), dim_)).norm());
    d2 = std::max({d2, direction / h0, std::abs(k1.l - k0.l) / h0, std::abs(k1.rho - k0.rho) / h0});
  }
  const double steepest = std::max(d1, d2) / options_.rtol;
  const double h1 = steepest > 0.0 ? std::pow(0.01 / steepest, 1.0 / method_.control_order) : span;
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
      if (method_.control_order > 0 && size_ > 0.99 * h) {
        const double factor = grow(error, last_error_, method_.control_order);
        next_ = h * (rejected ? std::min(factor, 1.0) : factor);
        last_error_ = std::max(error, 1e-4);
      }
      return FlowStatus::ok;
    }
    if (method_.control_order == 0) return FlowStatus::not_finite;
    ++rejected_;
    h = size_ * shrink(error, method_.control_order);
    if (!std::isfinite(error) && h < shortest_step(std::max(std::abs(begin_), 1e-300))) return FlowStatus::not_finite;
  }
}

template <class T>
double Flow<T>::loss(Team& team) {
  start(team);
  return loss_value_;
}

// ---- between the ends of a step

// Evaluates the stages that only dense output needs.
template <class T>
void Flow<T>::complete(Team& team) {
  if (has_dense_) return;
  for (std::size_t r = 0; r < method_.more.size(); ++r) {
    const int slot = method_.stages() + 1 + static_cast<int>(r);
    build(team, method_.more[r].data(), slot);
    field(team, slot);
  }
  has_dense_ = true;
}

// Weights of the stages at t.
template <class T>
std::vector<double> Flow<T>::weights_at(Team& team, double t) {
  if (!has_step_) return {};
  if (t == end_) return method_.b;
  complete(team);
  const double theta = (t - begin_) / size_;
  std::vector<double> weights;
  for (const std::vector<double>& powers : method_.dense) {
    double weight = 0.0;
    for (auto power = powers.rbegin(); power != powers.rend(); ++power) weight = (weight + *power) * theta;
    weights.push_back(weight);
  }
  return weights;
}

template <class T>
void Flow<T>::interpolate(Team& team, double t, T* U, double* log_norm, double* sign, double* log_abs_v) {
  const std::vector<double> weights = weights_at(team, t);
  const auto count = static_cast<int>(weights.size());
  team.parallel_for(width_, [&](Index j) {
    double* phi = phi_.data() + j * dim_;
    combine(j, weights.data(), count, phi);
    const double norm = row_norm(phi, dim_), inverse = inverse_of(norm);
    for (Index d = 0; d < dim_; ++d) U[j * dim_ + d] = static_cast<T>(phi[d] * inverse);
    network_scalars(j, combine_scalars(j, weights.data(), count), norm, log_norm + j, sign + j, log_abs_v + j);
  });
}

template <class T>
int Flow<T>::degree() const {
  std::size_t most = 0;
  for (const std::vector<double>& powers : method_.dense) most = std::max(most, powers.size());
  return static_cast<int>(most);
}

template <class T>
void Flow<T>::polynomials(Team& team, T* phi, double* l, double* rho) {
  complete(team);
  const Index last = degree(), count = static_cast<Index>(method_.dense.size());
  const auto weight = [&](Index m, Index q) {  // of stage m in the coefficient of theta^q, q >= 1
    const std::vector<double>& powers = method_.dense[at(m)];
    return q <= static_cast<Index>(powers.size()) ? size_ * powers[at(q - 1)] : 0.0;
  };
  team.parallel_for(width_, [&](Index j) {
    double* sum = phi_.data() + j * dim_;
    for (Index q = 0; q <= last; ++q) {
      Scalars scalars = q == 0 ? now_[at(j)] : Scalars{0.0, 0.0};
      if (q == 0) std::copy_n(U_.data() + j * dim_, dim_, sum);
      if (q > 0) std::fill_n(sum, dim_, 0.0);
      for (Index m = 0; q > 0 && m < count; ++m) {
        const double share = weight(m, q);
        if (share == 0.0) continue;
        const T* km = K(static_cast<int>(m), j);
        for (Index d = 0; d < dim_; ++d) sum[d] += share * static_cast<double>(km[d]);
        scalars.l += share * k(static_cast<int>(m), j).l;
        scalars.rho += share * k(static_cast<int>(m), j).rho;
      }
      T* out = phi + (q * width_ + j) * dim_;
      for (Index d = 0; d < dim_; ++d) out[d] = static_cast<T>(sum[d]);
      l[q * width_ + j] = scalars.l;
      rho[q * width_ + j] = scalars.rho;
    }
  });
}

template class Flow<float>;
template class Flow<double>;

}  // namespace preluflow
