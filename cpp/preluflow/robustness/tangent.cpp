#include "preluflow/robustness/tangent.hpp"

#include "preluflow/lanes.hpp"
#include "preluflow/robustness/linear_algebra.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kLargest = 1e140;  // a root of a contribution beyond it, in units of the own side, is not squared
constexpr double kMost =
    1e300;  // and this is as good as what is larger: the Lipschitz constant's square is infinite then
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kFarthest = 1e150;      // a radius beyond it, in units of the point, is not looked for
constexpr int kMeetings = 12;            // bisections for the radius that a certificate of its own ball reaches
constexpr double kOutward = 1.0 - 1e-9;  // of every certificate: some are exactly tight

using Row = Scaled::Row;

template <class Power>
double sum_powers(const Row& c, double unit, const Power& power_of) {
  Lanes sum = Lanes::Zero();
  for_lanes(c.size(), [&](const auto& at) { sum += power_of(Lanes(at(c.data()) / unit)); });
  return total(sum);
}

// (other^p + sum_j c_j^p)^(1/p) of numbers >= 0, relative to the largest: powers of small ones may underflow, that
// costs nothing then.
double power_norm(const Row& c, double other, double p) {
  const double most = std::max(other, largest_size(c.data(), c.size()));
  if (!(most > 0.0) || !std::isfinite(most)) return most;
  double sum = 0.0;
  if (p == 3.0) {
    sum = sum_powers(c, most, [](const Lanes& s) { return Lanes(s * s * s); });
  } else if (p == 2.0) {
    sum = sum_powers(c, most, [](const Lanes& s) { return Lanes(s * s); });
  } else if (p == 1.0) {
    sum = sum_powers(c, most, [](const Lanes& s) { return s; });
  } else {
    for (Index j = 0; j < c.size(); ++j)
      if (c(j) > 0.0) sum += power(c(j) / most, p);
  }
  return most * root(sum + power(other / most, p), p);
}

}  // namespace

double Tangent::radius(const Pair& pair, const Point& point, bool& correct) {
  pair_ = &pair;
  point_ = &point;
  if (net_.curve == Curve::tanh) return tanh_radius(correct);
  own_constant_ = rival_constant_ = norm_term_ = 0.0;
  if (!scaled_.at(net_, pair, point)) {
    correct = false;
    return 0.0;
  }
  if (pair.norm_side == 0.0) return power_radius(correct);
  // cert(r), made for the ball of radius r, falls with r and holds up to r: the best is where they meet.
  set_norm_term(0.0);
  double high = power_radius(correct), best = 0.0, low = 0.0;
  if (!correct) return 0.0;
  if (!std::isfinite(high)) {  // nothing but the norm's term changes with x
    if (pair.norm_side < 0.0) return 0.0;
    if (!any_rival_) return point.length;
    high = point.length;
  }
  for (int k = 0; k < kMeetings && high - low > 1e-4 * high; ++k) {
    const double middle = 0.5 * (low + high);
    set_norm_term(middle);
    bool still = true;
    const double certified = power_radius(still);
    best = std::max(best, std::min(middle, certified));
    (certified >= middle ? low : high) = middle;
  }
  return best;
}

// docs/mathematics.md#tangent-norm
// norm_side w ||x + d||^(p-1) for ||d|| <= radius, at its worst; rounded against the first class.
void Tangent::set_norm_term(double radius) {
  const double away = pair_->norm_side > 0.0 ? std::max(point_->length - radius, 0.0) : point_->length + radius;
  const double log_term = pair_->log_norm_weight - point_->log_unit - scaled_.level + (net_.p - 1.0) * std::log(away);
  const double unit = 8.0 * kEpsilon * (net_.p + 4.0 + std::abs(log_term) + std::abs(scaled_.level));
  const double log_lowered = log_term - pair_->norm_side * unit;
  (pair_->norm_side > 0.0 ? own_constant_ : rival_constant_) = std::exp(log_lowered / net_.p);
  norm_term_ = pair_->norm_side * std::exp(log_lowered);
}

double Tangent::power_radius(bool& correct) {
  const Pair& pair = *pair_;
  const Point& point = *point_;
  correct = balance(net_, pair, scaled_, [&](Index j) { return point.z[j]; }) + norm_term_ > 0.0;
  if (!correct) return 0.0;
  sides();
  const double log_unit = scaled_.level / net_.p;
  const double L = std::exp(pair.log_lipschitz - log_unit);
  const double terms = static_cast<double>(net_.width);
  // Every p-norm errs by this factor: its terms and their sum by units of rounding, contributions by doubt and by the
  // rounding of their logarithms (docs/mathematics.md#rounding-tangent).
  const double relative = 2.0 * kEpsilon * (terms + 16.0 + std::abs(log_unit)) + pair.most_doubt;
  q_.setZero();
  double sum = power(own_constant_, net_.p), weights = 0.0, best = 0.0;
  Index next = 1, previous = 0, added = 0;
  const auto all = static_cast<Index>(own_.size());
  for (Index m = 0; m < all; ++m) {
    const Index j = own_[static_cast<std::size_t>(m)];
    const double c = root_term(j);
    weight_(m) = scaled_.alpha(j) * slope(c, net_.p);
    weights += weight_(m);
    sum += power(c, net_.p);
    if (m + 1 != next && m + 1 != all) continue;
    const Index fibonacci = next + previous;  // subsets of the 1, 2, 3, 5, 8, ... largest contributors, and all
    if (m + 1 == next) {
      previous = next;
      next = std::max(fibonacci, next + 1);
    }
    const double g_own = root(sum, net_.p) * (1.0 - relative), g_rival = rival_ * (1.0 + relative);
    if (!(g_own > g_rival)) continue;
    add_rows(gram_, own_.data() + added, weight_.data() + added, m + 1 - added, q_);
    added = m + 1;
    const double speed = fastest(m, weights, slope(root(sum, net_.p), net_.p), L, relative);
    best = std::max(best, speed > 0.0 ? (g_own - g_rival) / speed : kInfinity);
  }
  if (own_constant_ > rival_ * (1.0 + 2.0 * relative)) {  // which needs no neuron of its own side
    const double rest = own_constant_ * (1.0 - relative) - rival_ * (1.0 + relative);
    best = std::max(best, L > 0.0 ? rest / (L * (1.0 + relative)) : kInfinity);
  }
  return std::max(0.0, net_.homogeneous ? std::min(best * kOutward, 1.0) : best * kOutward);
}

// docs/mathematics.md#any-values: lowered values make the plane. The own neurons that are surely active, the largest
// first, and what the rivals are at most.
void Tangent::sides() {
  const double *z = point_->z, *slack = point_->slack;
  own_.clear();
  any_rival_ = false;
  rival_alpha_.setZero();
  rival_term_.setZero();
  for (Index j = 0; j < net_.width; ++j) {
    if (!std::isfinite(pair_->log_a[j])) continue;  // no part of this pair
    if (scaled_.side(j) > 0.0) {
      const double c = root_term(j);
      term_(j) = c;
      if (c > 0.0 && scaled_.alpha(j) < kLargest) own_.push_back(j);
    } else {
      any_rival_ = true;
      rival_alpha_(j) = std::min(scaled_.alpha(j), kMost);
      if (z[j] + slack[j] > 0.0) rival_term_(j) = scaled_.alpha(j) * (z[j] + slack[j]);
    }
  }
  rival_ = power_norm(rival_term_, rival_constant_, net_.p);
  std::sort(own_.begin(), own_.end(),
            [&](Index b, Index c) { return term_(b) != term_(c) ? term_(b) > term_(c) : b < c; });
}

// docs/mathematics.md#tangent: how fast g_S - g_T can fall with ||d||, S the first m + 1 own neurons; `unit` is
// g_S^(p-1).
double Tangent::fastest(Index m, double weights, double unit, double L, double relative) {
  // What rounding may have done to <G,u_k>: it is a sum of m weights times entries of the Gram matrix.
  const double lost = (net_.slack + 2.0 * kEpsilon * static_cast<double>(net_.width)) * weights;
  double square = 0.0;
  for (Index k = 0; k <= m; ++k) square += weight_(k) * q_(own_[static_cast<std::size_t>(k)]);
  // ||G|| is what is left of sums of weights: what rounding took from it is given back.
  square = std::max(square, 0.0) + 2.0 * lost * weights;
  const double norm = std::sqrt(square) / unit;
  if (!any_rival_) return norm * (1.0 + relative);
  rival_term_ = rival_alpha_ * (lost - q_).max(0.0);
  const double back = power_norm(rival_term_, 0.0, net_.p) / unit;
  return std::min(norm + L, std::sqrt(norm * norm + L * L + 2.0 * back)) * (1.0 + relative);
}

// docs/mathematics.md#tangent-tanh
// |grad m| on the ball of this radius, at most: every slope is within [least, most] there, so that the gradient is the
// sum of middle slopes and what they may be off by. Leaves values' middle slopes behind.
double Tangent::fall(double radius) {
  const Index h = net_.width;
  const double *z = point_->z, *slack = point_->slack;
  double off = 0.0, total = 0.0, most_fall = 0.0;
  const auto slope_at = [](double t) {
    const double value = std::tanh(t);
    return (1.0 - value) * (1.0 + value);
  };
  for (Index j = 0; j < h; ++j) {
    const double a = scaled_.alpha(j), reach = radius * net_.length[j] + slack[j];
    const double ends[2] = {slope_at(z[j] - reach), slope_at(z[j] + reach)};
    const double least = std::max(std::min(ends[0], ends[1]) * (1.0 - 8.0 * kEpsilon) - 4.0 * kEpsilon, 0.0);
    const double most = std::abs(z[j]) <= reach
                            ? 1.0
                            : std::min(std::max(ends[0], ends[1]) * (1.0 + 8.0 * kEpsilon) + 4.0 * kEpsilon, 1.0);
    weight_(j) = scaled_.side(j) * a * 0.5 * (least + most);
    off += a * (0.5 * (most - least) + pair_->doubt[j] * most) * net_.length[j];
    most_fall += a * (1.0 + pair_->doubt[j]) * most * net_.length[j];
    total += std::abs(weight_(j));
  }
  q_ = (weight_.matrix() * gram_).array();
  const double lost = (net_.slack + 2.0 * kEpsilon * static_cast<double>(h)) * total;
  const double square = std::max((weight_ * q_).sum(), 0.0) + 2.0 * lost * total;
  const double relative = 1.0 + kEpsilon * static_cast<double>(2 * h + 16);
  return std::min(std::sqrt(square) + off, most_fall) * relative;
}

double Tangent::tanh_radius(bool& correct) {
  const Index h = net_.width;
  double value = 0.0, lowered = 0.0, size = 0.0;
  for (Index j = 0; j < h; ++j) {
    const double side = pair_->side[j], a = std::exp(pair_->log_a[j]);
    scaled_.side(j) = side;
    scaled_.alpha(j) = a;
    const double low = std::tanh(point_->z[j] - side * point_->slack[j]);
    value += side * a * std::tanh(point_->z[j]);
    lowered += side * a * low - a * pair_->doubt[j];
    size += a;
  }
  lowered -= kEpsilon * static_cast<double>(h + 16) * size;
  correct = value > 0.0;
  if (!(lowered > 0.0)) return 0.0;
  double fastest = fall(0.0);
  if (!(fastest > 0.0)) fastest = std::numeric_limits<double>::min();
  double high = std::min(lowered / fastest, kFarthest), low = 0.0, best = 0.0;
  for (int k = 0; k < kMeetings && high - low > 1e-3 * high; ++k) {
    const double middle = 0.5 * (low + high), speed = fall(middle);
    const double certified = speed > 0.0 ? lowered / speed : kInfinity;
    best = std::max(best, std::min(middle, certified));
    (certified >= middle ? low : high) = middle;
  }
  return best * kOutward;
}

}  // namespace preluflow
