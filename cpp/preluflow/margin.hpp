// How far a point is from the decision boundary of f(x) = sum_j sign_j a_j sigma(<x,u_j>)^p: certified and attacked.
//
// For neurons S of one sign g_S(x) = (sum_S a_j sigma(<x,u_j>)^p)^(1/p) is sublinear, and y f > 0 iff g_own > g_rival.
//
//   certificate  G = sum_S a_i (sigma_i/g_S)^(p-1) u_i, so <G,x> = g_S(x), for a subset S of the own neurons; then
//                radius >= [g_S - g_T]_+ / min(||G|| + L_T, sqrt(||G||^2 + L_T^2 + 2 g_T(-G))),  T all rivals
//   attack       the shortest d with y f(x + d) <= 0 found: along swaps of an own group of neurons for a rival one,
//   then
//                d parallel to -grad(y f)(x + d), which the shortest is
//
// Everything needs inner products only: with d = sum_j beta_j u_j, <x+d,u> = z + C beta and ||d||^2 = beta C beta with
// the neurons' Gram matrix C (h, h), so that the dimension drops out. (mathematics.md, sections 7 and 8.)
#pragma once

#include <cstdint>
#include <vector>

#include "preluflow/parallel.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// A view. Neurons with a = 0 are left out beforehand. Groups are neurons of one sign with nearly one direction.
struct MarginNetwork {
  const double* gram;     // (h, h) <u_i, u_j>
  const double* a;        // (h,) > 0
  const double* sign;     // (h,) +-1
  Index width;            // h
  double p;               // >= 1
  double lipschitz[2];    // L of the positive and of the negative neurons
  const Index* group_of;  // (h,) 0 .. groups-1
  Index groups;
};

// z (n, h) = <x_i, u_j>, y (n,), norms (n,) = ||x_i||. Writes lower (n,).
void certify(Team& team, const MarginNetwork& net, const double* z, const double* y, const double* norms, Index n,
             double* lower);

struct AttackOptions {
  int starts;    // swaps tried
  int restarts;  // random starts, seeded by (seed, first + i)
  int steps;     // refinements of each
  std::uint64_t seed;
  Index first;  // number of the first point
};

// norms (n,) = ||x_i||; lower (n,): certified radii, where an attack close to them is good enough, and one far from
// them has more tried. Writes upper (n,), infinite where nothing was found, and beta (n, h), the witness's
// coefficients.
void attack(Team& team, const MarginNetwork& net, const double* z, const double* y, const double* norms,
            const double* lower, Index n, const AttackOptions& options, double* upper, double* beta);

}  // namespace preluflow
