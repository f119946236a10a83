#include "preluflow/robustness/resolvent.hpp"

#include <cmath>

namespace preluflow {

namespace {

using Eigen::Matrix2d;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr Index kLeastRank = 24;  // below it all is small

}  // namespace

void Quadratic::clear() {
  c0 = grow = cross = scale = bends = 0.0;
  curved = 0;
  formed = false;
  b.setZero();
}

void Quadratic::form_Q() {
  if (formed) return;
  for (Index k = 0; k < curved; ++k) weighted.col(k) = bend(k) * columns.col(k);
  lower_product(weighted, columns, curved, Q);
  Q.view().diagonal().array() += grow;
  formed = true;
}

// A^-1 loses share A^-1 v v^T A^-1. So A^-1 v becomes `kept` of itself, and A^-1 b loses `less` of it.
ResolventMoments ResolventMoments::moved(double by) const {
  const double kept = 1.0 / (1.0 + by * first(1, 1)), share = by * kept, less = share * first(0, 1);
  Matrix2d change;  // its columns: A^-1 b and A^-1 v anew, in those of before
  change << 1.0, 0.0, -less, kept;
  ResolventMoments result;
  result.first = first - share * first.col(1) * first.row(1);
  result.second = change.transpose() * second * change;
  const Eigen::Vector2d of_v = change.transpose() * second.col(1);
  result.third = change.transpose() * third * change - share * of_v * of_v.transpose();
  return result;
}

void DenseResolvent::take(const Quadratic& quadratic, const Slab& slab) {
  quadratic_ = &quadratic;
  slab_ = &slab;
  q_.col(0) = quadratic.b;
  if (slab.along != nullptr)
    q_.col(1) = *slab.along;
  else
    q_.col(1).setZero();
}

bool DenseResolvent::factorise(double l, double mu) {
  factors_.set(l, quadratic_->Q);
  if (mu > 0.0) factors_.add(*slab_->along, &mu);
  return factors_.factorise();
}

ResolventMoments DenseResolvent::moments() {
  const Index count = slab_->along == nullptr ? 1 : 2;
  ResolventMoments result;
  solved_ = q_;
  factors_.solve(solved_.leftCols(count));
  result.first = q_.transpose() * solved_;
  result.second = solved_.transpose() * solved_;
  MatrixXd half = solved_;
  factors_.solve_lower(half.leftCols(count));
  result.third = half.transpose() * half;
  return result;
}

VectorXd DenseResolvent::combine(double share_b, double share_v) const {
  return share_b * solved_.col(0) + share_v * solved_.col(1);
}

bool GramResolvent::suits(const Quadratic& quadratic) const {
  const Index rank = quadratic.b.size();
  return products_.gram != nullptr && rank >= kLeastRank && quadratic.curved <= rank;
}

void GramResolvent::take(const Quadratic& quadratic, const Slab& slab) {
  quadratic_ = &quadratic;
  slab_ = &slab;
  const Index count = quadratic.curved;
  order_.clear();
  for (const bool up : {false, true}) {
    for (Index k = 0; k < count; ++k)
      if ((quadratic.bend(k) > 0.0) == up) order_.push_back(k);
    (up ? up_ : down_) = static_cast<Index>(order_.size()) - (up ? down_ : 0);
  }
  MatrixXd q = MatrixXd::Zero(quadratic.b.size(), 2);
  q.col(0) = quadratic.b;
  if (slab.along != nullptr) q.col(1) = *slab.along;
  q_ = q.transpose() * q;
  const MatrixXd seen = quadratic.columns.view().leftCols(count).transpose() * q;
  root_.resize(count);
  seen_.resize(count, 2);
  for (Index i = 0; i < count; ++i) {
    root_(i) = std::sqrt(std::abs(quadratic.bend(order_[static_cast<std::size_t>(i)])));
    seen_.row(i) = root_(i) * seen.row(order_[static_cast<std::size_t>(i)]);
  }
  gather();
}

void GramResolvent::gather() {
  const auto place = [&](Index i) {
    return quadratic_->which[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])];
  };
  minus_.resize(down_ + 1, down_ + 1);
  beside_.resize(up_, down_ + 1);
  for (ColumnMatrix* square : {&up_up_, &product_, &left_}) square->resize(up_, up_);
  below_.resize(down_ + 1);
  above_.resize(up_);
  for (Index j = 0; j < down_; ++j) {
    for (Index i = j; i < down_; ++i) minus_.column(j)[i] = -root_(i) * root_(j) * products_(place(i), place(j));
    for (Index i = 0; i < up_; ++i)
      beside_.column(j)[i] = root_(down_ + i) * root_(j) * products_(place(down_ + i), place(j));
  }
  for (Index j = 0; j < up_; ++j)
    for (Index i = j; i < up_; ++i)
      up_up_.column(j)[i] = root_(down_ + i) * root_(down_ + j) * products_(place(down_ + i), place(down_ + j));
}

// docs/mathematics.md#gram-resolvent
bool GramResolvent::factorise(double l, double mu) {
  shift_ = l - quadratic_->grow;
  of_v_ = std::sqrt(mu);
  if (!(shift_ > 0.0)) return false;
  for (Index j = 0; j < down_; ++j) minus_.column(j)[down_] = -of_v_ * seen_(j, 1);
  minus_.column(down_)[down_] = -mu * q_(1, 1);
  below_.set(shift_, minus_);
  if (!below_.factorise()) return false;
  across_ = beside_;
  across_.col(down_) = of_v_ * seen_.col(1).tail(up_);
  below_.solve_rows(across_);
  lower_product(across_, across_, down_ + 1, product_);
  for (Index j = 0; j < up_; ++j)
    left_.col(j).tail(up_ - j) = up_up_.col(j).tail(up_ - j) - product_.col(j).tail(up_ - j);
  above_.set(shift_, left_);
  return above_.factorise();
}

// y with (shift Sigma - G) y = right, Sigma = -1 where columns bend down, 1 where they bend up.
MatrixXd GramResolvent::solve(const MatrixXd& right) const {
  MatrixXd y = right;
  for (Index c = 0; c < (slab_->along == nullptr ? 1 : 2); ++c) {  // of no v all is 0
    auto down = y.col(c).head(down_ + 1), up = y.col(c).tail(up_);
    below_.solve_lower(down);
    up.noalias() -= across_.view() * down;
    above_.solve(up);
    down.noalias() += across_.view().transpose() * up;
    below_.solve_upper(down);
    down *= -1.0;
  }
  return y;
}

ResolventMoments GramResolvent::moments() {
  right_.resize(quadratic_->curved + 1, 2);
  right_.topRows(down_) = seen_.topRows(down_);
  right_.row(down_) = of_v_ * q_.row(1);
  right_.bottomRows(up_) = seen_.bottomRows(up_);
  solved_ = solve(right_);
  solved_shift_ = shift_;
  solved_of_v_ = of_v_;
  MatrixXd turned = solved_;
  turned.topRows(down_ + 1) *= -1.0;
  ResolventMoments result;
  result.first = (q_ + right_.transpose() * solved_) / shift_;
  result.second = (result.first + solved_.transpose() * turned) / shift_;
  result.third = (result.second + turned.transpose() * solve(turned)) / shift_;
  return result;
}

VectorXd GramResolvent::combine(double share_b, double share_v) const {
  const VectorXd y = share_b * solved_.col(0) + share_v * solved_.col(1);
  VectorXd weight(quadratic_->curved);
  for (Index i = 0; i < weight.size(); ++i)
    weight(order_[static_cast<std::size_t>(i)]) = root_(i) * y(i < down_ ? i : i + 1);
  VectorXd sum = share_b * quadratic_->b + quadratic_->columns.view().leftCols(weight.size()) * weight;
  if (slab_->along != nullptr) sum += (share_v + solved_of_v_ * y(down_)) * *slab_->along;
  return sum / solved_shift_;
}

}  // namespace preluflow
