// The flow between the ends of its last step: at a time within, and as polynomials (docs/mathematics.md#polar-flow).

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/flow.hpp"

namespace preluflow {

// Evaluates the stages that only dense output needs, or does without them. Directions are turned round at stages of
// order 8 where weights grow e^9 times within a step. The step's ends do not suffer, but the further stages are not
// held by the error estimate: norms there may come out so large that outputs explode. Such a step is known by Hermite's
// cubic through its ends.
template <class T>
void Flow<T>::complete(Team& team) {
  constexpr double kMost = 8.0;
  if (has_dense_) return;
  double most = 0.0;
  for (Index j = 0; !method().more.empty() && j < width_; ++j) most = std::max(most, std::abs(growth(j)));
  bridged_ = most > kMost;
  for (std::size_t r = 0; !bridged_ && r < method().more.size(); ++r) {
    const int slot = method().stages() + 1 + static_cast<int>(r);
    build(team, method().more[r].data(), slot);
    field(team, slot);
  }
  has_dense_ = true;
}

// Weights of the stages at t.
template <class T>
std::vector<double> Flow<T>::weights_at(Team& team, double t) {
  if (!has_step_) return {};
  if (t == end_) return method().b;
  complete(team);
  const double theta = (t - begin_) / size_;
  std::vector<double> weights;
  for (const std::vector<double>& powers : dense()) {
    double weight = 0.0;
    for (auto power = powers.rbegin(); power != powers.rend(); ++power) weight = (weight + *power) * theta;
    weights.push_back(weight);
  }
  return weights;
}

// By how much log |phi_j| grows within the step.
template <class T>
double Flow<T>::growth(Index j) const {
  if (!inner_moves() || raw() || dead_[at(j)]) return 0.0;
  double rate = options_.weight_decay;
  for (int m = 0; m < method().stages(); ++m) rate += method().b[at(m)] * k(m, j)[0];
  return size_ * rate;
}

// Whether that is so much that polynomials do not follow |phi_j|: they are those of an exponential function, and pass 0
// between the ends of a step by whose end |phi_j| has grown e^5 times or more (for the least able).
template <class T>
bool Flow<T>::outgrows(Index j) const {
  constexpr double kMost =
      3.0;  // here all polynomials are within a half of it, and those of order 5 within a twentieth
  return std::abs(growth(j)) > kMost;
}

// The direction of such a neuron between the ends of the step: Hermite's cubic through u and u' there, of degree less
// than 3 the chord. Slopes are held to three chords, so that it runs from end to end however stiff the field is.
// Writes coefficients of theta^1 .. theta^3, each (dim,), `apart` from one to the next; phi_ of j is scratch.
template <class T>
template <class Out>
void Flow<T>::turn(Index j, Out* out, Index apart) {
  constexpr double kSteepest = 3.0;  // chords; monotone up to here (Fritsch and Carlson, 1980)
  const int s = method().stages();
  double* end = phi_.data() + j * dim_;
  const double inverse = inverse_of(combine(j, method().b.data(), s, now(j)[0]));
  const double* u = U_.data() + j * dim_;
  const T *first = K(0, j), *last = K(s, j);
  double along[2] = {}, square[2] = {}, chord = 0.0;
  for (Index d = 0; d < dim_; ++d) {
    end[d] *= inverse;
    along[0] += u[d] * static_cast<double>(first[d]);
    along[1] += end[d] * static_cast<double>(last[d]);
    chord += (end[d] - u[d]) * (end[d] - u[d]);
  }
  const auto slope = [&](int which, Index d) {
    return size_ * (which == 0 ? static_cast<double>(first[d]) - along[0] * u[d]
                               : inverse * (static_cast<double>(last[d]) - along[1] * end[d]));
  };
  for (Index d = 0; d < dim_; ++d)
    for (int which : {0, 1}) square[which] += slope(which, d) * slope(which, d);
  double scale[2];
  for (int which : {0, 1}) {
    const double most = kSteepest * std::sqrt(chord), found = std::sqrt(square[which]);
    scale[which] = found > most ? most / found : 1.0;
  }
  const bool cubic = degree() >= 3;
  for (Index d = 0; d < dim_; ++d) {
    const double whole = end[d] - u[d];
    const double m0 = cubic ? scale[0] * slope(0, d) : whole, m1 = cubic ? scale[1] * slope(1, d) : whole;
    out[d] = static_cast<Out>(m0);
    if (!cubic) continue;
    out[apart + d] = static_cast<Out>(3.0 * whole - 2.0 * m0 - m1);
    out[2 * apart + d] = static_cast<Out>(m0 + m1 - 2.0 * whole);
  }
}

// phi_j at theta by turn(), and |phi_j|.
template <class T>
double Flow<T>::turned(Index j, double theta, std::vector<double>& room) {
  room.assign(3 * at(dim_), 0.0);
  turn(j, room.data(), dim_);
  double* phi = phi_.data() + j * dim_;
  const double* u = U_.data() + j * dim_;
  for (Index d = 0; d < dim_; ++d)
    phi[d] = u[d] + theta * (room[at(d)] + theta * (room[at(dim_ + d)] + theta * room[at(2 * dim_ + d)]));
  return row_norm(phi, dim_);
}

template <class T>
void Flow<T>::interpolate(Team& team, double t, const NetworkArraysOut<T>& out) {
  const std::vector<double> weights = weights_at(team, t);
  const auto count = static_cast<int>(weights.size());
  combine_bias(weights.data(), count, out.output_bias);
  if (!inner_moves()) stage_.U.copy_to(out.U);
  team.parallel_for(width_, [&](Index j) {
    combine_scalars(j, weights.data(), count, stage(j));
    const bool between = has_step_ && t != end_ && outgrows(j);
    std::vector<double> room;
    const double norm =
        between ? turned(j, (t - begin_) / size_, room) : combine(j, weights.data(), count, stage(j)[0]);
    const double inverse = inverse_of(norm);
    for (Index k = j * dim_; inner_moves() && k < (j + 1) * dim_; ++k) out.U[k] = static_cast<T>(phi_[at(k)] * inverse);
    network_scalars(j, stage(j), norm, out.log_norm + j, out.sign + j * outputs_, out.log_abs_v + j * outputs_);
  });
}

template <class T>
int Flow<T>::degree() const {
  std::size_t most = 0;
  for (const std::vector<double>& powers : method().dense) most = std::max(most, powers.size());
  return static_cast<int>(most);
}

template <class T>
void Flow<T>::polynomials(Team& team, T* phi, double* l, double* rho, double* output_bias) {
  complete(team);
  const Index last = degree(), count = static_cast<Index>(dense().size());
  const auto weight = [&](Index m, Index q) {  // of stage m in the coefficient of theta^q, q >= 1
    const std::vector<double>& powers = dense()[at(m)];
    return q <= static_cast<Index>(powers.size()) ? size_ * powers[at(q - 1)] : 0.0;
  };
  const auto biases = static_cast<Index>(bias_.size());
  for (Index q = 0; q <= last; ++q)
    for (Index c = 0; c < biases; ++c) {
      double sum = q == 0 ? bias_[at(c)] : 0.0;
      for (Index m = 0; q > 0 && m < count; ++m) sum += weight(m, q) * kb(static_cast<int>(m), c);
      output_bias[q * biases + c] = sum;
    }
  team.parallel_for(width_, [&](Index j) {
    const bool turns = outgrows(j);
    for (Index q = 0; q <= last; ++q) {
      double* scalars = stage(j);
      for (Index i = 0; i < parts_; ++i) scalars[i] = q == 0 ? now(j)[i] : 0.0;
      if (q == 0 && dead_[at(j)]) scalars[0] = -std::numeric_limits<double>::infinity();
      const bool sums = inner_moves() && !turns;
      double* sum = sums ? phi_.data() + j * dim_ : nullptr;
      for (Index d = 0; sums && d < dim_; ++d) sum[d] = q == 0 ? U_[at(j * dim_ + d)] : 0.0;
      for (Index m = 0; q > 0 && m < count; ++m) {
        const double share = weight(m, q);
        if (share == 0.0) continue;
        const double* km = k(static_cast<int>(m), j);
        for (Index i = 0; i < parts_; ++i) scalars[i] += share * km[i];
        const T* Km = sums ? K(static_cast<int>(m), j) : nullptr;
        for (Index d = 0; sums && d < dim_; ++d) sum[d] += share * static_cast<double>(Km[d]);
      }
      l[q * width_ + j] = scalars[0];
      if (outer_moves()) std::copy_n(scalars + 1, outputs_, rho + (q * width_ + j) * outputs_);
      T* out = phi + (q * width_ + j) * dim_;
      for (Index d = 0; sums && d < dim_; ++d) out[d] = static_cast<T>(sum[d]);
    }
    if (!turns) return;
    for (Index q = 0; q <= last; ++q)
      for (Index d = 0; d < dim_; ++d)
        phi[(q * width_ + j) * dim_ + d] = q == 0 ? static_cast<T>(U_[at(j * dim_ + d)]) : T(0);
    turn(j, phi + (width_ + j) * dim_, width_ * dim_);
  });
}

template void Flow<float>::interpolate(Team&, double, const NetworkArraysOut<float>&);
template void Flow<double>::interpolate(Team&, double, const NetworkArraysOut<double>&);
template int Flow<float>::degree() const;
template int Flow<double>::degree() const;
template void Flow<float>::polynomials(Team&, float*, double*, double*, double*);
template void Flow<double>::polynomials(Team&, double*, double*, double*, double*);

}  // namespace preluflow
