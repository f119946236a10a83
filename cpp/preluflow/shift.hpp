// One power of two for many numbers.
#pragma once

#include <cmath>
#include <cstdlib>

namespace preluflow {

// std::ldexp by one exponent: a product, which rounds as it does, where 2^exponent is a normal number.
class Shift {
 public:
  explicit Shift(int exponent)
      : exponent_(exponent), factor_(std::abs(exponent) <= 1022 ? std::ldexp(1.0, exponent) : 0.0) {}
  double operator()(double value) const { return factor_ > 0.0 ? value * factor_ : std::ldexp(value, exponent_); }

 private:
  int exponent_;
  double factor_;
};

}  // namespace preluflow
