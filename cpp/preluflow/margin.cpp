#include "preluflow/margin.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Index kBlock = 16;  // points of a task
// An attack within kEnough of the certificate is good enough; one not within kTight has much more tried.
constexpr double kEnough = 1.0 - 9.9e-4, kTight = 0.97;
constexpr std::size_t kMoreSwaps = 12;
constexpr int kMoreRestarts = 8, kHops = 24, kTrials = 100;
constexpr int kMultiples = 12, kFewMultiples = 3;  // at which a ray is looked at, first and when it is turned
constexpr Index kFew = 16;
constexpr double kWidths[] = {0.05, 0.2, 0.4, 0.8}, kBlurs[] = {0.1, 0.02, 0.0};

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine, for every number of threads.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream)
      : state_(seed * 0x9E3779B97F4A7C15ULL + stream * 0xD1B54A32D192ED03ULL) {}
  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  double uniform() {  // in (0, 1)
    std::uint64_t x = (state_ += 0x9E3779B97F4A7C15ULL);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    x ^= x >> 31;
    return (static_cast<double>(x >> 11) + 0.5) * 0x1.0p-53;
  }

 private:
  std::uint64_t state_;
};

using RowArray = Eigen::Array<double, 1, Eigen::Dynamic>;

// y f at z + t dz, up to the sign of y.
double value_along(const MarginNetwork& net, const double* signed_a, const double* z, const double* dz, double t) {
  double sum = 0.0;
  if (net.p == 3.0) {
    for (Index j = 0; j < net.width; ++j) {
      const double s = std::max(z[j] + t * dz[j], 0.0);
      sum += signed_a[j] * (s * s * s);
    }
  } else {
    for (Index j = 0; j < net.width; ++j) {
      const double s = z[j] + t * dz[j];
      if (s > 0.0) sum += signed_a[j] * power(s, net.p);
    }
  }
  return sum;
}

// A small t in (0, limit) at which y f changes sign, from the far side; infinite if none is found. Looked at are
// multiples of the limit, and where the strongest own neurons die: between that and a neighbour's birth y f may be
// negative briefly.
double crossing(const MarginNetwork& net, const double* own, const double* z, const double* dz, double limit,
                int multiples) {
  constexpr int kDeaths = 4;
  double probes[kMultiples + kDeaths], strength[kDeaths];
  int deaths = 0;
  for (Index j = 0; j < net.width; ++j) {
    if (!(own[j] > 0.0 && z[j] > 0.0 && dz[j] < 0.0)) continue;
    const double t = -z[j] / dz[j], force = own[j] * power(z[j], net.p);
    if (!(t < limit)) continue;
    int place = std::min(deaths, kDeaths - 1);
    if (deaths == kDeaths && force <= strength[place]) continue;
    for (; place > 0 && strength[place - 1] < force; --place) {
      strength[place] = strength[place - 1];
      probes[place] = probes[place - 1];
    }
    strength[place] = force;
    probes[place] = t * (1.0 + 1e-12);
    deaths = std::min(deaths + 1, kDeaths);
  }
  for (int k = 1; k <= multiples; ++k) probes[deaths + k - 1] = limit * k / multiples;
  for (int k = 1; k < deaths + multiples; ++k)  // insertion sort
    for (int m = k; m > 0 && probes[m - 1] > probes[m]; --m) std::swap(probes[m - 1], probes[m]);
  double before = 0.0, value_before = value_along(net, own, z, dz, 0.0);
  for (int probe = 0; probe < deaths + multiples; ++probe) {
    const double t = probes[probe];
    const double value = value_along(net, own, z, dz, t);
    if (value > 0.0) {
      before = t;
      value_before = value;
      continue;
    }
    // False position (Illinois), keeping t on the far side.
    double low = before, at_low = value_before, high = t, at_high = value;
    int side = 0;
    for (int k = 0; k < 60 && high - low > 1e-14 * high; ++k) {
      double middle = at_low > at_high ? low + (high - low) * at_low / (at_low - at_high) : 0.5 * (low + high);
      if (k % 3 == 2) middle = 0.5 * (low + high);
      middle = std::min(std::max(middle, low + 1e-15 * high), high - 1e-15 * high);
      if (!(middle > low && middle < high)) break;
      const double at_middle = value_along(net, own, z, dz, middle);
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
  return kInfinity;
}

}  // namespace

void certify(Team& team, const MarginNetwork& net, const double* z, const double* y, const double* norms, Index n,
             double* lower) {
  const Index h = net.width;
  const ConstMatrixMap<double> gram(net.gram, h, h);
  double total = 0.0;
  for (Index j = 0; j < h; ++j) total += net.a[j];
  const double largest = root(total, net.p);  // of g on the unit sphere
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    std::vector<Index> own;
    RowArray q(h), weight(h);
    for (Index i = task * kBlock; i < std::min((task + 1) * kBlock, n); ++i) {
      const double* zi = z + i * h;
      lower[i] = 0.0;
      own.clear();
      double rivals = 0.0;
      bool any_rival = false;
      for (Index j = 0; j < h; ++j) {
        if (net.sign[j] == y[i]) {
          if (zi[j] > 0.0) own.push_back(j);
        } else {
          any_rival = true;
          if (zi[j] > 0.0) rivals += net.a[j] * power(zi[j], net.p);
        }
      }
      const double g_rival = root(rivals, net.p), L = net.lipschitz[y[i] > 0.0 ? 1 : 0];
      // What float64 may have done to g_S - g_T: z is off by some units of rounding times ||x||.
      const double rounding = 64.0 * std::numeric_limits<double>::epsilon() * largest * norms[i];
      std::sort(own.begin(), own.end(), [&](Index b, Index c) {
        const double cb = net.a[b] * power(zi[b], net.p), cc = net.a[c] * power(zi[c], net.p);
        return cb != cc ? cb > cc : b < c;
      });
      q.setZero();
      double sum = 0.0, weights = 0.0, best = 0.0;
      Index next = 1, previous = 0;
      const auto all = static_cast<Index>(own.size());
      for (Index m = 0; m < all; ++m) {
        const Index j = own[static_cast<std::size_t>(m)];
        weight(m) = net.a[j] * slope(zi[j], net.p);
        weights += weight(m);
        sum += net.a[j] * power(zi[j], net.p);
        q += weight(m) * gram.row(j).array();
        if (m + 1 != next && m + 1 != all) continue;
        const Index fibonacci = next + previous;  // subsets of the 1, 2, 3, 5, 8, ... largest contributors, and all
        if (m + 1 == next) {
          previous = next;
          next = std::max(fibonacci, next + 1);
        }
        const double g_own = root(sum, net.p);
        if (g_own <= g_rival) continue;
        const double lost = 4.0 * std::numeric_limits<double>::epsilon() * static_cast<double>(h);
        double square = 0.0, back = 0.0;
        for (Index k = 0; k <= m; ++k) square += weight(k) * q(own[static_cast<std::size_t>(k)]);
        for (Index k = 0; k < h; ++k)
          if (net.sign[k] != y[i] && q(k) < lost * weights) back += net.a[k] * power(lost * weights - q(k), net.p);
        // ||G|| is what is left of sums of weights: what rounding took from it is given back.
        square = std::max(square, 0.0) + lost * weights * weights;
        const double unit = slope(g_own, net.p), norm = std::sqrt(square) / unit;
        double speed = norm;
        if (any_rival) speed = std::min(norm + L, std::sqrt(norm * norm + L * L + 2.0 * root(back, net.p) / unit));
        if (speed > 0.0) best = std::max(best, (g_own - g_rival - rounding) / speed);
      }
      lower[i] = std::max(0.0, std::min(best * (1.0 - 1e-9), norms[i]));
    }
  });
}

void attack(Team& team, const MarginNetwork& net, const double* z, const double* y, const double* norms,
            const double* lower, Index n, const AttackOptions& options, double* upper, double* beta) {
  const int starts = options.starts, steps = options.steps, restarts = options.restarts;
  const std::uint64_t seed = options.seed;
  const Index first = options.first;
  const Index h = net.width, groups = net.groups;
  const ConstMatrixMap<double> gram(net.gram, h, h);
  // Groups: weight A = sum a, direction sum a u / ||.||, in coefficients over the neurons.
  std::vector<double> A(static_cast<std::size_t>(groups), 0.0), sign(static_cast<std::size_t>(groups), 0.0);
  RowMatrix<double> member = RowMatrix<double>::Zero(groups, h);
  for (Index j = 0; j < h; ++j) {
    A[static_cast<std::size_t>(net.group_of[j])] += net.a[j];
    sign[static_cast<std::size_t>(net.group_of[j])] = net.sign[j];
    member(net.group_of[j], j) = net.a[j];
  }
  RowMatrix<double> reach = member.lazyProduct(gram);  // (groups, h) <c_g, u_j>
  for (Index g = 0; g < groups; ++g) {
    const double norm = std::sqrt(std::max(reach.row(g).dot(member.row(g)), 1e-300));
    member.row(g) /= norm;
    reach.row(g) /= norm;
  }
  const RowMatrix<double> between = reach.lazyProduct(member.transpose());  // (groups, groups) cosines
  Vector<double> force(groups);                                             // of a group as one neuron: A^(1/p)
  for (Index g = 0; g < groups; ++g) force(g) = root(A[static_cast<std::size_t>(g)], net.p);
  struct Start {
    double strength, reach;
    Index own, rival;
  };
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    RowArray point(h), own(h), direction(h), dz(h), c(h), best_beta(h), at(h), along(h);
    Vector<double> reached(groups);
    std::vector<Start> order;
    for (Index i = task * kBlock; i < std::min((task + 1) * kBlock, n); ++i) {
      // A copy at an aligned address, on which the bits of Eigen's sums do not depend then.
      point = ConstVectorMap<double>(z + i * h, h).transpose().array();
      const double* zi = point.data();
      MatrixMap<double> out(beta + i * h, 1, h);
      for (Index j = 0; j < h; ++j) own(j) = net.sign[j] == y[i] ? net.a[j] : -net.a[j];
      out.setZero();
      upper[i] = 0.0;
      if (value_along(net, own.data(), zi, zi, 0.0) <= 0.0) continue;
      double best = kInfinity;
      const double farthest = norms[i];  // the origin is an error
      // Along coefficients `direction` with products dz: how far to the boundary.
      const auto try_direction = [&](double limit, int multiples) {
        const double square = (direction * dz).sum();
        if (!(square > 0.0) || !std::isfinite(square)) return kInfinity;
        const double norm = std::sqrt(square);
        direction /= norm;
        dz /= norm;
        return crossing(net, own.data(), zi, dz.data(), limit, multiples);
      };
      const auto keep = [&](double t) {
        if (!(t < best)) return;
        best = t;
        best_beta = t * direction;
      };
      const auto good = [&] { return lower[i] > kEnough * best; };
      // From a boundary point, d parallel to the gradient there; with a smaller turn whenever that does not help.
      double blur = 0.0;  // averages the slope over a kink
      const auto refine = [&](double t, int count) {
        at = direction;
        along = dz;
        double turn = 1.0;
        for (int k = 0; k < count && turn > 1e-3; ++k) {
          if (blur > 0.0) {
            for (Index j = 0; j < h; ++j) {
              const double middle = zi[j] + t * along(j), off = blur * t;
              c(j) = -0.5 * own(j) * (slope(middle + off, net.p) + slope(middle - off, net.p));
            }
          } else {
            for (Index j = 0; j < h; ++j) c(j) = -own(j) * slope(zi[j] + t * along(j), net.p);
          }
          dz = (c.matrix() * gram).array();
          const double norm = std::sqrt(std::max((c * dz).sum(), 0.0));
          if (!(norm > 0.0)) return;
          direction = at + turn * (c / norm - at);
          dz = along + turn * (dz / norm - along);
          const double found = try_direction(t, kFewMultiples);
          if (found < t * (1.0 - 1e-12)) {
            const bool settled = found > t * (1.0 - 1e-9);
            t = found;
            at = direction;
            along = dz;
            keep(t);
            if (settled) return;
            turn = std::min(1.0, 2.0 * turn);
          } else {
            turn *= good() ? 0.05 : 0.3;
          }
        }
      };
      Random random(seed, static_cast<std::uint64_t>(first + i));
      // Along coefficients `direction`: to the boundary, and from there on.
      const auto start_from = [&](double limit) {
        const double found = try_direction(limit, kMultiples);
        if (!std::isfinite(found)) return;
        keep(found);
        refine(found, steps);
      };
      // The best direction and a random share of another.
      const auto hop = [&](double width) {
        for (Index j = 0; j < h; ++j) c(j) = random.normal();
        dz = (c.matrix() * gram).array();
        direction = best_beta / best + width / std::sqrt(std::max((c * dz).sum(), 1e-300)) * c;
        dz = (direction.matrix() * gram).array();
      };
      const auto along_coefficients = [&](double limit) {
        dz = (direction.matrix() * gram).array();
        start_from(limit);
      };
      // Swaps, in the order of the distance they would take if neurons of a group were one.
      order.clear();
      reached.noalias() = member * point.matrix().transpose();
      for (Index g = 0; g < groups; ++g) {
        if (sign[static_cast<std::size_t>(g)] != y[i]) continue;
        const double zg = reached(g), ag = force(g);
        if (zg <= 0.0) continue;
        for (Index r = 0; r < groups; ++r) {
          if (sign[static_cast<std::size_t>(r)] == y[i]) continue;
          const double ar = force(r), gap = ag * zg - ar * reached(r);
          const double speed = std::sqrt(std::max(ag * ag + ar * ar - 2.0 * ag * ar * between(g, r), 1e-300));
          order.push_back({ag * zg, gap / speed, g, r});
        }
      }
      const auto swap = [&](const Start& start) {
        const double ag = force(start.own), ar = force(start.rival);
        direction = (ar * member.row(start.rival) - ag * member.row(start.own)).array();
        dz = (ar * reach.row(start.rival) - ag * reach.row(start.own)).array();
        start_from(std::min(farthest, 1.25 * best));  // a longer start may end shorter
      };
      const auto nearer = [](const Start& b, const Start& e) {
        return b.reach != e.reach ? b.reach < e.reach : b.own != e.own ? b.own < e.own : b.rival < e.rival;
      };
      // The strongest own group decides: a weaker one's swap is cheap and changes nothing.
      std::sort(order.begin(), order.end(), [&](const Start& b, const Start& e) {
        return b.strength != e.strength ? b.strength > e.strength : nearer(b, e);
      });
      const auto swaps = std::min(static_cast<std::size_t>(starts), order.size());
      for (std::size_t k = 0; k < swaps && !good(); ++k) swap(order[k]);
      // The gradient at the point itself.
      if (!good()) {
        for (Index j = 0; j < h; ++j) direction(j) = -own(j) * slope(zi[j], net.p);
        along_coefficients(farthest);
      }
      // Seeded restarts: towards rivals and away from own neurons in random shares.
      const auto restart = [&] {
        for (Index j = 0; j < h; ++j) {
          const double share = -std::log(random.uniform());
          direction(j) = -share * std::copysign(root(std::abs(own(j)), net.p), own(j));
        }
        along_coefficients(farthest);
      };
      for (int k = 0; k < restarts && !good(); ++k) restart();
      // Where the certificate leaves much open the radius may be far below what these found, as between own groups or
      // at kinks, where no gradient leads: more swaps, restarts, and a random search around the best direction.
      if (restarts > 0 && !(lower[i] > kTight * best)) {
        std::sort(order.begin() + static_cast<std::ptrdiff_t>(swaps), order.end(), nearer);
        for (std::size_t k = swaps; k < std::min(order.size(), swaps + kMoreSwaps); ++k) swap(order[k]);
        for (int k = 0; k < kMoreRestarts; ++k) restart();
        // Hops from the best direction, refined again; few neurons are searched more densely without.
        for (int k = 0; k < kHops && std::isfinite(best) && best > 0.0; ++k) {
          blur = net.p < 2.0 ? kBlurs[k % 3] : 0.0;
          hop(kWidths[k % 4]);
          start_from(2.0 * best);
        }
        blur = 0.0;
        double width = 0.5;
        for (int k = 0; k < (h <= kFew ? kTrials : 0) && std::isfinite(best) && best > 0.0; ++k) {
          hop(width);
          const double before = best;
          keep(try_direction(best, kFewMultiples));
          width = best < before ? std::min(2.0 * width, 0.5) : std::max(0.9 * width, 1e-5);
        }
        direction = best_beta;
        if (std::isfinite(best)) along_coefficients(best);
      }
      upper[i] = best;
      if (std::isfinite(best)) out.row(0) = best_beta.matrix();
    }
  });
}

}  // namespace preluflow
