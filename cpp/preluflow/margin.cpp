#include "preluflow/margin.hpp"

#include <numeric>
#include <vector>

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Index kBlock = 16;             // points of a task
constexpr double kLargest = 1e140;       // a root of a contribution beyond it, in units of the own side, is not squared
constexpr double kOutward = 1.0 - 1e-9;  // of every certificate: some are exactly tight

// (sum_j c_j^p)^(1/p) of c >= 0, relative to the largest: powers of small ones may underflow, that costs nothing then.
class PowerNorm {
 public:
  explicit PowerNorm(double p) : p_(p) {}
  void clear() { values_.clear(); }
  void add(double c) {
    if (c > 0.0) values_.push_back(c);
  }
  double value() const {
    double most = 0.0;
    for (double c : values_) most = std::max(most, c);
    if (!(most > 0.0) || !std::isfinite(most)) return most;
    double sum = 0.0;
    for (double c : values_) sum += power(c / most, p_);
    return most * root(sum, p_);
  }

 private:
  double p_;
  std::vector<double> values_;
};

// The tangent certificate of one point, over subsets of its own neurons (docs/mathematics.md#tangent). Its plane may be
// made from any values, lowered ones too (docs/mathematics.md#any-values).
class Tangent {
 public:
  explicit Tangent(const MarginNetwork& net)
      : net_(net),
        gram_(net.gram, net.width, net.width),
        scaled_(net.width),
        q_(net.width),
        weight_(net.width),
        term_(net.width),
        norm_(net.p) {}

  // A certified radius in units of ||x||, rounded down; whether y f > 0.
  double radius(const double* z, double y, std::uint8_t& correct) {
    correct = scaled_.at(net_, z, y) && balance(net_, scaled_, [&](Index j) { return z[j]; }) > 0.0;
    if (!correct) return 0.0;
    sides(z);
    const double log_unit = scaled_.level / net_.p;
    const double L = std::exp(net_.log_lipschitz[y > 0.0 ? 1 : 0] - log_unit);
    const double terms = static_cast<double>(net_.width);
    // Every p-norm errs by this factor: its terms and their sum by units of rounding, contributions by doubt and by
    // the rounding of their logarithms (docs/mathematics.md#rounding-tangent).
    const double relative = 2.0 * kEpsilon * (terms + 16.0 + std::abs(log_unit)) + net_.doubt;
    q_.setZero();
    double sum = 0.0, weights = 0.0, best = 0.0;
    Index next = 1, previous = 0;
    const auto all = static_cast<Index>(own_.size());
    for (Index m = 0; m < all; ++m) {
      const Index j = own_[static_cast<std::size_t>(m)];
      const double c = root_term(j, z);
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
    return std::max(0.0, std::min(best * kOutward, 1.0));
  }

 private:
  double root_term(Index j, const double* z) const { return scaled_.alpha(j) * (z[j] - net_.slack); }

  // The own neurons that are surely active, the largest first, and what the rivals are at most.
  void sides(const double* z) {
    own_.clear();
    norm_.clear();
    any_rival_ = false;
    for (Index j = 0; j < net_.width; ++j) {
      if (scaled_.side(j) > 0.0) {
        const double c = root_term(j, z);
        term_(j) = c;
        if (c > 0.0 && scaled_.alpha(j) < kLargest) own_.push_back(j);
      } else {
        any_rival_ = true;
        if (z[j] + net_.slack > 0.0) norm_.add(scaled_.alpha(j) * (z[j] + net_.slack));
      }
    }
    rival_ = norm_.value();
    std::sort(own_.begin(), own_.end(),
              [&](Index b, Index c) { return term_(b) != term_(c) ? term_(b) > term_(c) : b < c; });
  }

  // How fast g_S - g_T can fall with ||d||, S the first m + 1 own neurons; `unit` is g_S^(p-1).
  double fastest(Index m, double weights, double unit, double L, double relative) {
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

  const MarginNetwork& net_;
  ConstMatrixMap<double> gram_;
  Scaled scaled_;
  Scaled::Row q_, weight_, term_;
  PowerNorm norm_;
  std::vector<Index> own_;
  double rival_ = 0.0;
  bool any_rival_ = false;
};

}  // namespace

bool Scaled::at(const MarginNetwork& net, const double* z, double y) {
  level = -kInfinity;
  for (double slack : {net.slack, 0.0}) {
    for (Index j = 0; j < net.width; ++j) {
      side(j) = net.sign[j] == y ? 1.0 : -1.0;
      if (side(j) > 0.0 && z[j] > slack) level = std::max(level, net.log_a[j] + net.p * std::log(z[j] - slack));
    }
    if (std::isfinite(level)) break;
  }
  if (!std::isfinite(level)) return false;
  const Eigen::Map<const Row> log_a(net.log_a, net.width);
  label = y;
  signed_a = side * (log_a - level).exp();
  alpha = ((log_a - level) / net.p).exp();
  return true;
}

// docs/mathematics.md#rounding-witness
void errors(const MarginNetwork& net, const double* z, const double* y, Index n, bool room, std::uint8_t* out) {
  const double terms = static_cast<double>(net.width) + 8.0 * net.p;
  for (Index i = 0; i < n; ++i) {
    const double* zi = z + i * net.width;
    const auto against = [&](Index j) { return net.sign[j] == y[i] ? 1.0 : -1.0; };
    if (room) {
      const Balance f = balance_by_logs(
          net, y[i], [&](Index j) { return zi[j] + against(j) * net.slack; },
          [&](Index j) { return against(j) * net.doubt; });
      out[i] = f.difference + 4.0 * kEpsilon * (terms + f.logs) * f.size <= 0.0;
    } else {
      out[i] = 1;
      for (Index j = 0; j < net.width; ++j)
        if (against(j) > 0.0 && zi[j] > 0.0) out[i] = 0;
    }
  }
}

void certify(Team& team, const MarginNetwork& net, const double* z, const double* y, Index n, double* lower,
             std::uint8_t* correct) {
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    Tangent tangent(net);
    for (Index i = task * kBlock; i < std::min((task + 1) * kBlock, n); ++i)
      lower[i] = tangent.radius(z + i * net.width, y[i], correct[i]);
  });
}

}  // namespace preluflow
