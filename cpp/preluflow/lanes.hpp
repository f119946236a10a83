// Sums and maxima in eight interleaved parts on every instruction set: loops with one wait for each addition, and their
// bits would depend on how a compiler cuts them.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "preluflow/types.hpp"

namespace preluflow {

using Lanes = Eigen::Array<double, 8, 1>;

// Reads v[first] ... v[first + 7].
struct LaneReader {
  Index first;
  Lanes operator()(const double* v) const { return Eigen::Map<const Lanes>(v + first); }
};

// Reads the `count` numbers that are left, and zeros.
struct LastLanes {
  Index first, count;
  Lanes operator()(const double* v) const {
    Lanes out = Lanes::Zero();
    std::copy_n(v + first, count, out.data());
    return out;
  }
};

// Calls step(reader) for numbers 0 ... n - 1, eight at a time. Zeros stand where there are none.
template <class Step>
void for_lanes(Index n, const Step& step) {
  Index i = 0;
  for (; i + 8 <= n; i += 8) step(LaneReader{i});
  if (i < n) step(LastLanes{i, n - i});
}

inline double total(const Lanes& v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

inline double sum_of_squares(const double* v, Index n) {
  Lanes sum = Lanes::Zero();
  for_lanes(n, [&](const auto& at) { sum += at(v).square(); });
  return total(sum);
}

inline double largest_size(const double* v, Index n) {
  Lanes most = Lanes::Zero();
  for_lanes(n, [&](const auto& at) { most = most.max(at(v).abs()); });
  return most.maxCoeff();
}

}  // namespace preluflow
