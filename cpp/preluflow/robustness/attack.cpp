#include "preluflow/robustness/attack.hpp"

#include <algorithm>

#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// An attack within kEnough of the certificate is good enough; one not within kTight has much more tried.
constexpr double kEnough = 1.0 - 9.9e-4, kTight = 0.97;
constexpr std::size_t kMoreSwaps = 12;
constexpr int kMoreRestarts = 8, kHops = 24, kTrials = 100;
constexpr int kFewHops = 8;  // where kinks are crossed besides, which finds more at less
constexpr int kMultiples = RayMargin::kMultiples, kFewMultiples = 3;  // first, and when a ray is turned
constexpr Index kFew = 16;                                            // neurons that are searched more densely
constexpr Index kFaces = 64;  // own neurons among which silent faces are looked for
constexpr double kWidths[] = {0.05, 0.2, 0.4, 0.8}, kBlurs[] = {0.1, 0.02, 0.0};
constexpr double kCorner = 4.0;       // units of slack within which a neuron counts as silent in a corner
constexpr double kStrongest = 1e100;  // a force beyond it, in units of the own side, is as good as this one
constexpr double kLonger = 1.25;      // a start so much longer than the best may end shorter
constexpr int kPolishes = 8, kToggles = 8;
constexpr std::size_t kToggled = 24;                 // rivals nearest to their kinks
constexpr Index kSmall = 32;                         // neurons among which narrow wedges are looked for
constexpr int kMixtures = 16;                        // of rivals, random
constexpr double kShares[] = {1.0, 0.3, 0.1, 0.03};  // of the strongest own force
constexpr double kFarthest = 1e3;                    // of the first guess, where nothing else bounds what is looked for
constexpr double kSilent = 1e-11;  // in units of the largest value: so much below 0 nothing is rounding
constexpr double kTurned = 1.0;    // where a tanh has turned enough
constexpr double kFar = 10.0;      // of the sum of bounds: directions that nearly depend on each other meet far away
constexpr double kFlats[] = {0.0, 0.3, 0.7};  // scales of values at which slopes of tanh are looked at

}  // namespace

Attack::Attack(const Neurons& net, const AttackOptions& options, const Interrupt& interrupt)
    : net_(net),
      options_(options),
      interrupt_(interrupt),
      gram_(net.gram, net.width, net.width),
      frame_(net),
      margin_(net),
      cuts_(net, frame_),
      c_(net.width),
      ray_(frame_.size(), net.width),
      at_(ray_),
      sum_(ray_),
      contact_(net.width),
      best_ray_(ray_),
      corner_ray_(ray_) {}

double Attack::run(const Pair& pair, const Groups& groups, const Point& point, double lower, std::uint64_t stream,
                   double limit) {
  begin(pair, groups, point, lower, limit);
  if (!margin_.set(pair, point)) return best_;
  if (!net_.homogeneous) guess_radius();
  Random random(options_.seed, stream);
  order_swaps(static_cast<std::size_t>(options_.starts));
  for (std::size_t k = 0; k < order_.size() && !good() && !stop(); ++k) swap(order_[k]);
  if (!good()) from_gradient();
  for (int k = 0; k < options_.restarts && !good() && !stop(); ++k) restart(random);
  // Where the certificate leaves much open the radius may be far below what these found, as between own groups or at
  // kinks, where no gradient leads: faces, more swaps, restarts, and a random search around the best direction.
  if (options_.restarts > 0 && !good() && !stop()) silence_own();
  if (options_.restarts > 0 && !(lower_ > kTight * aim())) search_more(random);
  if (!(corner_ < best_)) corner_ = kInfinity;
  return best_;
}

void Attack::begin(const Pair& pair, const Groups& groups, const Point& point, double lower, double limit) {
  pair_ = &pair;
  groups_ = &groups;
  frame_.at(pair.norm_side != 0.0 ? &point : nullptr);
  best_ = corner_ = kInfinity;
  lower_ = lower;
  limit_ = limit;
  length_ = point.length;
  blur_ = 0.0;
  for (Ray* ray : {&best_ray_, &corner_ray_, &ray_}) {
    ray->d.setZero();
    ray->dz.setZero();
    ray->share = ray->onto = 0.0;
  }
}

void Attack::guess_radius() {
  towards_gradient(0.0);
  guess_ = 2.0 * margin_.guess(std::sqrt(std::max(frame_.square(ray_), 0.0)), lower_);
}

bool Attack::good() const { return lower_ > kEnough * aim(); }

// How far a ray is followed that begins anew: in units of ||x|| the origin is an error; else as far as it takes, until
// there is something to beat.
double Attack::reach() const {
  if (net_.homogeneous) return std::min(1.0, kLonger * limit_);
  return 2.0 * aim();
}

void Attack::keep(double t) {
  if (!(t < best_)) return;
  best_ = t;
  best_ray_ = ray_;
  best_ray_ *= t;
}

// Along ray_, normalised here: how far to the boundary.
double Attack::reach_boundary(double limit, int multiples) {
  const double square = frame_.square(ray_);
  if (!(square > 0.0) || !std::isfinite(square)) return kInfinity;
  ray_ /= std::sqrt(square);
  if (std::isfinite(limit)) return margin_.crossing(ray_, limit, multiples);
  return margin_.far_crossing(ray_, guess_);
}

void Attack::start_from(double limit) {
  const double found = reach_boundary(limit, kMultiples);
  if (!std::isfinite(found)) return;
  keep(found);
  refine(found, options_.steps);
}

// From the direction sum_j c_j u_j.
void Attack::start_from_neurons(double limit) {
  frame_.of_neurons(c_, 0.0, ray_);
  start_from(limit);
}

// ray_ = -grad m / p at x + t ray_, up to a positive factor.
void Attack::towards_gradient(double t) {
  double share = 0.0;
  margin_.gradient(ray_, t, blur_, c_, share);
  if (share == 0.0) {
    frame_.of_neurons(c_, 0.0, ray_);
    return;
  }
  sum_ = ray_;
  frame_.of_neurons(c_, share, ray_);
  ray_.d += share * t * sum_.d;
  ray_.dz += share * t * sum_.dz;
  ray_.share += share * t * sum_.share;
  ray_.onto += share * t * sum_.onto;
}

// From a boundary point, d parallel to the gradient there; with a smaller turn whenever that does not help.
void Attack::refine(double t, int count) {
  at_ = ray_;
  double turn = 1.0;
  for (int k = 0; k < count && turn > 1e-3; ++k) {
    ray_ = at_;
    towards_gradient(t);
    const double norm = std::sqrt(std::max(frame_.square(ray_), 0.0));
    if (!(norm > 0.0)) return;
    ray_.d = at_.d + turn * (ray_.d / norm - at_.d);
    ray_.dz = at_.dz + turn * (ray_.dz / norm - at_.dz);
    ray_.share = at_.share + turn * (ray_.share / norm - at_.share);
    ray_.onto = at_.onto + turn * (ray_.onto / norm - at_.onto);
    const double found = reach_boundary(t, kFewMultiples);
    if (found < t * (1.0 - 1e-12)) {
      const bool settled = found > t * (1.0 - 1e-9);
      t = found;
      at_ = ray_;
      keep(t);
      if (settled) return;
      turn = std::min(1.0, 2.0 * turn);
    } else {
      turn *= good() ? 0.05 : 0.3;
    }
  }
}

// ---- starts

bool Attack::nearer(const Swap& b, const Swap& e) {
  return b.reach != e.reach ? b.reach < e.reach : b.own != e.own ? b.own < e.own : b.rival < e.rival;
}

// Of a group as one neuron, in units of the own side: A^(1/p).
double Attack::force(Index g) const {
  return std::min(std::exp((groups_->log_weight(g) - margin_.scaled().level) / net_.p), kStrongest);
}

void Attack::measure_groups() {
  const auto count = static_cast<std::size_t>(groups_->count());
  reached_.resize(count);
  force_.resize(count);
  for (std::size_t g = 0; g < count; ++g) {
    reached_[g] = groups_->sum(static_cast<Index>(g), margin_.z());
    force_[g] = force(static_cast<Index>(g));
  }
}

// Swaps of an own group, or of none, for each rival one, with the distance they would take if groups were neurons.
void Attack::swaps_from(Index own, double strength, std::vector<Swap>& out) const {
  const double ag = own < 0 ? 0.0 : force_[static_cast<std::size_t>(own)];
  for (Index r = 0; r < groups_->count(); ++r) {
    if (groups_->own(r)) continue;
    const double ar = force_[static_cast<std::size_t>(r)], value = reached_[static_cast<std::size_t>(r)];
    if (own < 0) {  // until it is as strong as the strongest own term
      out.push_back({strength, std::max(1.0 / ar - value, 0.0), own, r});
      continue;
    }
    const double gap = ag * reached_[static_cast<std::size_t>(own)] - ar * value;
    const double speed = std::sqrt(std::max(ag * ag + ar * ar - 2.0 * ag * ar * groups_->cosine(net_, own, r), 1e-300));
    out.push_back({strength, gap / speed, own, r});
  }
}

// The first so many swaps in order_: from the strongest own group, which decides - a weaker one's swap is cheap and
// changes nothing -, in the order of the distance they would take.
void Attack::order_swaps(std::size_t count) {
  order_.clear();
  measure_groups();
  more_.clear();  // own groups by strength
  for (Index g = 0; g < groups_->count(); ++g) {
    const double value = reached_[static_cast<std::size_t>(g)];
    if (groups_->own(g) && !(value <= 0.0)) more_.push_back({force_[static_cast<std::size_t>(g)] * value, 0.0, g, 0});
  }
  if (!net_.homogeneous) more_.push_back({0.0, 0.0, -1, 0});
  std::sort(more_.begin(), more_.end(), [](const Swap& b, const Swap& e) {
    return b.strength != e.strength ? b.strength > e.strength : b.own < e.own;
  });
  for (std::size_t k = 0; k < more_.size(); ++k) {
    if (order_.size() >= count && k > 0 && more_[k].strength < more_[k - 1].strength) break;
    swaps_from(more_[k].own, more_[k].strength, order_);
  }
  std::sort(order_.begin(), order_.end(), [](const Swap& b, const Swap& e) {
    return b.strength != e.strength ? b.strength > e.strength : nearer(b, e);
  });
  order_.resize(std::min(order_.size(), count));
}

// The kMoreSwaps nearest of the others, in more_.
void Attack::more_swaps() {
  std::vector<Index> own;
  for (const Swap& group : more_) own.push_back(group.own);
  more_.clear();
  std::vector<Swap> candidates;
  for (const Index g : own) {
    candidates.clear();
    swaps_from(g, 0.0, candidates);
    for (const Swap& swap : candidates) {
      const auto same = [&](const Swap& other) { return other.own == swap.own && other.rival == swap.rival; };
      if (more_.size() == kMoreSwaps && !nearer(swap, more_.back())) continue;
      if (std::any_of(order_.begin(), order_.end(), same)) continue;
      if (more_.size() == kMoreSwaps) more_.pop_back();
      more_.insert(std::upper_bound(more_.begin(), more_.end(), swap, nearer), swap);
    }
  }
}

void Attack::swap(const Swap& start) {
  c_.setZero();
  groups_->add(start.rival, start.own < 0 ? 1.0 : force_[static_cast<std::size_t>(start.rival)], c_);
  if (start.own >= 0) groups_->add(start.own, -force_[static_cast<std::size_t>(start.own)], c_);
  start_from_neurons(std::min(reach(), kLonger * aim()));
}

void Attack::from_gradient() {
  ray_.d.setZero();
  ray_.dz.setZero();
  ray_.share = ray_.onto = 0.0;
  towards_gradient(0.0);
  start_from(reach());
  if (pair_->norm_side != 0.0 && !good()) {  // its term vanishes in the centre
    c_.setZero();
    frame_.of_neurons(c_, -1.0, ray_);
    start_from(std::min(length_, kLonger * aim()));
  }
  if (net_.curve != Curve::tanh) return;
  for (const double flat : kFlats) {  // past slopes that have saturated
    if (good() || stop()) return;
    margin_.flat_gradient(flat, c_);
    start_from_neurons(reach());
  }
}

// Towards rivals and away from own neurons in random shares.
void Attack::restart(Random& random) {
  const Scaled& scaled = margin_.scaled();
  for (Index j = 0; j < net_.width; ++j) {
    const double share = -std::log(random.uniform());
    c_(j) = -share * scaled.side(j) * std::min(scaled.alpha(j), kStrongest);
  }
  start_from_neurons(reach());
}

// The best direction and a random share of another.
void Attack::hop(Random& random, double width) {
  for (Index k = 0; k < frame_.size(); ++k) ray_.d(k) = random.normal();
  ray_.share = 0.0;
  frame_.follow(ray_);
  const double norm = std::sqrt(std::max(frame_.square(ray_), 1e-300));
  ray_.d = best_ray_.d / best_ + width / norm * ray_.d;
  ray_.share = best_ray_.share / best_;
  frame_.follow(ray_);
}

void Attack::search_more(Random& random) {
  more_swaps();
  for (std::size_t k = 0; k < more_.size() && !stop(); ++k) swap(more_[k]);
  for (int k = 0; k < kMoreRestarts && !stop(); ++k) restart(random);
  // Hops from the best direction, refined again; few neurons are searched more densely without.
  const int hops = convex_parts() && net_.width > kSmall ? kFewHops : kHops;
  for (int k = 0; k < hops && any() && !stop(); ++k) {
    blur_ = net_.curve == Curve::power && net_.p < 2.0 ? kBlurs[k % 3] : 0.0;
    hop(random, kWidths[k % 4]);
    start_from(2.0 * best_);
  }
  blur_ = 0.0;
  if (convex_parts()) {
    polish();
    toggle_rivals();
    if (net_.width <= kSmall || !any()) {
      wake_rivals(random);
      toggle_rivals();
    }
  }
  if (net_.width <= kFew) look_around(random);
  ray_.d = best_ray_.d;
  ray_.share = best_ray_.share;
  frame_.follow(ray_);
  if (std::isfinite(best_)) start_from(best_);
}

// Random directions around the best one, nearer whenever they are no better.
void Attack::look_around(Random& random) {
  double width = 0.5;
  for (int k = 0; k < kTrials && any(); ++k) {
    hop(random, width);
    const double before = best_;
    keep(reach_boundary(best_, kFewMultiples));
    width = best_ < before ? std::min(2.0 * width, 0.5) : std::max(0.9 * width, 1e-5);
  }
}

// ---- kinks

// Where p < 2 slopes jump, or nearly, and small networks have narrow wedges. The norm's term must not be in the way: it
// is convex or concave as it likes.
bool Attack::convex_parts() const {
  const bool asked = net_.p < 2.0 || net_.width <= kSmall || !any();
  return net_.curve == Curve::power && asked && margin_.norm_is_constant();
}

// From the best perturbation, with rivals' tangents where it is, as long as that helps.
void Attack::polish() {
  for (int k = 0; k < kPolishes && any() && !stop(); ++k) {
    contact_ = margin_.z() + best_ray_.dz;
    if (!from_contacts()) return;
  }
}

// The shortest error that rivals' tangents at contact_ allow; whether it is shorter than the best one.
bool Attack::from_contacts() {
  const double limit = std::min(best_, net_.homogeneous ? 1.0 : kFarthest * guess_);
  if (!cuts_.run(margin_, contact_, best_ray_, limit, ray_)) return false;
  frame_.follow(ray_);  // its products were sums of large terms where cuts are nearly parallel
  const double before = best_, found = reach_boundary(limit, kMultiples);
  keep(found);
  return best_ < before * (1.0 - 1e-7);
}

// A silent rival's tangent is 0, so that nothing wakes it: rivals near their kinks are put on the other side of it.
void Attack::toggle_rivals() {
  std::vector<std::pair<double, Index>> rivals;
  for (int round = 0; round < kToggles && any() && !stop(); ++round) {
    rivals.clear();
    for (Index j = 0; j < net_.width; ++j) {
      if (pair_->side[j] > 0.0 || !moves(j)) continue;
      rivals.emplace_back(std::abs(margin_.z()(j) + best_ray_.dz(j)), j);
    }
    std::sort(rivals.begin(), rivals.end());
    bool shorter = false;
    for (std::size_t k = 0; k < std::min(rivals.size(), kToggled) && !shorter && !stop(); ++k) {
      contact_ = margin_.z() + best_ray_.dz;
      contact_(rivals[k].second) *= -1.0;
      shorter = from_contacts();
    }
    if (!shorter) return;
    polish();
  }
}

// Errors may lie in narrow wedges, of which rays from x know nothing: tangents where a rival alone is as strong as the
// strongest own term, or a share of it, with the others where they are or silent, and where random mixtures of rivals
// are.
void Attack::wake_rivals(Random& random) {
  const Scaled& scaled = margin_.scaled();
  std::vector<std::pair<double, Index>> rivals;
  for (Index j = 0; j < net_.width; ++j)
    if (pair_->side[j] < 0.0 && moves(j) && scaled.alpha(j) > 0.0)
      rivals.emplace_back(1.0 / scaled.alpha(j) - margin_.z()(j), j);
  std::sort(rivals.begin(), rivals.end());
  rivals.resize(std::min(rivals.size(), kToggled));
  for (const double share : kShares)
    for (const auto& [reach, rival] : rivals)
      for (const bool alone : {false, true}) {
        if (stop()) return;
        const double value = std::max(share / scaled.alpha(rival), margin_.z()(rival));
        contact_ = margin_.z();
        if (alone) contact_.setZero();
        contact_(rival) = value;
        if (from_contacts()) polish();
      }
  for (int k = 0; k < kMixtures && !rivals.empty() && !stop(); ++k) {
    c_.setZero();
    for (const auto& [reach, rival] : rivals)
      c_(rival) = -std::log(random.uniform()) * std::min(scaled.alpha(rival), kStrongest);
    frame_.of_neurons(c_, 0.0, ray_);
    const double norm = std::sqrt(std::max(frame_.square(ray_), 1e-300));
    contact_ = ray_.dz * (length_ / norm);
    if (from_contacts()) polish();
  }
}

// ---- faces

// Own neurons die into m = 0 on faces to which no gradient leads: the nearest point where all are silent, and those
// where all but one are, or only one. Constants are never silent.
void Attack::silence_own() {
  if (net_.curve == Curve::tanh) {
    turn_signs();
    return;
  }
  std::vector<Index> own;
  for (Index j = 0; j < net_.width; ++j)
    if (pair_->side[j] > 0.0 && moves(j)) own.push_back(j);
  if (static_cast<Index>(own.size()) > kFaces) return;
  if (!own.empty()) silence(own);
  if (static_cast<Index>(own.size()) > kFew) return;
  for (std::size_t k = 0; k < own.size() && own.size() > 1; ++k) {
    std::vector<Index> others(own);
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
    silence(others);
    if (own.size() > 2) silence({own[k]});
  }
  if (!net_.homogeneous && net_.width <= kFew) raise_rivals(own);
}

// Starts towards the nearest point where these neurons are silent.
void Attack::silence(const std::vector<Index>& own) {
  std::vector<Bound> bounds;
  for (const Index j : own) bounds.push_back({j, 1.0, margin_.z()(j)});
  const double before = best_, corner_before = corner_;
  meet(bounds, true);
  if (best_ < before || corner_ < corner_before || good()) return;
  const double more = kSilent * margin_.z().abs().maxCoeff();  // the program's own rounding kept some of them alive
  for (Bound& bound : bounds) bound.excess += more;
  meet(bounds, false);
}

// Silence is no error where a constant speaks for the point: a rival has to be as strong as the strongest own term,
// while all or each of the own neurons are silent.
void Attack::raise_rivals(const std::vector<Index>& own) {
  for (Index r = 0; r < net_.width; ++r) {
    if (pair_->side[r] > 0.0 || !moves(r) || !(margin_.scaled().alpha(r) > 0.0)) continue;
    const Bound raised{r, -1.0, 1.0 / margin_.scaled().alpha(r) - margin_.z()(r)};
    std::vector<Bound> bounds{raised};
    for (const Index j : own) {
      bounds.push_back({j, 1.0, margin_.z()(j)});
      meet({raised, bounds.back()}, false);
    }
    meet(bounds, false);
  }
}

// Starts towards the nearest points where all terms of a tanh network, all but one, or only one, speak against the
// point's class.
void Attack::turn_signs() {
  std::vector<Bound> bounds;
  for (Index j = 0; j < net_.width; ++j) {
    if (!moves(j)) continue;
    const double length = std::sqrt(gram_(j, j)), side = pair_->side[j];
    bounds.push_back({j, side / length, (side * margin_.z()(j) + kTurned) / length});
  }
  if (bounds.empty() || static_cast<Index>(bounds.size()) > kFaces) return;
  meet(bounds, false);
  if (static_cast<Index>(bounds.size()) > kFew) return;
  for (std::size_t k = 0; k < bounds.size() && bounds.size() > 1; ++k) {
    std::vector<Bound> others(bounds);
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(k));
    meet(others, false);
    meet({bounds[k]}, false);
  }
}

// Whether a perturbation changes the neuron's part in the pair.
bool Attack::moves(Index j) const { return std::isfinite(pair_->log_a[j]) && gram_(j, j) > 0.0; }

// Starts towards the nearest point within these bounds.
void Attack::meet(const std::vector<Bound>& bounds, bool corners) {
  const auto count = static_cast<Index>(bounds.size());
  const auto bound = [&](Index i) -> const Bound& { return bounds[static_cast<std::size_t>(i)]; };
  Eigen::MatrixXd M(count, count);
  Eigen::VectorXd e(count);
  for (Index i = 0; i < count; ++i) {
    e(i) = bound(i).excess;
    for (Index j = 0; j < count; ++j) M(i, j) = bound(i).side * bound(j).side * gram_(bound(i).neuron, bound(j).neuron);
  }
  const double most = net_.homogeneous ? 1.0 : std::min(kLonger * aim(), kFar * e.lpNorm<1>());  // farther is of no use
  const Eigen::VectorXd weights = min_norm_weights(M, e, most);
  const auto towards = [&](double length) {
    c_.setZero();
    for (Index i = 0; i < count; ++i) c_(bound(i).neuron) = -bound(i).side * weights(i) / length;
    frame_.of_neurons(c_, 0.0, ray_);
  };
  towards(1.0);
  const double length = std::sqrt(std::max(frame_.square(ray_), 0.0));
  if (!(length > 0.0)) return;
  const double limit = std::min(most, length * (1.0 + 1e-9));
  start_from(limit);
  if (!corners) return;
  towards(length);
  look_for_corners(limit);
}

// Where own neurons die along the ray, and the others are silent but for rounding.
void Attack::look_for_corners(double limit) {
  for (Index j = 0; j < net_.width; ++j) {
    if (!(pair_->side[j] > 0.0 && margin_.z()(j) > 0.0 && ray_.dz(j) < 0.0)) continue;
    const double t = -margin_.z()(j) / ray_.dz(j);
    if (!(t <= limit && t < corner_) || !margin_.silent(ray_, t, kCorner)) continue;
    corner_ = t;
    corner_ray_ = ray_;
    corner_ray_ *= t;
  }
}

}  // namespace preluflow
