// The inverse of A = l - Q + sum_i w_i n_i n_i^T, of a quadratic and directions n_i, as searches for multipliers see
// it.
//
// All they ask for are a few numbers, <q, A^-k q'> for q and q' the quadratic's b and the directions, and at their end
// one solution. They come from factors of A itself (rank, rank), or from those of a matrix as large as there are curved
// neurons, which their inner products are enough for: no Q is formed (docs/mathematics.md#gram-resolvent).
#pragma once

#include "preluflow/robustness/quadratic.hpp"

namespace preluflow {

// <q, A^-k q'> for k = 1, 2 between b and the directions, in this order.
struct ResolventMoments {
  Eigen::MatrixXd first, second;  // (1 + directions)^2

  // The same of A + by n n^T, n the one direction (Sherman and Morrison), where that is positive definite too.
  ResolventMoments moved(double by) const;
};

class Resolvent {
 public:
  using Directions = Eigen::Ref<const Eigen::MatrixXd>;  // (rank, count)
  virtual ~Resolvent() = default;

  // Of this quadratic and these directions from now on.
  void take(const Quadratic& quadratic, const Directions& directions);
  // Whether A is positive definite; weights (count,), not negative.
  virtual bool factorise(double l, const double* weights) = 0;
  // After that; what it finds on its way is kept for combine().
  virtual ResolventMoments moments() = 0;
  // x = A^-1 (b and the directions times these shares), of the A that the last moments were of, and <x, A^-1 x>, as
  // long as the factors are those of A.
  virtual Eigen::VectorXd combine(const Eigen::VectorXd& shares) const = 0;
  virtual double third(const Eigen::VectorXd& shares) const = 0;

 protected:
  virtual void prepare() = 0;
  Index directions() const { return q_.cols() - 1; }

  const Quadratic* quadratic_ = nullptr;
  Eigen::MatrixXd q_;  // (rank, 1 + directions): b and they
};

// By factors of A; the quadratic's Q has to be formed.
class DenseResolvent final : public Resolvent {
 public:
  explicit DenseResolvent(Index rank) : factors_(rank) {}

  bool factorise(double l, const double* weights) override;
  ResolventMoments moments() override;
  Eigen::VectorXd combine(const Eigen::VectorXd& shares) const override;
  double third(const Eigen::VectorXd& shares) const override;
  const Cholesky& factors() const { return factors_; }

 private:
  void prepare() override {}

  Cholesky factors_;
  Eigen::MatrixXd solved_;  // A^-1 q
};

// By the neurons' inner products.
class GramResolvent final : public Resolvent {
 public:
  // Whether it is of any use, and cheaper than factors of A.
  static bool suits(const Quadratic& quadratic);

  bool factorise(double l, const double* weights) override;
  ResolventMoments moments() override;
  Eigen::VectorXd combine(const Eigen::VectorXd& shares) const override;
  double third(const Eigen::VectorXd& shares) const override;

 private:
  void prepare() override;
  void gather();
  void solve(Eigen::Ref<Eigen::VectorXd> right) const;

  std::vector<Index> order_;  // columns that bend down, then those that bend up
  Index down_ = 0, up_ = 0;
  Eigen::VectorXd root_;          // (curved,) of |bend|, in that order
  Eigen::MatrixXd seen_;          // (curved, 1 + directions): q as these neurons see it, times the roots
  Eigen::MatrixXd inner_;         // (1 + directions)^2, <q,q'>
  ColumnMatrix minus_, up_up_;    // minus the products of what bends down, the directions last; those of the rest
  ColumnMatrix beside_, across_;  // (up, down + directions), and that times the inverse factor of what bends down
  ColumnMatrix lost_, left_;      // (up, up)
  Cholesky below_{0}, above_{0};  // factors of what bends down, and of what is left of the rest
  double shift_ = 0.0;            // l - grow
  Eigen::VectorXd of_weights_;    // roots
  // (curved + directions, 1 + directions): what is solved for, the solutions, and these times S; the last moments.
  Eigen::MatrixXd right_, solved_, turned_;
  Eigen::MatrixXd second_;  // (1 + directions)^2
  double solved_shift_ = 0.0;
  Eigen::VectorXd solved_weights_;
};

}  // namespace preluflow
