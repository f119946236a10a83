#include "preluflow/robustness/tangent.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kLargest = 1e140;       // a root of a contribution beyond it, in units of the own side, is not squared
constexpr double kOutward = 1.0 - 1e-9;  // of every certificate: some are exactly tight

}  // namespace

double PowerNorm::value() const {
  double most = 0.0;
  for (double c : values_) most = std::max(most, c);
  if (!(most > 0.0) || !std::isfinite(most)) return most;
  double sum = 0.0;
  for (double c : values_) sum += power(c / most, p_);
  return most * root(sum, p_);
}

double Tangent::radius(const Pair& pair, const Point& point, bool& correct) {
  pair_ = &pair;
  point_ = &point;
  correct = scaled_.at(net_, pair, point) && balance(net_, pair, scaled_, [&](Index j) { return point.z[j]; }) > 0.0;
  if (!correct) return 0.0;
  sides();
  const double log_unit = scaled_.level / net_.p;
  const double L = std::exp(pair.log_lipschitz - log_unit);
  const double terms = static_cast<double>(net_.width);
  // Every p-norm errs by this factor: its terms and their sum by units of rounding, contributions by doubt and by the
  // rounding of their logarithms (docs/mathematics.md#rounding-tangent).
  const double relative = 2.0 * kEpsilon * (terms + 16.0 + std::abs(log_unit)) + pair.most_doubt;
  q_.setZero();
  double sum = 0.0, weights = 0.0, best = 0.0;
  Index next = 1, previous = 0;
  const auto all = static_cast<Index>(own_.size());
  for (Index m = 0; m < all; ++m) {
    const Index j = own_[static_cast<std::size_t>(m)];
    const double c = root_term(j);
    weight_(m) = scaled_.alpha(j) * slope(c, net_.p);
    weights += weight_(m);
    sum += power(c, net_.p);
    q_ += weight_(m) * gram_.row(j).array();
    if (m + 1 != next && m + 1 != all) continue;
    const Index fibonacci = next + previous;  // subsets of the 1, 2, 3, 5, 8, ... largest contributors, and all
    if (m + 1 == next) {
      previous = next;
      next = std::max(fibonacci, next + 1);
    }
    const double g_own = root(sum, net_.p) * (1.0 - relative), g_rival = rival_ * (1.0 + relative);
    if (!(g_own > g_rival)) continue;
    const double speed = fastest(m, weights, slope(root(sum, net_.p), net_.p), L, relative);
    if (speed > 0.0) best = std::max(best, (g_own - g_rival) / speed);
  }
  return std::max(0.0, net_.homogeneous ? std::min(best * kOutward, 1.0) : best * kOutward);
}

// The own neurons that are surely active, the largest first, and what the rivals are at most.
void Tangent::sides() {
  const double *z = point_->z, *slack = point_->slack;
  own_.clear();
  norm_.clear();
  any_rival_ = false;
  for (Index j = 0; j < net_.width; ++j) {
    if (!std::isfinite(pair_->log_a[j])) continue;  // no part of this pair
    if (scaled_.side(j) > 0.0) {
      const double c = root_term(j);
      term_(j) = c;
      if (c > 0.0 && scaled_.alpha(j) < kLargest) own_.push_back(j);
    } else {
      any_rival_ = true;
      if (z[j] + slack[j] > 0.0) norm_.add(scaled_.alpha(j) * (z[j] + slack[j]));
    }
  }
  rival_ = norm_.value();
  std::sort(own_.begin(), own_.end(),
            [&](Index b, Index c) { return term_(b) != term_(c) ? term_(b) > term_(c) : b < c; });
}

// How fast g_S - g_T can fall with ||d||, S the first m + 1 own neurons; `unit` is g_S^(p-1).
double Tangent::fastest(Index m, double weights, double unit, double L, double relative) {
  // What rounding may have done to <G,u_k>: it is a sum of m weights times entries of the Gram matrix.
  const double lost = (net_.slack + 2.0 * kEpsilon * static_cast<double>(net_.width)) * weights;
  double square = 0.0;
  for (Index k = 0; k <= m; ++k) square += weight_(k) * q_(own_[static_cast<std::size_t>(k)]);
  // ||G|| is what is left of sums of weights: what rounding took from it is given back.
  square = std::max(square, 0.0) + 2.0 * lost * weights;
  const double norm = std::sqrt(square) / unit;
  if (!any_rival_) return norm * (1.0 + relative);
  norm_.clear();
  for (Index k = 0; k < net_.width; ++k)
    if (scaled_.side(k) < 0.0 && q_(k) < lost) norm_.add(scaled_.alpha(k) * (lost - q_(k)));
  const double back = norm_.value() / unit;
  return std::min(norm + L, std::sqrt(norm * norm + L * L + 2.0 * back)) * (1.0 + relative);
}

}  // namespace preluflow
