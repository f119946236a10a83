// The margin of one class against another, m(x) = sum_j side_j a_j phi(<x,u_j> + o_j), as every certificate and the
// attack see it: an error is m <= 0. phi is sigma^p, or tanh.
//
// Directions u_j are shared by all pairs of classes, a_j and side_j are a pair's own. What is known of a point are the
// values z_j = <x,u_j> + o_j; a perturbation d changes them by <d,u_j>, so that offsets appear nowhere else. With d =
// sum_j beta_j u_j, <d,u> = C beta and ||d||^2 = beta C beta with the neurons' Gram matrix C (h, h): the dimension
// drops out (docs/mathematics.md#sides).
//
// **Scale.** sigma^p is homogeneous, and multiplying all a_j changes no sign: lengths are in a unit of the point's own
// (||x|| where there are no offsets: values are cosines then), contributions come as logarithms and are taken relative
// to the largest own term at the point. No power of anything tiny is ever compared with another one
// (docs/mathematics.md#scale).
//
// **Rounding.** A value is known within its `slack`, an entry of C within that of the neurons, a contribution within a
// factor 1 +- `doubt`. Own values are lowered by that, rivals' raised, before anything else; what follows errs by a few
// units of rounding times the number of terms, and is taken off as such (docs/mathematics.md#lowered-values).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

enum class Curve { power, tanh };

// What all pairs of classes share. A view.
struct Neurons {
  Curve curve;         // phi
  const double* gram;  // (h, h) <u_i, u_j>; for powers u_j are unit vectors, or 0: constants
  Index width;         // h
  double p;            // >= 1
  double slack;        // of an entry of gram, absolute
  const double* rows;  // (h, rank) coordinates of the neurons for the attack, or null with rank 0
  Index rank;
  bool homogeneous;                // no offsets: the origin is an error, radii are at most ||x||, errors form a cone
  const double* length = nullptr;  // (h,) ||u_j||, of tanh; null: 1, or 0 where the diagonal of gram is 0
};

// The margin of one class against another: own neurons speak for the first, rivals for the second. A view.
struct Pair {
  const double* log_a;   // (h,) -inf: no part of this pair
  const double* side;    // (h,) +1 own, -1 rival
  const double* doubt;   // (h,) of a contribution, relative
  double most_doubt;     // the largest of them; for tanh relative to the largest contribution
  double log_lipschitz;  // log L of the rivals; -inf where there is none
  // With normalised input: norm_side e^log_norm_weight ||x||^(p-1) is added to m. 0: nothing is.
  double norm_side = 0.0, log_norm_weight = 0.0;
};

// A point, in a unit of length of its own: that of ||x|| where the network is homogeneous, 1 for tanh. Lengths, values
// and perturbations are in this unit, m is in that unit's p-th power. A view.
struct Point {
  const double* z;      // (h,) <x,u_j> + o_j
  const double* slack;  // (h,) how far each of them may be off
  double length = 1.0;  // ||x||
  double log_unit =
      0.0;  // log of the unit: the norm's term is norm_side e^(log_norm_weight - log_unit) ||x + d||^(p-1)
  // What the attack needs of x itself where there is a norm's term: its coordinates where Neurons::rows are (rank,),
  // and <x,u_j> (h,), which is z without the offset.
  const double* x = nullptr;
  const double* products = nullptr;
};

// sum_j +-a_j sigma(s_j)^p, own +, up to a positive factor, and the sum of the terms' sizes to hold it against; the
// terms as logarithms, relative to the largest: right at any scale, where powers would leave float64. s(j) are the
// values, weight(j) is added to log a_j.
struct Balance {
  double difference, size;
  double logs;  // the largest of their logarithms' sizes, each of which is right within units of rounding of its own
  double most;  // the logarithm of the largest term, which is 1 here; -inf where there is none
};
template <class Values, class Weights>
Balance balance_by_logs(const Neurons& net, const Pair& pair, const Values& s, const Weights& weight) {
  double most = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j < net.width; ++j)
    if (s(j) > 0.0) most = std::max(most, pair.log_a[j] + weight(j) + net.p * std::log(s(j)));
  Balance sum{0.0, 0.0, 0.0, most};
  if (!std::isfinite(most)) return sum;
  for (Index j = 0; j < net.width; ++j) {
    if (!(s(j) > 0.0 && std::isfinite(pair.log_a[j]))) continue;
    const double log_term = pair.log_a[j] + weight(j) + net.p * std::log(s(j)), term = std::exp(log_term - most);
    sum.logs = std::max(sum.logs, std::abs(net.p * std::log(s(j))) + std::abs(log_term));
    sum.difference += pair.side[j] > 0.0 ? term : -term;
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
  bool at(const Neurons& net, const Pair& pair, const Point& point);

  double level = 0.0;  // log of that term
  Row side;            // (h,) +1 own, -1 rival
  Row signed_a;        // (h,) side exp(log_a - level): 0 or infinite where that leaves float64
  Row alpha;           // (h,) |signed_a|^(1/p)
};

// y f at values s(j) = <x,u_j>, up to a positive factor that is the same wherever powers stay within float64.
template <class Values>
double balance(const Neurons& net, const Pair& pair, const Scaled& scaled, const Values& s) {
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
  if (size > kLeast && size < kMost) return difference;
  return balance_by_logs(net, pair, s, [](Index) { return 0.0; }).difference;
}

// Log of the size of the norm's term at the point.
double log_norm_term(const Neurons& net, const Pair& pair, const Point& point);

// Whether a point is an error with room to spare: y f <= 0 even with own values raised and rivals' lowered by slack,
// contributions likewise by doubt; or, without `room`, since no own neuron is active.
bool is_error(const Neurons& net, const Pair& pair, const Point& point, bool room);

}  // namespace preluflow
