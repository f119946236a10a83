// The shortest d that satisfies linear inequalities, found in inner products (docs/mathematics.md#no-rivals).
#pragma once

#include <Eigen/Core>

#include "preluflow/types.hpp"

namespace preluflow {

// The shortest d with <c_i,d> <= -e_i for all i is d = -sum_i w_i c_i with multipliers w >= 0, found by an active-set
// method on the dual (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).
//
// M (m, m) = <c_i,c_j> with ||c_i|| = 1 or 0, e (m,), start (m,) or shorter: multipliers to begin with. Returns w (m,).
// Inequalities are met within 1e-12 `scale`; it ends early when ||d|| exceeds 2 `scale` (there may be no d at all) or
// after 3 m + 8 entries into the active set. Whatever it returns is >= 0, which is all that a bound by duality needs.
Eigen::VectorXd min_norm_weights(const Eigen::Ref<const Eigen::MatrixXd>& M, const Eigen::Ref<const Eigen::VectorXd>& e,
                                 double scale, const Eigen::VectorXd& start = {});

}  // namespace preluflow
