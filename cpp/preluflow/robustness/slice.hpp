// Where errors are a cone, perturbations may be looked for in the slice <y, x> = ||x||^2 alone
// (docs/mathematics.md#slice): x + e, where e is longer than the perturbation to the nearest point of its ray.
#pragma once

#include <algorithm>
#include <cmath>

#include "preluflow/types.hpp"

namespace preluflow {

class Slice {
 public:
  // `reach` and the witness d (or 0) as perturbations; without `cone`, or where the slice would be too wide, it is all
  // of space and lengths are what they are.
  Slice(const Eigen::VectorXd& x, double reach, const Eigen::VectorXd& d, bool cone)
      : x_(Eigen::VectorXd::Zero(d.size())), d_(d), reach_(reach) {
    constexpr double kMost = 0.95;  // of ||x||
    const double square = x.squaredNorm(), size = std::sqrt(square), along = square + x.dot(d);
    if (!cone || !(reach < kMost * size) || !(along > 0.0)) return;
    x_ = x;
    square_ = square;
    d_ = (x + d) * (square / along) - x;
    reach_ = reach / std::sqrt((1.0 - reach / size) * (1.0 + reach / size));
    if (d.squaredNorm() > 0.0) reach_ = std::min(reach_, d_.norm());
  }

  const Eigen::VectorXd& through() const { return x_; }  // x, or 0
  const Eigen::VectorXd& witness() const { return d_; }  // d there
  double reach() const { return reach_; }

  // A length there as that of a perturbation, and the shortest perturbation to the ray of x + e.
  double length(double e) const { return square_ > 0.0 ? e / std::sqrt(1.0 + e * e / square_) : e; }
  Eigen::VectorXd perturbation(const Eigen::VectorXd& e) const {
    if (!(square_ > 0.0)) return e;
    const Eigen::VectorXd y = x_ + e;
    return y * (x_.dot(y) / y.squaredNorm()) - x_;
  }

 private:
  Eigen::VectorXd x_, d_;
  double reach_, square_ = 0.0;
};

}  // namespace preluflow
