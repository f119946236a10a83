// Points as a canonical network sees them: in units of their own, with the values of all neurons.
#pragma once

#include <vector>

#include "preluflow/robustness/canonical.hpp"

namespace preluflow {

// Rows x' = x - center = size 2^exponent e: no square of theirs leaves float64. The unit, size 2^exponent, is ||x'||
// where the network is homogeneous; at least a millionth of the largest offset where there are offsets; 1 for tanh.
class Points {
 public:
  // X (n, D), which must outlive this.
  Points(const Canonical& canonical, const double* X, Index n);

  Point at(Index i) const;
  const double* direction(Index i) const { return e_.data() + i * canonical_.dim(); }  // e (D,)
  const double* row(Index i) const { return X_ + i * canonical_.dim(); }

  double in_units_of_x(Index i, double length) const;       // a length in the point's unit
  double certified(Index i, double radius) const;           // the same, not larger
  void perturbation(Index i, const double* d, double* out) const;  // (D,) in the units of x
  void in_own_unit(Index i, const double* d, double* out) const;   // and back
  double length_of(const double* d) const;                         // of (D,), inf only where it is beyond float64

 private:
  void set_unit(Index i);

  const Canonical& canonical_;
  const double* X_;
  Index n_;
  std::vector<double> e_, z_, slack_, size_, length_;
  std::vector<int> exponent_;
  bool one_slack_ = false;  // the same for all points
};

}  // namespace preluflow
