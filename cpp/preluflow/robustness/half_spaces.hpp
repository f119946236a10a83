// Linear inequalities on a perturbation, and what their multipliers prove about its length.
#pragma once

#include "preluflow/types.hpp"

namespace preluflow {

// ||v||, also where its squares would leave float64.
double length_of(const Eigen::VectorXd& v);

// Half-spaces <c_i, d> <= -e_i in R^dim, ||c_i|| = 1 or 0, with their inner products; `rounding` is what float64 may
// have done to e and c, within the reach that is asked about.
class HalfSpaces {
 public:
  explicit HalfSpaces(Index dim) : c_(dim, 16), M_(16, 16), e_(16), rounding_(16) {}

  void clear() { count_ = 0; }
  void add(const Eigen::Ref<const Eigen::VectorXd>& c, double e, double rounding);
  Index count() const { return count_; }

  // The shortest d that satisfies them all, moved inwards by `inside`, and its multipliers (min_norm_qp.hpp).
  Eigen::VectorXd shortest(double scale, double inside, const Eigen::VectorXd& start, Eigen::VectorXd& d) const;

  // A bound from below on the length of every d, ||d|| <= reach, that satisfies them all; the weights prove it,
  // whatever they are (docs/mathematics.md#any-weights).
  double bound(const Eigen::VectorXd& weights, double reach) const;

 private:
  Eigen::MatrixXd c_, M_;
  Eigen::VectorXd e_, rounding_;
  Index count_ = 0;
};

}  // namespace preluflow
