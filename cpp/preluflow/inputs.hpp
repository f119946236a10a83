// What a network sees of a row x (D,): x' = x - center, with a 1 after it if neurons have trained offsets, and the
// factor kappa = ||x'||^-(p-1) of the normalised input, 0 at x' = 0 (docs/mathematics.md#general-networks).
#pragma once

#include <cmath>

#include "preluflow/types.hpp"

namespace preluflow {

struct Inputs {
  const double* center = nullptr;  // (D,), or null
  bool constant = false;           // whether a 1 is appended
  double power = 0.0;              // of 1 / ||x'|| in kappa

  bool as_they_are() const { return center == nullptr && !constant && power == 0.0; }
  Index seen(Index dim) const { return dim + (constant ? 1 : 0); }

  // Writes what is seen of x; returns kappa.
  template <class T>
  double see(const T* x, Index dim, T* out) const {
    double square = 0.0;
    for (Index d = 0; d < dim; ++d) {
      const double value = static_cast<double>(x[d]) - (center == nullptr ? 0.0 : center[d]);
      out[d] = static_cast<T>(value);
      square += value * value;
    }
    if (constant) out[dim] = T(1);
    if (power == 0.0) return 1.0;
    return square > 0.0 ? std::pow(square, -0.5 * power) : 0.0;
  }
};

}  // namespace preluflow
