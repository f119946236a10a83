// The fast certificate.
//
// For neurons S of one side g_S(x) = (sum_S a_j sigma(<x,u_j> + o_j)^p)^(1/p) is sublinear in (x, 1), and m > 0 iff
// g_own > g_rival.
//
//   certificate  G = sum_S a_i (sigma_i/g_S)^(p-1) u_i, the gradient of g_S at x, for a subset S of the own neurons;
//   then
//                radius >= [g_S - g_T]_+ / min(||G|| + L_T, sqrt(||G||^2 + L_T^2 + 2 g_T(-G))),  T all rivals
//
// where g_T(-G) is of the directions alone (docs/mathematics.md#tangent). The term of ||x||^(p-1) that normalised input
// brings is within a ball of radius r at least, or for a rival at most, a constant: the certificate with it holds up to
// r (docs/mathematics.md#tangent-norm). For tanh: how fast m can fall within a ball (docs/mathematics.md#tangent-tanh).
#pragma once

#include <vector>

#include "preluflow/robustness/pair.hpp"

namespace preluflow {

// The tangent certificate of one point after another, over subsets of its own neurons. Its plane may be made from any
// values, lowered ones too (docs/mathematics.md#any-values).
class Tangent {
 public:
  explicit Tangent(const Neurons& net)
      : net_(net),
        gram_(net.gram, net.width, net.width),
        scaled_(net.width),
        q_(net.width),
        weight_(net.width),
        term_(net.width),
        rival_alpha_(net.width),
        rival_term_(net.width) {}

  // A certified radius in the point's unit, rounded down, infinite where there is no error; whether m > 0.
  double radius(const Pair& pair, const Point& point, bool& correct);

 private:
  double power_radius(bool& correct);
  double tanh_radius(bool& correct);
  double fall(double radius);
  void set_norm_term(double radius);
  double root_term(Index j) const { return scaled_.alpha(j) * (point_->z[j] - point_->slack[j]); }
  void sides();
  double fastest(Index m, double weights, double unit, double L, double relative);

  const Neurons& net_;
  ConstMatrixMap<double> gram_;
  Scaled scaled_;
  Scaled::Row q_, weight_, term_;
  Scaled::Row rival_alpha_, rival_term_;  // 0 where a neuron is no rival
  std::vector<Index> own_;
  const Pair* pair_ = nullptr;
  const Point* point_ = nullptr;
  double rival_ = 0.0;
  bool any_rival_ = false;
  double own_constant_ = 0.0, rival_constant_ = 0.0;  // p-th roots of the norm's term, in units of the own side
  double norm_term_ = 0.0;                            // that term itself at the point, signed
};

}  // namespace preluflow
