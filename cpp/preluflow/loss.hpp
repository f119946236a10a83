// The losses of a point, without the mean over the data (docs/mathematics.md#losses). Of one output f and a label y
// = +-1, or, for the squared loss, any target:
//   squared (y - f)^2      exponential exp(-y f)      logistic log(1 + exp(-y f))
// and of C outputs F and a row Y of targets, or of the weights of the classes, which sum to 1:
//   squared |Y - F|^2      cross-entropy log sum_c exp(F_c) - <Y,F>
#pragma once

#include <algorithm>
#include <cmath>

#include "preluflow/types.hpp"

namespace preluflow {

enum class Loss { squared, exponential, logistic, cross_entropy };

inline double loss_value(Loss loss, double y, double f) {
  switch (loss) {
    case Loss::squared:
      return (y - f) * (y - f);
    case Loss::exponential:
      return std::exp(-y * f);
    case Loss::logistic:
    case Loss::cross_entropy:  // of several outputs only
      break;
  }
  const double m = y * f;
  return m > 0 ? std::log1p(std::exp(-m)) : std::log1p(std::exp(m)) - m;
}

// -d loss / d f: what the paper's r_i is before its factor 1/n.
inline double loss_residual(Loss loss, double y, double f) {
  switch (loss) {
    case Loss::squared:
      return 2.0 * (y - f);
    case Loss::exponential:
      return y * std::exp(-y * f);
    case Loss::logistic:
    case Loss::cross_entropy:
      break;
  }
  return y / (1.0 + std::exp(y * f));
}

// The loss of C outputs F (C,) for targets y (C,), and -d loss / d F in residual (C,), which may be null; C = 1 is the
// above.
inline double row_loss(Loss loss, const double* y, const double* F, Index outputs, double* residual) {
  if (loss == Loss::cross_entropy && outputs > 1) {
    const double largest = *std::max_element(F, F + outputs);
    double sum = 0.0, along = 0.0;
    for (Index c = 0; c < outputs; ++c) {
      sum += std::exp(F[c] - largest);
      along += y[c] * (F[c] - largest);
    }
    for (Index c = 0; residual != nullptr && c < outputs; ++c) residual[c] = y[c] - std::exp(F[c] - largest) / sum;
    return std::log(sum) - along;
  }
  double total = 0.0;
  for (Index c = 0; c < outputs; ++c) {
    total += loss_value(loss, y[c], F[c]);
    if (residual != nullptr) residual[c] = loss_residual(loss, y[c], F[c]);
  }
  return total;
}

}  // namespace preluflow
