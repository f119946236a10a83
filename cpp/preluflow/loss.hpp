// The three losses of a label y = +-1 and an output f, without the mean over the data (docs/mathematics.md#losses):
//   squared (y - f)^2      exponential exp(-y f)      logistic log(1 + exp(-y f))
#pragma once

#include <cmath>

namespace preluflow {

enum class Loss { squared, exponential, logistic };

inline double loss_value(Loss loss, double y, double f) {
  switch (loss) {
    case Loss::squared:
      return (y - f) * (y - f);
    case Loss::exponential:
      return std::exp(-y * f);
    case Loss::logistic:
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
      break;
  }
  return y / (1.0 + std::exp(y * f));
}

}  // namespace preluflow
