// The inverse of A = l - Q + mu v v^T, of a quadratic and a slab across v, as the search for multipliers sees it.
//
// All it asks for are a few numbers, <q, A^-k q'> for q and q' the quadratic's b and v, and at its end one solution.
// They come from factors of A itself (rank, rank), or from those of a matrix as large as there are curved neurons,
// which their inner products are enough for: no Q is formed (docs/mathematics.md#gram-resolvent).
#pragma once

#include <utility>

#include "preluflow/robustness/quadratic.hpp"

namespace preluflow {

// <q, A^-k q'> for k = 1, 2, 3 between b and v, in this order; 0 of a v that there is not.
struct ResolventMoments {
  Eigen::Matrix2d first, second, third;

  // The same of A + by v v^T (Sherman and Morrison), where that is positive definite too.
  ResolventMoments moved(double by) const;
};

class Resolvent {
 public:
  virtual ~Resolvent() = default;

  // Of this quadratic on this slab from now on.
  virtual void take(const Quadratic& quadratic, const Slab& slab) = 0;
  // Whether A is positive definite.
  virtual bool factorise(double l, double mu) = 0;
  // After that; what it finds on its way is kept for combine().
  virtual ResolventMoments moments() = 0;
  // A^-1 (share_b b + share_v v), of the A that the last moments were of.
  virtual Eigen::VectorXd combine(double share_b, double share_v) const = 0;
};

// By factors of A; the quadratic's Q has to be formed.
class DenseResolvent final : public Resolvent {
 public:
  explicit DenseResolvent(Index rank) : factors_(rank), q_(rank, 2), solved_(rank, 2) {}

  void take(const Quadratic& quadratic, const Slab& slab) override;
  bool factorise(double l, double mu) override;
  ResolventMoments moments() override;
  Eigen::VectorXd combine(double share_b, double share_v) const override;
  const Cholesky& factors() const { return factors_; }

 private:
  const Quadratic* quadratic_ = nullptr;
  const Slab* slab_ = nullptr;
  Cholesky factors_;
  Eigen::MatrixXd q_, solved_;  // (rank, 2): b and v, A^-1 of them
};

// By the neurons' inner products.
class GramResolvent final : public Resolvent {
 public:
  explicit GramResolvent(InnerProducts products) : products_(std::move(products)) {}

  // Whether it is of any use, and cheaper than factors of A.
  bool suits(const Quadratic& quadratic) const;

  void take(const Quadratic& quadratic, const Slab& slab) override;
  bool factorise(double l, double mu) override;
  ResolventMoments moments() override;
  Eigen::VectorXd combine(double share_b, double share_v) const override;

 private:
  Eigen::MatrixXd solve(const Eigen::MatrixXd& right) const;
  void gather();

  InnerProducts products_;
  const Quadratic* quadratic_ = nullptr;
  const Slab* slab_ = nullptr;
  std::vector<Index> order_;  // columns that bend down, then those that bend up
  Index down_ = 0, up_ = 0;
  Eigen::VectorXd root_;             // (curved,) of |bend|, in that order
  Eigen::MatrixXd seen_;             // (curved, 2): b and v as these neurons see them, times the roots
  Eigen::Matrix2d q_;                // <q,q'>
  ColumnMatrix minus_, up_up_;       // minus (down + 1)^2 products, v the last; up^2
  ColumnMatrix beside_, across_;     // (up, down + 1), and that times the inverse factor of what bends down
  ColumnMatrix product_, left_;      // (up, up)
  Cholesky below_{0}, above_{0};     // factors of what bends down, and of what is left of the rest
  double shift_ = 0.0, of_v_ = 0.0;  // l - grow; the root of mu
  Eigen::MatrixXd right_, solved_;   // (curved + 1, 2)
  double solved_shift_ = 0.0, solved_of_v_ = 0.0;
};

}  // namespace preluflow
