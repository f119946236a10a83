// The shortest d with y f(x + d) <= 0 found, in inner products (margin.hpp): along swaps of an own group of neurons for
// a rival one, to faces where own neurons are silent, and from there with d parallel to -grad(y f)(x + d), which the
// shortest is (docs/mathematics.md#attack).
#pragma once

#include <cstdint>

#include "preluflow/interrupt.hpp"
#include "preluflow/margin.hpp"

namespace preluflow {

struct AttackOptions {
  int starts;    // swaps tried
  int restarts;  // random starts, seeded by (seed, first + i)
  int steps;     // refinements of each
  std::uint64_t seed;
  Index first;  // number of the first point
};

// Where results go. Lengths are in units of ||x_i||, infinite where nothing was found; d and corner_d are perturbations
// in the network's coordinates, or as coefficients over its neurons if it has none. A corner is an error in itself
// only: own neurons are silent there and active beyond.
struct Found {
  double* upper;     // (n,)
  double* d;         // (n, frame_size)
  double* corner;    // (n,) shorter than upper, or infinite
  double* corner_d;  // (n, frame_size)
};

Index frame_size(const MarginNetwork& net);  // rank or h

// z (n, h), y (n,), correct (n,) and lower (n,), certified radii, where an attack close to them is good enough, and one
// far from them has more tried. Points that are not correct get upper = 0 only; points left when asked to stop nothing.
void attack(Team& team, const MarginNetwork& net, const double* z, const double* y, const std::uint8_t* correct,
            const double* lower, Index n, const AttackOptions& options, const Interrupt& interrupt, const Found& found);

}  // namespace preluflow
