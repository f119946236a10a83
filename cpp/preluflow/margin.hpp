// How far a point is from the decision boundary of f(x) = sum_j sign_j a_j sigma(<x,u_j>)^p: what every certificate and
// the attack share, and the fast certificate.
//
// For neurons S of one sign g_S(x) = (sum_S a_j sigma(<x,u_j>)^p)^(1/p) is sublinear, and y f > 0 iff g_own > g_rival.
//
//   certificate  G = sum_S a_i (sigma_i/g_S)^(p-1) u_i, so <G,x> = g_S(x), for a subset S of the own neurons; then
//                radius >= [g_S - g_T]_+ / min(||G|| + L_T, sqrt(||G||^2 + L_T^2 + 2 g_T(-G))),  T all rivals
//
// Everything needs inner products only: with d = sum_j beta_j u_j, <x+d,u> = z + C beta and ||d||^2 = beta C beta with
// the neurons' Gram matrix C (h, h), so that the dimension drops out.
// (docs/mathematics.md#sides.)
//
// **Scale.** f is homogeneous, and multiplying all a_j changes no sign: points are unit vectors here, z_j cosines,
// radii in units of ||x||, and contributions come as logarithms and are taken relative to the largest own term at the
// point. No power of anything tiny is ever compared with another one (docs/mathematics.md#scale).
//
// **Rounding.** A cosine (and an entry of C) is known within `slack`, a contribution within a factor 1 +- `doubt`. Own
// values are lowered by that, rivals' raised, before anything else; what follows errs by a few units of rounding times
// the number of terms, and is taken off as such (docs/mathematics.md#lowered-values).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "preluflow/parallel.hpp"
#include "preluflow/relu_power.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// A view. Neurons with a = 0 are left out beforehand. Groups are neurons of one sign with nearly one direction.
struct MarginNetwork {
  const double* gram;       // (h, h) <u_i, u_j>
  const double* log_a;      // (h,) finite
  const double* sign;       // (h,) +-1
  Index width;              // h
  double p;                 // >= 1
  double log_lipschitz[2];  // log L of the positive and of the negative neurons; -inf where there is none
  double slack;             // of a cosine and of an entry of gram, absolute
  double doubt;             // of a contribution, relative
  const Index* group_of;    // (h,) 0 .. groups-1
  Index groups;
  const double* rows;  // (h, rank) coordinates of the neurons, or null with rank 0
  Index rank;
};

// sum_j +-a_j sigma(s_j)^p, own +, up to a positive factor, and the sum of the terms' sizes to hold it against; the
// terms as logarithms, relative to the largest: right at any scale, where powers would leave float64. s(j) are the
// values, weight(j) is added to log a_j.
struct Balance {
  double difference, size;
  double logs;  // the largest of their logarithms' sizes, each of which is right within units of rounding of its own
};
template <class Values, class Weights>
Balance balance_by_logs(const MarginNetwork& net, double y, const Values& s, const Weights& weight) {
  double most = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < net.width; ++j)
    if (s(j) > 0.0) most = std::max(most, net.log_a[j] + weight(j) + net.p * std::log(s(j)));
  Balance sum{0.0, 0.0, 0.0};
  if (!std::isfinite(most)) return sum;
  for (Index j = 0; j < net.width; ++j) {
    if (!(s(j) > 0.0)) continue;
    const double log_term = net.log_a[j] + weight(j) + net.p * std::log(s(j)), term = std::exp(log_term - most);
    sum.logs = std::max(sum.logs, std::abs(net.p * std::log(s(j))) + std::abs(log_term));
    sum.difference += net.sign[j] == y ? term : -term;
    sum.size += term;
  }
  return sum;
}

// A network as a point sees it: contributions in units in which the largest own term at the point is 1.
struct Scaled {
  using Row = Eigen::Array<double, 1, Eigen::Dynamic>;

  explicit Scaled(Index width) : side(width), signed_a(width), alpha(width) {}

  // z (h,) cosines; false if no own neuron is active there. What slack leaves of a term counts, if it leaves any: a
  // neuron that is active by rounding alone does not set the scale.
  bool at(const MarginNetwork& net, const double* z, double y);

  double level = 0.0;  // log of that term
  double label = 0.0;  // y
  Row side;            // (h,) +1 own, -1 rival
  Row signed_a;        // (h,) side exp(log_a - level): 0 or infinite where that leaves float64
  Row alpha;           // (h,) |signed_a|^(1/p)
};

// y f at values s(j) = <x,u_j>, up to a positive factor that is the same wherever powers stay within float64; `raised`
// by so much of the terms' sizes, so that what rounding alone makes negative is not.
template <class Values>
double balance(const MarginNetwork& net, const Scaled& scaled, const Values& s, double raised = 0.0) {
  constexpr double kLeast = 1e-200, kMost = 1e300;
  double difference = 0.0, size = 0.0;
  const double* a = scaled.signed_a.data();
  if (net.p == 3.0) {
    for (Index j = 0; j < net.width; ++j) {
      const double t = std::max(s(j), 0.0), term = a[j] * (t * t * t);
      difference += term;
      size += std::abs(term);
    }
  } else {
    for (Index j = 0; j < net.width; ++j) {
      const double t = s(j);
      if (!(t > 0.0)) continue;
      const double term = a[j] * power(t, net.p);
      difference += term;
      size += std::abs(term);
    }
  }
  if (size > kLeast && size < kMost) return difference + raised * size;
  const Balance exact = balance_by_logs(net, scaled.label, s, [](Index) { return 0.0; });
  return exact.difference + raised * exact.size;
}

// Whether points are errors with room to spare: y f <= 0 even with own cosines raised and rivals' lowered by slack,
// contributions likewise by doubt; or, without `room`, since no own neuron is active. z (n, h), y (n,); writes (n,) 0
// or 1.
void errors(const MarginNetwork& net, const double* z, const double* y, Index n, bool room, std::uint8_t* out);

// z (n, h) cosines <x_i,u_j>/||x_i||, y (n,). Writes lower (n,) in units of ||x_i||, and correct (n,): y f > 0.
void certify(Team& team, const MarginNetwork& net, const double* z, const double* y, Index n, double* lower,
             std::uint8_t* correct);

}  // namespace preluflow
