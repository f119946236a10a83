#include "preluflow/robustness/attack.hpp"

#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// An attack within kEnough of the certificate is good enough; one not within kTight has much more tried.
constexpr double kEnough = 1.0 - 9.9e-4, kTight = 0.97;
constexpr std::size_t kMoreSwaps = 12;
constexpr int kMoreRestarts = 8, kHops = 24, kTrials = 100;
constexpr int kMultiples = 12, kFewMultiples = 3;  // at which a ray is looked at, first and when it is turned
constexpr Index kFew = 16;                         // neurons that are searched more densely
constexpr Index kFaces = 64;                       // own neurons among which silent faces are looked for
constexpr double kWidths[] = {0.05, 0.2, 0.4, 0.8}, kBlurs[] = {0.1, 0.02, 0.0};
constexpr double kCorner = 4.0;       // units of slack within which a neuron counts as silent in a corner
constexpr double kStrongest = 1e100;  // a force beyond it, in units of the own side, is as good as this one

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

using Row = Scaled::Row;

// A perturbation d as numbers: its coordinates where the network has them, else its coefficients over the neurons,
// whose Gram matrix knows small differences of neurons by their squares only.
class Frame {
 public:
  explicit Frame(const Neurons& net)
      : rows_(net.rows, net.rank > 0 ? net.width : 0, net.rank), gram_(net.gram, net.width, net.width) {}

  Index size() const { return rows_.rows() > 0 ? rows_.cols() : gram_.rows(); }

  // d = sum_j c_j u_j
  void of_neurons(const Row& c, Row& d) const {
    if (rows_.rows() > 0) {
      d = (c.matrix() * rows_).array();
    } else {
      d = c;
    }
  }
  // dz_j = <d, u_j>
  void products(const Row& d, Row& dz) const {
    if (rows_.rows() > 0) {
      dz = (d.matrix() * rows_.transpose()).array();
    } else {
      dz = (d.matrix() * gram_).array();
    }
  }
  // ||d||^2, given these
  double square(const Row& d, const Row& dz) const { return rows_.rows() > 0 ? d.square().sum() : (d * dz).sum(); }

 private:
  ConstMatrixMap<double> rows_, gram_;
};

}  // namespace

// The search for one point; used again for the next one.
class PointAttack {
 public:
  PointAttack(const Neurons& net, const AttackOptions& options, const Interrupt& interrupt)
      : net_(net),
        options_(options),
        interrupt_(interrupt),
        gram_(net.gram, net.width, net.width),
        frame_(net),
        scaled_(net.width),
        z_(net.width),
        direction_(frame_.size()),
        dz_(net.width),
        c_(net.width),
        at_(frame_.size()),
        along_(net.width),
        best_d_(frame_.size()),
        corner_d_(frame_.size()) {}

  // The shortest length found, at most 1 (the origin is an error) if anything was; best_d() is it in the frame.
  double run(const Pair& pair, const Groups& groups, const Point& point, double lower, std::uint64_t stream) {
    pair_ = &pair;
    groups_ = &groups;
    noise_ = 2.0 * pair.most_doubt + 4.0 * kEpsilon * static_cast<double>(net_.width);
    // Copies at aligned addresses, on which the bits of Eigen's sums do not depend then.
    z_ = ConstVectorMap<double>(point.z, net_.width).transpose().array();
    slack_ = ConstVectorMap<double>(point.slack, net_.width).transpose().array();
    best_ = kInfinity;
    lower_ = lower;
    blur_ = 0.0;
    best_d_.setZero();
    corner_ = kInfinity;
    corner_d_.setZero();
    if (!scaled_.at(net_, pair, point)) return best_;
    Random random(options_.seed, stream);
    order_swaps();
    const auto swaps = std::min(static_cast<std::size_t>(options_.starts), order_.size());
    for (std::size_t k = 0; k < swaps && !good() && !stop(); ++k) swap(order_[k]);
    if (!good()) from_gradient();
    for (int k = 0; k < options_.restarts && !good() && !stop(); ++k) restart(random);
    // Where the certificate leaves much open the radius may be far below what these found, as between own groups or at
    // kinks, where no gradient leads: faces, more swaps, restarts, and a random search around the best direction.
    if (options_.restarts > 0 && !good() && !stop()) silence_own();
    if (options_.restarts > 0 && !(lower_ > kTight * best_)) search_more(random, swaps);
    if (!(corner_ < best_)) corner_ = kInfinity;
    return best_;
  }

  const Row& best_d() const { return best_d_; }

  // Whether run() ended early because it was asked to.
  bool stopped() const { return stopped_; }

  // The shortest length found to a corner: own neurons are silent there and active again on its other side, so that
  // the error is one exactly in the corner, if float64 can meet it. Infinite if there is none below best.
  double corner() const { return corner_; }
  const Row& corner_d() const { return corner_d_; }

 private:
  struct Swap {
    double strength, reach;
    Index own, rival;
  };

  bool stop() { return stopped_ = stopped_ || asked_to_stop(interrupt_); }

  bool good() const { return lower_ > kEnough * best_; }

  double value(double t) const {
    return balance(net_, *pair_, scaled_, [&](Index j) { return z_(j) + t * dz_(j); }, noise_);
  }

  void keep(double t) {
    if (!(t < best_)) return;
    best_ = t;
    best_d_ = t * direction_;
  }

  void follow_direction() { frame_.products(direction_, dz_); }

  // Along direction_ with products dz_, both normalised here: how far to the boundary.
  double reach_boundary(double limit, int multiples) {
    const double square = frame_.square(direction_, dz_);
    if (!(square > 0.0) || !std::isfinite(square)) return kInfinity;
    const double norm = std::sqrt(square);
    direction_ /= norm;
    dz_ /= norm;
    return crossing(limit, multiples);
  }

  void start_from(double limit) {
    const double found = reach_boundary(limit, kMultiples);
    if (!std::isfinite(found)) return;
    keep(found);
    refine(found, options_.steps);
  }

  // From the direction sum_j c_j u_j.
  void start_from_neurons(double limit) {
    frame_.of_neurons(c_, direction_);
    follow_direction();
    start_from(limit);
  }

  double crossing(double limit, int multiples);
  void look_for_corners(double limit);
  double between_signs(double low, double at_low, double high, double at_high) const;
  void gradient_at(double t);
  void refine(double t, int count);

  // ---- starts

  // Swaps of an own group for a rival one, in the order of the distance they would take if groups were neurons.
  void order_swaps() {
    order_.clear();
    reached_ = groups_->member * z_.matrix().transpose();
    for (Index g = 0; g < pair_->groups; ++g) {
      if (!(groups_->side[static_cast<std::size_t>(g)] > 0.0)) continue;
      const double zg = reached_(g), ag = force(g);
      if (zg <= 0.0) continue;
      for (Index r = 0; r < pair_->groups; ++r) {
        if (groups_->side[static_cast<std::size_t>(r)] > 0.0) continue;
        const double ar = force(r), gap = ag * zg - ar * reached_(r);
        const double speed = std::sqrt(std::max(ag * ag + ar * ar - 2.0 * ag * ar * groups_->between(g, r), 1e-300));
        order_.push_back({ag * zg, gap / speed, g, r});
      }
    }
    // The strongest own group decides: a weaker one's swap is cheap and changes nothing.
    std::sort(order_.begin(), order_.end(), [](const Swap& b, const Swap& e) {
      return b.strength != e.strength ? b.strength > e.strength : nearer(b, e);
    });
  }

  static bool nearer(const Swap& b, const Swap& e) {
    return b.reach != e.reach ? b.reach < e.reach : b.own != e.own ? b.own < e.own : b.rival < e.rival;
  }

  // Of a group as one neuron, in units of the own side: A^(1/p).
  double force(Index g) const {
    return std::min(std::exp((groups_->log_weight[static_cast<std::size_t>(g)] - scaled_.level) / net_.p), kStrongest);
  }

  void swap(const Swap& start) {
    const double ag = force(start.own), ar = force(start.rival);
    c_ = (ar * groups_->member.row(start.rival) - ag * groups_->member.row(start.own)).array();
    start_from_neurons(std::min(1.0, 1.25 * best_));  // a longer start may end shorter
  }

  void from_gradient() {
    dz_.setZero();
    gradient_at(0.0);
    start_from_neurons(1.0);
  }

  // Towards rivals and away from own neurons in random shares.
  void restart(Random& random) {
    for (Index j = 0; j < net_.width; ++j) {
      const double share = -std::log(random.uniform());
      c_(j) = -share * scaled_.side(j) * std::min(scaled_.alpha(j), kStrongest);
    }
    start_from_neurons(1.0);
  }

  // The best direction and a random share of another.
  void hop(Random& random, double width) {
    for (Index k = 0; k < frame_.size(); ++k) direction_(k) = random.normal();
    follow_direction();
    const double norm = std::sqrt(std::max(frame_.square(direction_, dz_), 1e-300));
    direction_ = best_d_ / best_ + width / norm * direction_;
    follow_direction();
  }

  bool any() const { return std::isfinite(best_) && best_ > 0.0; }

  void search_more(Random& random, std::size_t swaps);
  void silence_own();
  void silence(const std::vector<Index>& own);

  const Neurons& net_;
  const Pair* pair_ = nullptr;
  const Groups* groups_ = nullptr;
  const AttackOptions& options_;
  const Interrupt& interrupt_;
  bool stopped_ = false;
  ConstMatrixMap<double> gram_;
  Frame frame_;
  Scaled scaled_;
  Row z_, slack_, direction_, dz_, c_, at_, along_, best_d_, corner_d_;
  Vector<double> reached_;
  std::vector<Swap> order_;
  double best_ = kInfinity, lower_ = 0.0, corner_ = kInfinity;
  double blur_ = 0.0;   // averages the slope over a kink
  double noise_ = 0.0;  // share of the terms' sizes that a sum of them may be wrong by
};

// A small t in (0, limit] at which y f changes sign, from the far side; infinite if none is found. Looked at are
// multiples of the limit, and where the strongest own neurons die: between that and a neighbour's birth y f may be
// negative briefly.
double PointAttack::crossing(double limit, int multiples) {
  constexpr int kDeaths = 4;
  double probes[kMultiples + kDeaths], strength[kDeaths];
  int deaths = 0;
  for (Index j = 0; j < net_.width; ++j) {
    if (!(scaled_.side(j) > 0.0 && z_(j) > 0.0 && dz_(j) < 0.0)) continue;
    const double t = -z_(j) / dz_(j), force = scaled_.alpha(j) * z_(j);
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
  std::sort(probes, probes + deaths + multiples);
  double before = 0.0, value_before = value(0.0);
  for (int probe = 0; probe < deaths + multiples; ++probe) {
    const double t = probes[probe], here = value(t);
    if (!(here > 0.0)) return between_signs(before, value_before, t, here);
    before = t;
    value_before = here;
  }
  return kInfinity;
}

// Where own neurons die along the direction, and the others are silent but for rounding.
void PointAttack::look_for_corners(double limit) {
  for (Index j = 0; j < net_.width; ++j) {
    if (!(scaled_.side(j) > 0.0 && z_(j) > 0.0 && dz_(j) < 0.0)) continue;
    const double t = -z_(j) / dz_(j);
    if (!(t <= limit && t < corner_)) continue;
    const auto lowered = [&](Index k) {
      return z_(k) + t * dz_(k) - (scaled_.side(k) > 0.0 ? kCorner * slack_(k) : 0.0);
    };
    if (balance(net_, *pair_, scaled_, lowered) > 0.0) continue;
    corner_ = t;
    corner_d_ = t * direction_;
  }
}

// False position (Illinois), keeping what it returns on the far side.
double PointAttack::between_signs(double low, double at_low, double high, double at_high) const {
  int side = 0;
  for (int k = 0; k < 60 && high - low > 1e-14 * high; ++k) {
    double middle = at_low > at_high ? low + (high - low) * at_low / (at_low - at_high) : 0.5 * (low + high);
    if (k % 3 == 2) middle = 0.5 * (low + high);
    middle = std::min(std::max(middle, low + 1e-15 * high), high - 1e-15 * high);
    if (!(middle > low && middle < high)) break;
    const double at_middle = value(middle);
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

// c_ = the coefficients of -grad(y f) / p at z + t dz, up to a positive factor.
void PointAttack::gradient_at(double t) {
  const double off = blur_ * t;
  const auto slope_at = [&](double s) {
    return blur_ > 0.0 ? 0.5 * (slope(s + off, net_.p) + slope(s - off, net_.p)) : slope(s, net_.p);
  };
  for (Index j = 0; j < net_.width; ++j) {
    const double s = z_(j) + t * dz_(j);
    c_(j) = s + off > 0.0 ? -scaled_.signed_a(j) * slope_at(s) : 0.0;
  }
  const double largest = c_.abs().maxCoeff();
  if (largest > 1e-150 && largest < 1e150) return;
  // Powers have left float64: relative to the largest, by logarithms.
  double most = -kInfinity;
  for (Index j = 0; j < net_.width; ++j) {
    const double s = z_(j) + t * dz_(j);
    c_(j) = s > 0.0 ? pair_->log_a[j] + (net_.p - 1.0) * std::log(s) : -kInfinity;
    most = std::max(most, c_(j));
  }
  for (Index j = 0; j < net_.width; ++j) c_(j) = std::isfinite(c_(j)) ? -scaled_.side(j) * std::exp(c_(j) - most) : 0.0;
}

// From a boundary point, d parallel to the gradient there; with a smaller turn whenever that does not help.
void PointAttack::refine(double t, int count) {
  at_ = direction_;
  along_ = dz_;
  double turn = 1.0;
  for (int k = 0; k < count && turn > 1e-3; ++k) {
    dz_ = along_;
    gradient_at(t);
    frame_.of_neurons(c_, direction_);
    follow_direction();
    const double norm = std::sqrt(std::max(frame_.square(direction_, dz_), 0.0));
    if (!(norm > 0.0)) return;
    direction_ = at_ + turn * (direction_ / norm - at_);
    dz_ = along_ + turn * (dz_ / norm - along_);
    const double found = reach_boundary(t, kFewMultiples);
    if (found < t * (1.0 - 1e-12)) {
      const bool settled = found > t * (1.0 - 1e-9);
      t = found;
      at_ = direction_;
      along_ = dz_;
      keep(t);
      if (settled) return;
      turn = std::min(1.0, 2.0 * turn);
    } else {
      turn *= good() ? 0.05 : 0.3;
    }
  }
}

void PointAttack::search_more(Random& random, std::size_t swaps) {
  std::sort(order_.begin() + static_cast<std::ptrdiff_t>(swaps), order_.end(), nearer);
  for (std::size_t k = swaps; k < std::min(order_.size(), swaps + kMoreSwaps) && !stop(); ++k) swap(order_[k]);
  for (int k = 0; k < kMoreRestarts && !stop(); ++k) restart(random);
  // Hops from the best direction, refined again; few neurons are searched more densely without.
  for (int k = 0; k < kHops && any() && !stop(); ++k) {
    blur_ = net_.p < 2.0 ? kBlurs[k % 3] : 0.0;
    hop(random, kWidths[k % 4]);
    start_from(2.0 * best_);
  }
  blur_ = 0.0;
  double width = 0.5;
  for (int k = 0; k < (net_.width <= kFew ? kTrials : 0) && any(); ++k) {
    hop(random, width);
    const double before = best_;
    keep(reach_boundary(best_, kFewMultiples));
    width = best_ < before ? std::min(2.0 * width, 0.5) : std::max(0.9 * width, 1e-5);
  }
  direction_ = best_d_;
  follow_direction();
  if (std::isfinite(best_)) start_from(best_);
}

// Own neurons die into f = 0 on faces to which no gradient leads: the nearest point where all are silent, and those
// where all but one are, or only one.
void PointAttack::silence_own() {
  std::vector<Index> own;
  for (Index j = 0; j < net_.width; ++j)
    if (scaled_.side(j) > 0.0) own.push_back(j);
  if (own.empty() || static_cast<Index>(own.size()) > kFaces) return;
  silence(own);
  if (static_cast<Index>(own.size()) > kFew) return;
  for (std::size_t k = 0; k < own.size() && own.size() > 1; ++k) {
    std::vector<Index> others(own);
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
    silence(others);
    if (own.size() > 2) silence({own[k]});
  }
}

// Starts towards the nearest point where these neurons are silent.
void PointAttack::silence(const std::vector<Index>& own) {
  const auto count = static_cast<Index>(own.size());
  Eigen::MatrixXd M(count, count);
  Eigen::VectorXd e(count);
  for (Index i = 0; i < count; ++i) {
    e(i) = z_(own[static_cast<std::size_t>(i)]);
    for (Index j = 0; j < count; ++j)
      M(i, j) = gram_(own[static_cast<std::size_t>(i)], own[static_cast<std::size_t>(j)]);
  }
  const Eigen::VectorXd weights = min_norm_weights(M, e, 1.0);
  const auto towards = [&](double length) {
    c_.setZero();
    for (Index i = 0; i < count; ++i) c_(own[static_cast<std::size_t>(i)]) = -weights(i) / length;
    frame_.of_neurons(c_, direction_);
    follow_direction();
  };
  towards(1.0);
  const double length = std::sqrt(std::max(frame_.square(direction_, dz_), 0.0));
  if (!(length > 0.0)) return;
  const double limit = std::min(1.0, length * (1.0 + 1e-9));
  start_from(limit);
  towards(length);
  look_for_corners(limit);
}

Groups::Groups(const Neurons& net, const Pair& pair)
    : log_weight(static_cast<std::size_t>(pair.groups), -kInfinity),
      side(static_cast<std::size_t>(pair.groups), 0.0),
      member(RowMatrix<double>::Zero(pair.groups, net.width)) {
  const auto of = [&](Index j) { return static_cast<std::size_t>(pair.group_of[j]); };
  std::vector<double> most(log_weight);
  for (Index j = 0; j < net.width; ++j) most[of(j)] = std::max(most[of(j)], pair.log_a[j]);
  for (Index j = 0; j < net.width; ++j) {
    side[of(j)] = pair.side[j];
    member(pair.group_of[j], j) = std::exp(pair.log_a[j] - most[of(j)]);
  }
  for (std::size_t g = 0; g < log_weight.size(); ++g)
    log_weight[g] = most[g] + std::log(member.row(static_cast<Index>(g)).sum());
  const ConstMatrixMap<double> gram(net.gram, net.width, net.width);
  RowMatrix<double> reach = member.lazyProduct(gram);  // (groups, h) <c_g, u_j>
  for (Index g = 0; g < pair.groups; ++g) {
    const double norm = std::sqrt(std::max(reach.row(g).dot(member.row(g)), 1e-300));
    member.row(g) /= norm;
    reach.row(g) /= norm;
  }
  between = reach.lazyProduct(member.transpose());
}

Index frame_size(const Neurons& net) { return net.rank > 0 ? net.rank : net.width; }

Attack::Attack(const Neurons& net, const AttackOptions& options, const Interrupt& interrupt)
    : search_(std::make_unique<PointAttack>(net, options, interrupt)) {}
Attack::~Attack() = default;

double Attack::run(const Pair& pair, const Groups& groups, const Point& point, double lower, std::uint64_t stream) {
  return search_->run(pair, groups, point, lower, stream);
}
bool Attack::stopped() const { return search_->stopped(); }
const Scaled::Row& Attack::d() const { return search_->best_d(); }
double Attack::corner() const { return search_->corner(); }
const Scaled::Row& Attack::corner_d() const { return search_->corner_d(); }

}  // namespace preluflow
