#include "preluflow/robustness/resolvent.hpp"

#include <cmath>

namespace preluflow {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index kLeastRank = 24;  // below it all is small

}  // namespace

// A^-1 loses share A^-1 n n^T A^-1. So A^-1 n becomes `kept` of itself, and A^-1 b loses `less` of it.
ResolventMoments ResolventMoments::moved(double by) const {
  const double kept = 1.0 / (1.0 + by * first(1, 1)), share = by * kept, less = share * first(0, 1);
  MatrixXd change(2, 2);  // its columns: A^-1 b and A^-1 n anew, in those of before
  change << 1.0, 0.0, -less, kept;
  return {first - share * first.col(1) * first.row(1), change.transpose() * second * change};
}

void Resolvent::take(const Quadratic& quadratic, const Directions& directions) {
  quadratic_ = &quadratic;
  q_.resize(quadratic.b.size(), 1 + directions.cols());
  q_.col(0) = quadratic.b;
  if (directions.cols() > 0) q_.rightCols(directions.cols()) = directions;
  prepare();
}

bool DenseResolvent::factorise(double l, const double* weights) {
  factors_.set(l, quadratic_->Q);
  factors_.add(q_.rightCols(directions()), weights);
  return factors_.factorise();
}

ResolventMoments DenseResolvent::moments() {
  solved_ = q_;
  for (auto column : solved_.colwise()) factors_.solve(column);
  return {q_.transpose() * solved_, solved_.transpose() * solved_};
}

VectorXd DenseResolvent::combine(const VectorXd& shares) const { return solved_ * shares; }

double DenseResolvent::third(const VectorXd& shares) const {
  VectorXd x = combine(shares);
  factors_.solve_lower(x);
  return x.squaredNorm();
}

bool GramResolvent::suits(const Quadratic& quadratic) {
  const Index rank = quadratic.b.size();
  return quadratic.products != nullptr && quadratic.products->gram != nullptr && rank >= kLeastRank &&
         quadratic.curved <= rank;
}

void GramResolvent::prepare() {
  const Index count = quadratic_->curved;
  order_.clear();
  for (const bool up : {false, true}) {
    for (Index k = 0; k < count; ++k)
      if ((quadratic_->bend(k) > 0.0) == up) order_.push_back(k);
    (up ? up_ : down_) = static_cast<Index>(order_.size()) - (up ? down_ : 0);
  }
  inner_ = q_.transpose() * q_;
  const MatrixXd seen = quadratic_->columns.view().leftCols(count).transpose() * q_;
  root_.resize(count);
  seen_.resize(count, q_.cols());
  for (Index i = 0; i < count; ++i) {
    root_(i) = std::sqrt(std::abs(quadratic_->bend(order_[static_cast<std::size_t>(i)])));
    seen_.row(i) = root_(i) * seen.row(order_[static_cast<std::size_t>(i)]);
  }
  gather();
}

// The neurons' inner products, in that order, times the roots.
void GramResolvent::gather() {
  const InnerProducts& of = *quadratic_->products;
  const auto neuron = [&](Index i) {
    return quadratic_->which[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])];
  };
  const Index below = down_ + directions();
  minus_.resize(below, below);
  beside_.resize(up_, below);
  for (ColumnMatrix* square : {&up_up_, &lost_, &left_}) square->resize(up_, up_);
  below_.resize(below);
  above_.resize(up_);
  for (Index j = 0; j < down_; ++j) {
    const Index at = neuron(j);
    for (Index i = j; i < down_; ++i) minus_.column(j)[i] = -root_(i) * root_(j) * of(at, neuron(i));
    for (Index i = 0; i < up_; ++i) beside_.column(j)[i] = root_(down_ + i) * root_(j) * of(at, neuron(down_ + i));
  }
  for (Index j = 0; j < up_; ++j) {
    const Index at = neuron(down_ + j);
    for (Index i = j; i < up_; ++i)
      up_up_.column(j)[i] = root_(down_ + i) * root_(down_ + j) * of(at, neuron(down_ + i));
  }
}

// docs/mathematics.md#gram-resolvent
bool GramResolvent::factorise(double l, const double* weights) {
  const Index count = directions();
  shift_ = l - quadratic_->grow;
  of_weights_ = ConstVectorMap<double>(weights, count).cwiseSqrt();
  if (!(shift_ > 0.0)) return false;
  for (Index i = 0; i < count; ++i) {
    for (Index j = 0; j < down_; ++j) minus_.column(j)[down_ + i] = -of_weights_(i) * seen_(j, 1 + i);
    for (Index j = 0; j <= i; ++j)
      minus_.column(down_ + j)[down_ + i] = -of_weights_(i) * of_weights_(j) * inner_(1 + i, 1 + j);
  }
  below_.set(shift_, minus_);
  if (!below_.factorise()) return false;
  across_.resize(up_, down_ + count);
  across_.view().leftCols(down_) = beside_.view().leftCols(down_);
  for (Index i = 0; i < count; ++i) across_.col(down_ + i) = of_weights_(i) * seen_.col(1 + i).tail(up_);
  below_.solve_rows(across_);
  lower_product(across_, across_, down_ + count, lost_);
  for (Index j = 0; j < up_; ++j) left_.col(j).tail(up_ - j) = up_up_.col(j).tail(up_ - j) - lost_.col(j).tail(up_ - j);
  above_.set(shift_, left_);
  return above_.factorise();
}

// y with (shift S - G) y = right in its place, S = -1 where columns bend down and for the directions, 1 where they bend
// up.
void GramResolvent::solve(Eigen::Ref<VectorXd> right) const {
  auto down = right.head(down_ + directions()), up = right.tail(up_);
  below_.solve_lower(down);
  up.noalias() -= across_.view() * down;
  above_.solve(up);
  down.noalias() += across_.view().transpose() * up;
  below_.solve_upper(down);
  down *= -1.0;
}

ResolventMoments GramResolvent::moments() {
  const Index count = directions();
  right_.resize(quadratic_->curved + count, 1 + count);
  right_.topRows(down_) = seen_.topRows(down_);
  right_.middleRows(down_, count) = of_weights_.asDiagonal() * inner_.bottomRows(count);
  right_.bottomRows(up_) = seen_.bottomRows(up_);
  solved_ = right_;
  for (auto column : solved_.colwise()) solve(column);
  solved_shift_ = shift_;
  solved_weights_ = of_weights_;
  turned_ = solved_;
  turned_.topRows(down_ + count) *= -1.0;
  ResolventMoments result;
  result.first = (inner_ + right_.transpose() * solved_) / shift_;
  result.second = second_ = (result.first + solved_.transpose() * turned_) / shift_;
  return result;
}

double GramResolvent::third(const VectorXd& shares) const {
  const VectorXd y = turned_ * shares;
  VectorXd z = y;
  solve(z);
  return (shares.dot(second_ * shares) + y.dot(z)) / shift_;
}

VectorXd GramResolvent::combine(const VectorXd& shares) const {
  const Index count = directions();
  const VectorXd y = solved_ * shares;
  VectorXd weight(quadratic_->curved), all = shares;
  for (Index i = 0; i < weight.size(); ++i)
    weight(order_[static_cast<std::size_t>(i)]) = root_(i) * y(i < down_ ? i : i + count);
  all.tail(count) += solved_weights_.cwiseProduct(y.segment(down_, count));
  return (q_ * all + quadratic_->columns.view().leftCols(weight.size()) * weight) / solved_shift_;
}

}  // namespace preluflow
