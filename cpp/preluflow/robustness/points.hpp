// Points as a canonical network sees them: in units of their own, with the values of all neurons.
#pragma once

#include <vector>

#include "preluflow/robustness/canonical.hpp"

namespace preluflow {

// A unit of length, size 2^exponent, such that no square of lengths in it leaves float64.
struct Unit {
  double size = 1.0;
  int exponent = 0;

  double log() const;
  double back(double length) const;                        // a length in this unit, in that of x
  double certified(double radius) const;                   // the same, not larger (docs/mathematics.md#rounding-units)
  void back(const double* d, Index D, double* out) const;  // perturbations (D,)
  void in_unit(const double* d, Index D, double* out) const;  // and into this unit
};

// ||d|| of d (D,), infinite only where it is beyond float64.
double length_of(const double* d, Index D);

// Rows x' = x - center in units of their own: ||x'|| where the network is homogeneous, at least a millionth of the
// largest offset where there are offsets, 1 for tanh.
class Points {
 public:
  // X (n, D)
  Points(const Canonical& canonical, const double* X, Index n);

  Point at(Index i) const;
  const Unit& unit(Index i) const { return unit_[static_cast<std::size_t>(i)]; }
  const double* direction(Index i) const { return e_.data() + i * canonical_.dim(); }  // (D,) x' in its unit

 private:
  void take(Index i, const double* x);

  const Canonical& canonical_;
  Vector<double> e_, z_;                           // (n, D), (n, h); not set to zeros first, as vectors are
  std::vector<double> slack_, length_, products_;  // products_: <x,u_j>, where a norm term needs it
  std::vector<Unit> unit_;
  bool one_slack_ = false;  // the same for all points
};

}  // namespace preluflow
