// Certificates of the trust region on small problems of every kind, against the ball itself: no point of it that is
// looked at is an error, and what is certified is most of the way to the nearest one found.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/relu_power.hpp"
#include "preluflow/robustness/ball_maximum.hpp"
#include "preluflow/robustness/contacts.hpp"
#include "preluflow/robustness/trust_region.hpp"

namespace preluflow::tests {

namespace {

using Eigen::VectorXd;

// A margin in coordinates of the span, and, where the norm is a part of it, one coordinate across.
struct Problem {
  Curve curve = Curve::power;
  double p = 2.0;
  bool homogeneous = false;
  RowMatrix<double> rows;  // (h, rank)
  std::vector<double> offset, log_a, side, length, doubt, slack, z;
  VectorXd x;           // (rank,)
  double beyond = 0.0;  // how long x is across the span
  double norm_side = 0.0, log_norm_weight = 0.0;

  Index width() const { return rows.rows(); }

  // m at x + d; d has a coordinate across the span as its last.
  long double margin(const VectorXd& d) const {
    const Index rank = rows.cols();
    long double sum = 0.0L, square = 0.0L;
    for (Index j = 0; j < width(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      long double t = offset[at];
      for (Index r = 0; r < rank; ++r) t += static_cast<long double>(rows(j, r)) * (x(r) + d(r));
      const long double phi = curve == Curve::tanh ? std::tanh(t)
                              : t > 0.0L           ? std::pow(t, static_cast<long double>(p))
                                                   : 0.0L;
      sum += side[at] * std::exp(static_cast<long double>(log_a[at])) * phi;
    }
    for (Index r = 0; r < rank; ++r) square += static_cast<long double>(x(r) + d(r)) * (x(r) + d(r));
    square += static_cast<long double>(beyond + d(rank)) * (beyond + d(rank));
    if (norm_side != 0.0)
      sum += norm_side * std::exp(static_cast<long double>(log_norm_weight)) * std::pow(square, 0.5L * (p - 1.0L));
    return sum;
  }

  void finish() {
    const VectorXd products = rows * x;
    for (Index j = 0; j < width(); ++j) {
      z.push_back(products(j) + offset[static_cast<std::size_t>(j)]);
      length.push_back(rows.row(j).norm());
    }
    slack.assign(z.size(), 1e-14);
    doubt.assign(z.size(), 1e-14);
  }

  // With products the search for multipliers may go by the neurons' inner products.
  double certified(double limit, const VectorXd& d, bool products = false, Trace* trace = nullptr) const {
    const RowMatrix<double> gram = rows * rows.transpose();
    const Neurons net{curve,        products ? gram.data() : nullptr, width(), p, 1e-14, nullptr, 0, homogeneous,
                      length.data()};
    const Span span{rows.data(), rows.cols(), 1e-14};
    Pair pair{log_a.data(), side.data(), doubt.data(), 1e-14, 0.0};
    pair.norm_side = norm_side;
    pair.log_norm_weight = log_norm_weight;
    const Point point{z.data(), slack.data(), std::hypot(x.norm(), beyond), 0.0};
    CertifierSpaces spaces;
    double lower = 0.0;
    CHECK(tighten(net, span, pair, point, x.data(), d.data(), limit, 1e-3, Interrupt(), spaces, lower, trace));
    return lower;
  }
};

enum class Kind { homogeneous, offsets, normalised, tanh };

Problem draw(Numbers& numbers, Kind kind, double p, Index rank, Index h) {
  Problem problem;
  problem.curve = kind == Kind::tanh ? Curve::tanh : Curve::power;
  problem.p = kind == Kind::tanh ? 1.0 : p;
  problem.homogeneous = kind == Kind::homogeneous;
  problem.rows = numbers.directions(h, rank);
  problem.x = numbers.directions(1, rank).transpose() * (problem.homogeneous ? 1.0 : numbers.uniform(0.2, 1.0));
  for (Index j = 0; j < h; ++j) {
    const bool constant = !problem.homogeneous && numbers.integer(0, 5) == 0;
    if (constant) problem.rows.row(j).setZero();
    if (kind == Kind::tanh) problem.rows.row(j) *= numbers.uniform(0.1, 4.0);
    problem.offset.push_back(problem.homogeneous ? 0.0 : constant ? 1.0 : numbers.uniform(-0.6, 0.6));
    problem.log_a.push_back(numbers.integer(0, 9) == 0 ? -std::numeric_limits<double>::infinity()
                                                       : numbers.uniform(-3.0, 2.0));
    problem.side.push_back(numbers.uniform() < 0.5 ? -1.0 : 1.0);
  }
  if (kind == Kind::normalised) {
    problem.beyond = numbers.integer(0, 2) == 0 ? 0.0 : numbers.uniform(0.0, 1.0);
    problem.norm_side = numbers.uniform() < 0.5 ? -1.0 : 1.0;
    problem.log_norm_weight = numbers.uniform(-3.0, 1.0);
  }
  problem.finish();
  return problem;
}

// The shortest error found: along random directions, and from the best of them by random steps; infinite if none.
double attacked(Numbers& numbers, const Problem& problem, double most, VectorXd& best) {
  const Index size = problem.rows.cols() + 1;
  const auto along = [&](const VectorXd& direction, double upto) {
    double low = 0.0, high = std::numeric_limits<double>::infinity();
    constexpr int kSteps = 40;
    for (int k = 1; k <= kSteps && !std::isfinite(high); ++k) {
      const double t = upto * k / kSteps;
      (problem.margin(t * direction) <= 0.0L ? high : low) = t;
    }
    for (int k = 0; k < 40 && std::isfinite(high); ++k) {
      const double middle = 0.5 * (low + high);
      (problem.margin(middle * direction) <= 0.0L ? high : low) = middle;
    }
    return high;
  };
  double shortest = std::numeric_limits<double>::infinity();
  VectorXd toward = VectorXd::Unit(size, 0);
  const int tries = kSanitized ? 60 : 200;
  for (int k = 0; k < tries; ++k) {
    const double spread = k < tries / 2 || !std::isfinite(shortest) ? 1e3 : std::pow(0.93, k - tries / 2);
    VectorXd direction(size);
    for (Index r = 0; r < size; ++r) direction(r) = toward(r) + spread * numbers.normal();
    if (problem.beyond == 0.0 && problem.norm_side == 0.0) direction(size - 1) = 0.0;
    direction.normalize();
    const double found = along(direction, std::min(most, shortest));
    if (found < shortest) {
      shortest = found;
      toward = direction;
    }
  }
  best = std::isfinite(shortest) ? VectorXd(shortest * toward) : VectorXd::Zero(size);
  return shortest;
}

struct Seen {
  int certified = 0, close = 0, looked_at = 0;
};

// No error in the certified ball; how many certificates are at least 0.9 of the attack.
void hold(Numbers& numbers, const Problem& problem, Seen& seen) {
  if (!(problem.margin(VectorXd::Zero(problem.rows.cols() + 1)) > 1e-9L)) return;
  VectorXd witness;
  const double most = 2.0, shortest = attacked(numbers, problem, most, witness), limit = std::min(shortest, most);
  const double lower = problem.certified(limit, VectorXd(witness.head(problem.rows.cols())));
  CHECK_AT_MOST(lower, limit);
  ++seen.looked_at;
  seen.certified += lower > 0.0;
  seen.close += lower > 0.9 * limit;
  // Where the attack is weak: beyond it, too, what is certified holds nothing.
  const double beyond = problem.certified(1.5 * limit, VectorXd::Zero(problem.rows.cols()));
  CHECK_AT_MOST(beyond, shortest);
}

TEST(trust_region_certifies_no_error) {
  Numbers numbers(1);
  Seen all;
  for (const Kind kind : {Kind::homogeneous, Kind::offsets, Kind::normalised, Kind::tanh})
    for (const double p : {1.0, 1.5, 2.0, 2.5, 3.0, 4.0}) {
      Seen seen;
      for (int repeat = 0; repeat < (kSanitized ? 10 : 60); ++repeat) {
        const Index rank = numbers.integer(1, 3), h = numbers.integer(1, 7);
        hold(numbers, draw(numbers, kind, p, rank, h), seen);
      }
      CHECK(seen.looked_at > 0);
      // The few problems of a sanitized run, some four of a kind, say something together only.
      if (!kSanitized) CHECK_AT_MOST(0.6 * seen.looked_at, static_cast<double>(seen.close));
      all.looked_at += seen.looked_at;
      all.close += seen.close;
    }
  CHECK_AT_MOST(0.6 * all.looked_at, static_cast<double>(all.close));
}

// In spans that are large enough for them, with fewer neurons than dimensions or more: what is certified by the
// neurons' inner products holds no error either, and is what is certified by factors of l - Q.
TEST(trust_region_certifies_as_much_by_inner_products) {
  Numbers numbers(5);
  int certified = 0, looked_at = 0;
  double most_apart = 0.0;
  for (const Kind kind : {Kind::homogeneous, Kind::offsets, Kind::normalised, Kind::tanh})
    for (const double p : {1.0, 2.0, 3.0, 4.0})
      for (int repeat = 0; repeat < (kSanitized ? 1 : 4); ++repeat) {
        const Problem problem = draw(numbers, kind, p, 24 + repeat, 20 + 6 * repeat);
        if (!(problem.margin(VectorXd::Zero(problem.rows.cols() + 1)) > 1e-9L)) continue;
        VectorXd witness;
        const double shortest = attacked(numbers, problem, 2.0, witness), limit = std::min(shortest, 2.0);
        const VectorXd d = witness.head(problem.rows.cols());
        const double products = problem.certified(limit, d, true), factors = problem.certified(limit, d, false);
        CHECK_AT_MOST(products, limit);
        CHECK_AT_MOST(problem.certified(1.5 * limit, d, true), shortest);
        most_apart = std::max(most_apart, std::abs(products - factors) / limit);
        ++looked_at;
        certified += products > 0.2 * limit;
      }
  CHECK(looked_at > (kSanitized ? 4 : 20));
  CHECK_AT_MOST(0.6 * looked_at, static_cast<double>(certified));
  CHECK_AT_MOST(most_apart, 1e-6);
}

VectorXd vector(double first, double second) {
  VectorXd out(2);
  out << first, second;
  return out;
}

// A quadratic on a ball of the plane, or on a slab of it, looked at everywhere.
double largest_on_grid(const Quadratic& quadratic, const Eigen::MatrixXd& Q, double radius, const Slab& slab) {
  constexpr int kGrid = 300;
  double most = -std::numeric_limits<double>::infinity();
  for (int i = 0; i <= kGrid; ++i)
    for (int k = 0; k < kGrid; ++k) {
      const double r = radius * i / kGrid, angle = 2.0 * 3.14159265358979 * k / kGrid;
      const VectorXd d = vector(r * std::cos(angle), r * std::sin(angle));
      const double s = slab.along == nullptr ? 0.0 : slab.along->dot(d);
      if (slab.along != nullptr && (s < slab.low || s > slab.high)) continue;
      most = std::max(most, quadratic.c0 + quadratic.b.dot(d) + d.dot(Q * d));
    }
  return most;
}

// Proved just where it is so: never with a value above 0, and nearly always, on the ball, with all values below -1e-2.
TEST(trust_region_maximum_on_balls_and_slabs) {
  Numbers numbers(3);
  BallMaximum maximum(2);
  int wrong = 0, missed = 0, missed_slabs = 0, balls = 0, slabs = 0;
  for (int repeat = 0; repeat < (kSanitized ? 200 : 2000); ++repeat) {
    Quadratic quadratic(2, 3);
    quadratic.clear();
    quadratic.b = vector(numbers.normal(), numbers.normal());
    Eigen::MatrixXd Q = Eigen::MatrixXd::Zero(2, 2);
    for (Index k = 0; k < 3; ++k) {
      quadratic.columns.col(k) = vector(numbers.normal(), numbers.normal());
      quadratic.bend(k) = numbers.uniform(-1.0, 1.0);
      Q += quadratic.bend(k) * quadratic.columns.col(k) * quadratic.columns.col(k).transpose();
      quadratic.bends += std::abs(quadratic.bend(k)) * quadratic.columns.col(k).squaredNorm();
    }
    quadratic.curved = 3;
    const double radius = numbers.uniform(0.1, 2.0), angle = numbers.uniform(0.0, 6.0);
    const VectorXd along = vector(std::cos(angle), std::sin(angle));
    const double low = radius * numbers.uniform(-1.0, 0.9), high = low + radius * numbers.uniform(0.05, 0.5);
    const bool whole = repeat % 2 == 0;
    const Slab slab = whole ? Slab() : Slab{&along, low, high};
    const double most = largest_on_grid(quadratic, Q, radius, slab);
    const double wanted = numbers.uniform(-0.3, 0.1);  // the largest value, moved there
    if (!std::isfinite(most)) continue;
    quadratic.c0 = wanted - most;
    quadratic.scale = 1.0;
    maximum.begin(0.0, 0.0);
    const bool proved = maximum.below_zero(quadratic, radius, slab, 0.0);
    wrong += proved && wanted > 0.0;
    (whole ? balls : slabs) += 1;
    (whole ? missed : missed_slabs) += !proved && wanted < -1e-2;
  }
  CHECK(wrong == 0);
  CHECK_AT_MOST(missed, 0.02 * balls);
  CHECK_AT_MOST(missed_slabs, 0.25 * slabs);  // one multiplier of a slab is not all there is to it
}

// No contact nearby has a lower mean of the bound.
TEST(trust_region_contacts_are_the_best) {
  Numbers numbers(4);
  for (const double p : {1.0, 1.3, 1.8, 2.0, 2.5, 3.0, 4.0})
    for (int repeat = 0; repeat < 200; ++repeat) {
      const double reach = numbers.uniform(0.1, 2.0), z = numbers.uniform(-1.0, 1.0) * reach, a = 1.0;
      const Neurons net{Curve::power, nullptr, 1, p, 0.0, nullptr, 0, false};
      SpanPoint point;
      point.own = {false};
      Ranges ranges{VectorXd::Constant(1, z - reach), VectorXd::Constant(1, z + reach)};
      Moments moments{VectorXd::Constant(1, numbers.uniform(-0.8, 0.8) * reach), VectorXd::Zero(1), 0.0};
      const double variance = numbers.uniform(0.01, 1.0) * (reach * reach - moments.mean(0) * moments.mean(0));
      moments.second(0) = moments.mean(0) * moments.mean(0) + variance;
      Contacts contacts;
      best_contacts(net, point, VectorXd::Constant(1, z), ranges, moments, contacts);
      const auto mean = [&](double c) {
        const double off = z + moments.mean(0) - c, k = most_curvature(ranges.low(0), ranges.high(0), c, p);
        return a * (relu_power(c, p) + p * slope(c, p) * off + k * (off * off + variance));
      };
      const double best = mean(contacts.value(0)), size = power(std::abs(z) + reach, p);
      for (int k = 1; k < 100; ++k) {
        const double c = ranges.low(0) + 2.0 * reach * k / 100.0;
        if (p < 2.0 && std::abs(c) < 0.01 * reach) continue;
        CHECK_AT_MOST(best, mean(c) + 2e-3 * size);
      }
    }
}

}  // namespace

}  // namespace preluflow::tests
