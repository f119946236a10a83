#include "preluflow/robustness/ray.hpp"

#include "preluflow/lanes.hpp"

namespace preluflow {

namespace {

using Row = Scaled::Row;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kDeaths = 4;                                  // strongest own neurons at whose deaths a ray is looked at
constexpr double kBeyond = 1e-12;                           // so much farther, relatively
constexpr double kSaturated = 2.0;                          // |z| at which a tanh has turned, nearly
constexpr int kDoublings = 40;                              // of a first guess, after which a ray is given up
constexpr double kLeast = 1e-200, kMost = 1e300;            // sizes of sums whose powers stay within float64
constexpr double kLeastForce = 1e-150, kMostForce = 1e150;  // of gradients

// Right to units of rounding relatively also where |x| is small, with one exponential that Eigen vectorises.
Row tanh_of(const Row& x) {
  constexpr double kSmall = 0.05;  // below it x^11 is rounding
  const Row e = (-2.0 * x.abs()).exp(), square = x.square();
  const Row series =
      x * (1.0 + square * (-1.0 / 3 + square * (2.0 / 15 + square * (-17.0 / 315 + square * (62.0 / 2835)))));
  return (x.abs() < kSmall).select(series, x.sign() * (1.0 - e) / (1.0 + e));
}

// sum_j a_j sigma(z_j + t dz_j)^p, and the sum of the terms' sizes.
struct Sums {
  double difference, size;
};

template <class Power>
Sums sum_powers(const Row& a, const Row& z, const Row& dz, double t, const Power& power_of) {
  Lanes difference = Lanes::Zero(), size = Lanes::Zero();
  for_lanes(z.size(), [&](const auto& at) {
    const Lanes s = (at(z.data()) + t * at(dz.data())).max(0.0);
    const Lanes term = at(a.data()) * power_of(s);
    difference += term;
    size += term.abs();
  });
  return {total(difference), total(size)};
}

Sums sum_powers(const Row& a, const Row& z, const Row& dz, double t, double p) {
  if (p == 1.0) return sum_powers(a, z, dz, t, [](const Lanes& s) { return s; });
  if (p == 2.0) return sum_powers(a, z, dz, t, [](const Lanes& s) { return Lanes(s * s); });
  if (p == 3.0) return sum_powers(a, z, dz, t, [](const Lanes& s) { return Lanes(s * s * s); });
  if (p == 4.0) return sum_powers(a, z, dz, t, [](const Lanes& s) { return Lanes((s * s) * (s * s)); });
  Sums sums{0.0, 0.0};
  for (Index j = 0; j < z.size(); ++j) {
    const double s = z(j) + t * dz(j);
    if (!(s > 0.0) || a(j) == 0.0) continue;
    const double term = a(j) * power(s, p);
    sums.difference += term;
    sums.size += std::abs(term);
  }
  return sums;
}

Row sech_squared_of(const Row& x) {
  const Row e = (-2.0 * x.abs()).exp();
  return 4.0 * e / (1.0 + e).square();
}

}  // namespace

Index frame_size(const Neurons& net) { return net.rank > 0 ? net.rank : net.width; }

bool RayMargin::set(const Pair& pair, const Point& point) {
  pair_ = &pair;
  noise_ = 2.0 * pair.most_doubt + 4.0 * kEpsilon * static_cast<double>(net_.width);
  // Copies at aligned addresses, on which the bits of Eigen's sums do not depend then.
  z_ = ConstVectorMap<double>(point.z, net_.width).transpose().array();
  slack_ = ConstVectorMap<double>(point.slack, net_.width).transpose().array();
  length_ = point.length;
  norm_ = {pair.log_norm_weight - point.log_unit, pair.norm_side, net_.p - 1.0};
  if (net_.curve == Curve::tanh) {
    norm_.side = 0.0;
    const Eigen::Map<const Row> log_a(pair.log_a, net_.width), side(pair.side, net_.width);
    scaled_.level = log_a.maxCoeff();
    if (!std::isfinite(scaled_.level)) return false;
    scaled_.side = side;
    scaled_.alpha = (log_a - scaled_.level).exp();
  } else {
    const bool any_own = scaled_.at(net_, pair, point);
    if (!any_own && !(norm_.side > 0.0)) return false;
    set_scale(any_own, point);
  }
  for (Index j = 0; j < net_.width; ++j)
    if (!std::isfinite(pair.log_a[j])) scaled_.alpha(j) = scaled_.signed_a(j) = 0.0;
  if (net_.curve == Curve::tanh) scaled_.signed_a = scaled_.side * scaled_.alpha;
  return true;
}

// The largest own term is 1 at the point, the norm's among them.
void RayMargin::set_scale(bool any_own, const Point& point) {
  if (norm_.side == 0.0) return;
  const double log = norm_log(point.length * point.length);
  if (norm_.side > 0.0 && std::isfinite(log) && (!any_own || log > scaled_.level)) {
    const Eigen::Map<const Row> log_a(pair_->log_a, net_.width);
    scaled_.level = log;
    scaled_.signed_a = scaled_.side * (log_a - log).exp();
    scaled_.alpha = ((log_a - log) / net_.p).exp();
  }
  norm_.log -= scaled_.level;
}

double RayMargin::value(const Ray& ray, double t) const {
  if (net_.curve == Curve::tanh) return of_tanh(ray, t);
  const Sums sums = sum_powers(scaled_.signed_a, z_, ray.dz, t, net_.p);
  const double norm = norm_term(ray, t), size = sums.size + std::abs(norm);
  if (size > kLeast && size < kMost) return sums.difference + norm + noise_ * size;
  return by_logs(ray, t);
}

double RayMargin::of_tanh(const Ray& ray, double t) const {
  const Row terms = scaled_.signed_a * tanh_of(z_ + t * ray.dz);
  return terms.sum() + noise_ * terms.abs().sum();
}

double RayMargin::by_logs(const Ray& ray, double t) const {
  if (!net_.homogeneous) return general_by_logs(ray, t);
  const Balance exact =
      balance_by_logs(net_, *pair_, [&](Index j) { return z_(j) + t * ray.dz(j); }, [](Index) { return 0.0; });
  return exact.difference + noise_ * exact.size;
}

double RayMargin::general_by_logs(const Ray& ray, double t) const {
  const double norm = norm_.side == 0.0 ? -kInfinity : norm_log(square(ray, t)) + scaled_.level;
  const auto log_term = [&](Index j) {
    const double s = z_(j) + t * ray.dz(j);
    return s > 0.0 ? pair_->log_a[j] + net_.p * std::log(s) : -kInfinity;
  };
  double most = norm;
  for (Index j = 0; j < net_.width; ++j) most = std::max(most, log_term(j));
  if (!std::isfinite(most)) return 0.0;
  double size = std::exp(norm - most), difference = norm_.side * size;
  for (Index j = 0; j < net_.width; ++j) {
    const double term = std::exp(log_term(j) - most);
    difference += pair_->side[j] * term;
    size += term;
  }
  return difference + noise_ * size;
}

// Where the strongest own neurons die before the limit, a little beyond. `probes` (kDeaths,); returns how many.
int RayMargin::deaths(const Ray& ray, double limit, double* probes) const {
  double strength[kDeaths];
  int count = 0;
  for (Index j = 0; j < net_.width; ++j) {
    if (!(scaled_.side(j) > 0.0 && z_(j) > 0.0 && ray.dz(j) < 0.0)) continue;
    const double t = -z_(j) / ray.dz(j), force = scaled_.alpha(j) * z_(j);
    if (!(t < limit)) continue;
    int place = std::min(count, kDeaths - 1);
    if (count == kDeaths && force <= strength[place]) continue;
    for (; place > 0 && strength[place - 1] < force; --place) {
      strength[place] = strength[place - 1];
      probes[place] = probes[place - 1];
    }
    strength[place] = force;
    probes[place] = t * (1.0 + kBeyond);
    if (net_.curve == Curve::tanh) probes[place] = std::min(limit, t - kSaturated / ray.dz(j));
    count = std::min(count + 1, kDeaths);
  }
  return count;
}

// Looked at are multiples of the limit, and where the strongest own neurons die: between that and a neighbour's birth m
// may be negative briefly.
double RayMargin::crossing(const Ray& ray, double limit, int multiples) const {
  double probes[kMultiples + kDeaths];
  const int few = deaths(ray, limit, probes);
  for (int k = 1; k <= multiples; ++k) probes[few + k - 1] = limit * k / multiples;
  std::sort(probes, probes + few + multiples);
  double before = 0.0, value_before = value(ray, 0.0);
  for (int probe = 0; probe < few + multiples; ++probe) {
    const double t = probes[probe], here = value(ray, t);
    if (!(here > 0.0)) return between_signs(ray, before, value_before, t, here);
    before = t;
    value_before = here;
  }
  return kInfinity;
}

// Without homogeneity nothing bounds the radius, and along most rays there may be no error at all.
double RayMargin::far_crossing(const Ray& ray, double near) const {
  const double found = crossing(ray, near, kMultiples);
  if (std::isfinite(found)) return found;
  double before = near, value_before = value(ray, near);
  for (int k = 0; k < kDoublings; ++k) {
    for (const double share : {1.5, 2.0}) {
      const double t = share * near, here = value(ray, t);
      if (!std::isfinite(here)) return kInfinity;
      if (!(here > 0.0)) return between_signs(ray, before, value_before, t, here);
      before = t;
      value_before = here;
    }
    near *= 2.0;
  }
  return kInfinity;
}

// False position (Illinois), keeping what it returns on the far side.
double RayMargin::between_signs(const Ray& ray, double low, double at_low, double high, double at_high) const {
  int side = 0;
  for (int k = 0; k < 60 && high - low > 1e-14 * high; ++k) {
    double middle = at_low > at_high ? low + (high - low) * at_low / (at_low - at_high) : 0.5 * (low + high);
    if (k % 3 == 2) middle = 0.5 * (low + high);
    middle = std::min(std::max(middle, low + 1e-15 * high), high - 1e-15 * high);
    if (!(middle > low && middle < high)) break;
    const double at_middle = value(ray, middle);
    if (at_middle > 0.0) {
      low = middle;
      at_low = at_middle;
      if (side == -1) at_high *= 0.5;
      side = -1;
    } else {
      high = middle;
      at_high = at_middle;
      if (side == 1) at_low *= 0.5;
      side = 1;
    }
  }
  return high;
}

void RayMargin::gradient(const Ray& ray, double t, double blur, Row& c, double& share) const {
  share = 0.0;
  if (net_.curve == Curve::tanh) {
    c = -scaled_.signed_a * sech_squared_of(z_ + t * ray.dz);
    return;
  }
  const double off = blur * t;
  const auto slope_at = [&](double s) {
    return blur > 0.0 ? 0.5 * (slope(s + off, net_.p) + slope(s - off, net_.p)) : slope(s, net_.p);
  };
  for (Index j = 0; j < net_.width; ++j) {
    const double s = z_(j) + t * ray.dz(j);
    c(j) = s + off > 0.0 ? -scaled_.signed_a(j) * slope_at(s) : 0.0;
  }
  if (norm_.side != 0.0 && norm_.power > 0.0) {
    const double y2 = square(ray, t);
    if (y2 > 0.0) share = -norm_term(ray, t) * norm_.power / (net_.p * y2);
  }
  const double largest = std::max(c.abs().maxCoeff(), std::abs(share) * length_);
  if (largest > kLeastForce && largest < kMostForce) return;
  gradient_by_logs(ray, t, c, share);
}

// Powers have left float64: relative to the largest, by logarithms.
void RayMargin::gradient_by_logs(const Ray& ray, double t, Row& c, double& share) const {
  double most = -kInfinity, log_share = -kInfinity;
  if (share != 0.0) {
    const double y2 = square(ray, t);
    log_share = norm_log(y2) + scaled_.level + std::log(norm_.power / (net_.p * y2));
    most = log_share + std::log(std::max(length_, 1e-300));
  }
  for (Index j = 0; j < net_.width; ++j) {
    const double s = z_(j) + t * ray.dz(j);
    c(j) = s > 0.0 ? pair_->log_a[j] + (net_.p - 1.0) * std::log(s) : -kInfinity;
    most = std::max(most, c(j));
  }
  for (Index j = 0; j < net_.width; ++j) c(j) = std::isfinite(c(j)) ? -scaled_.side(j) * std::exp(c(j) - most) : 0.0;
  if (share != 0.0) share = -norm_.side * std::exp(log_share - most);
}

void RayMargin::flat_gradient(double flat, Row& c) const { c = -scaled_.signed_a * sech_squared_of(flat * z_); }

bool RayMargin::silent(const Ray& ray, double t, double units) const {
  if (net_.curve == Curve::tanh || norm_.side > 0.0) return false;
  return !(balance(net_, *pair_, scaled_, [&](Index k) {
             return z_(k) + t * ray.dz(k) - (scaled_.side(k) > 0.0 ? units * slack_(k) : 0.0);
           }) > 0.0);
}

double RayMargin::guess(double gradient, double least) const {
  const Ray still(0, 0);
  double m = 0.0;
  if (net_.curve == Curve::tanh) {
    m = (scaled_.signed_a * tanh_of(z_)).sum();
  } else {
    for (Index j = 0; j < net_.width; ++j)
      if (z_(j) > 0.0 && scaled_.signed_a(j) != 0.0) m += scaled_.signed_a(j) * power(z_(j), net_.p);
    m = (m + norm_term(still, 0.0)) / net_.p;
  }
  const double linear = m / gradient;
  if (linear > least && std::isfinite(linear)) return linear;
  if (least > 0.0) return least;
  // Flat, and nothing is known: the length of x, or the nearest kink.
  return length_ > 0.0 ? length_ : std::max(z_.abs().minCoeff(), 1e-6);
}

}  // namespace preluflow
