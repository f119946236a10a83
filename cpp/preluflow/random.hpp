// Random numbers that are the same on every machine and for every number of threads.
#pragma once

#include <cmath>
#include <cstdint>

namespace preluflow {

// SplitMix64 (Steele, Lea, Flood 2014), one stream for each thing that is numbered.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream)
      : state_(seed * 0x9E3779B97F4A7C15ULL + stream * 0xD1B54A32D192ED03ULL) {}
  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  double uniform() {  // in (0, 1)
    std::uint64_t x = (state_ += 0x9E3779B97F4A7C15ULL);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    x ^= x >> 31;
    return (static_cast<double>(x >> 11) + 0.5) * 0x1.0p-53;
  }

 private:
  std::uint64_t state_;
};

}  // namespace preluflow
