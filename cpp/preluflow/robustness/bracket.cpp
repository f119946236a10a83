#include "preluflow/robustness/bracket.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "preluflow/robustness/attack.hpp"
#include "preluflow/robustness/branch_and_bound.hpp"
#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/robustness/points.hpp"
#include "preluflow/robustness/tangent.hpp"
#include "preluflow/robustness/witness.hpp"

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kOutward = 1.0 - 1e-9;  // of a certificate that is the distance to the centre
// Level exact begins with all that level tight does, so that it only adds to it.
constexpr double kTight = 1e-3;    // the gap of level tight
constexpr double kLoose = 0.02;    // where trust regions leave more open, it goes on by branch and bound, to this gap
constexpr Index kFewNodes = 12;    // or so many nodes
constexpr Index kFewRank = 256;    // in spans of so many dimensions at most: a node takes a second where there are 500
constexpr int kRefinements = 3;    // of branch and bound, again from a shorter witness each
constexpr double kRounded = 1e-4;  // relative difference of a witness and what the attack found that may be rounding

using Row = Scaled::Row;

// One rival class of a point: what is certified against it, and the shortest perturbation the attack found, in the
// attack's frame. All lengths are in the point's unit.
struct Rival {
  Index c = 0;
  double lower = 0.0, length = kInfinity;
  Row d;
  double share = 0.0;         // of x, besides
  double corner = kInfinity;  // of an error in one point only
  Row corner_d;
  double corner_share = 0.0;
  double most = kInfinity;  // what lower may be at most, since the centre is an error
  Certificate certificate = Certificate::tangent;

  void cap() { lower = std::min(lower, most); }
};

// What is known of a point.
struct Work {
  std::vector<Rival> rivals;  // the least certified first
  bool correct = true;
  double upper = kInfinity;  // length of the witness, in the point's unit; infinite where none is known
  Index nearest = -1;        // the rival class whose attack found it
  Index reached = -1;        // the class the network says there, or is torn to
  Unit unit;
  Index rounds = 0, nodes = 0;
  bool done = false;

  double lower() const {
    double least = kInfinity;
    for (const Rival& rival : rivals) least = std::min(least, rival.lower);
    return least;
  }
};

// What all of a call's points are done with.
struct Call {
  const Canonical& canonical;
  const Evaluator& evaluator;
  const PointRows& X;
  const Index* label;
  const BracketOptions& options;
  const Interrupt& interrupt;
  const BracketResult& result;

  double* witness(Index i) const { return result.witness + i * canonical.dim(); }  // (D,) of point i
};

// Keeps a witness (D,) against class c if it is the shortest one of point i so far.
void keep_witness(const Call& call, Index i, Work& work, Index c, const double* witness, Index reached) {
  const Index D = call.canonical.dim();
  std::vector<double> own(static_cast<std::size_t>(D));
  work.unit.in_unit(witness, D, own.data());
  const double length = length_of(own.data(), D);
  if (!(length < work.upper)) return;
  work.upper = length;
  work.nearest = c;
  work.reached = reached;
  std::copy_n(witness, D, call.witness(i));
}

// What the attack found: numbers of its frame, and a share of the point.
struct Found {
  Index point;
  const Row* d;
  double share;
};

// The same in inputs (m, D), in the points' units.
std::vector<double> to_inputs(const Call& call, const Points& points, const std::vector<Found>& found) {
  const Canonical& canonical = call.canonical;
  const Index D = canonical.dim(), h = canonical.width(), m = static_cast<Index>(found.size());
  std::vector<double> out(static_cast<std::size_t>(m * D));
  if (canonical.neurons().rank > 0) {
    for (Index i = 0; i < m; ++i) std::copy_n(found[static_cast<std::size_t>(i)].d->data(), D, out.begin() + i * D);
  } else {
    std::vector<double> rows(static_cast<std::size_t>(m * h));
    for (Index i = 0; i < m; ++i) std::copy_n(found[static_cast<std::size_t>(i)].d->data(), h, rows.begin() + i * h);
    products(canonical.input_panels(), rows.data(), m, out.data());
  }
  const std::uint8_t* fixed = call.options.fixed;
  for (Index i = 0; i < m; ++i) {
    const Found& at = found[static_cast<std::size_t>(i)];
    const double* x = points.direction(at.point);
    double* row = out.data() + i * D;
    for (Index k = 0; k < D; ++k) {
      row[k] += at.share == 0.0 ? 0.0 : at.share * x[k];
      if (fixed != nullptr && fixed[k]) row[k] = 0.0;  // which changes no product
    }
  }
  return out;
}

// Fast certificates, attacks and their confirmation for the points of one task.
class FastBlock {
 public:
  FastBlock(const Call& call, Index first, Index count, std::vector<Work>& works)
      : call_(call),
        canonical_(call.canonical),
        first_(first),
        count_(count),
        works_(works),
        X_(call.X.at(first, count, room_)),
        points_(call.canonical, X_, count),
        witnesses_(call.canonical, call.evaluator, call.options, points_, X_, call.label + first) {}

  // False where it was asked to stop: points not come to are not done.
  bool run() {
    Tangent tangent(canonical_.neurons());
    const AttackOptions options{call_.options.starts, call_.options.restarts, call_.options.steps, call_.options.seed};
    Attack search(canonical_.neurons(), options, call_.interrupt);
    attacked_ = 0;
    for (; attacked_ < count_ && !asked_to_stop(call_.interrupt); ++attacked_) {
      certify(attacked_, tangent);
      if (!attack(attacked_, search)) break;
    }
    confirm();
    return attacked_ == count_;
  }

 private:
  Work& work(Index i) { return works_[static_cast<std::size_t>(first_ + i)]; }
  Index label(Index i) const { return call_.label[first_ + i]; }

  void certify(Index i, Tangent& tangent) {
    Work& at = work(i);
    at.unit = points_.unit(i);
    const Point point = points_.at(i);
    for (Index c = 0; c < canonical_.classes(); ++c) {
      if (c == label(i)) continue;
      Rival rival;
      rival.c = c;
      bool correct = false;
      rival.lower = tangent.radius(canonical_.pair(label(i), c).pair, point, correct);
      if (canonical_.errs_at_centre(label(i), c)) rival.most = point.length * kOutward;
      if (canonical_.jumps_at_centre() && !(point.length > 0.0)) {
        correct = !canonical_.errs_at_centre(label(i), c);
        rival.most = 0.0;
      }
      rival.cap();
      at.correct = at.correct && correct;
      at.rivals.push_back(std::move(rival));
    }
    std::stable_sort(at.rivals.begin(), at.rivals.end(),
                     [](const Rival& a, const Rival& b) { return a.lower < b.lower; });
  }

  // The rivals in the order of their certificates; one whose certificate is beyond the best attack cannot be nearer.
  bool attack(Index i, Attack& search) {
    Work& at = work(i);
    if (!at.correct || canonical_.width() == 0 || call_.options.starts == 0) return true;
    const Point point = points_.at(i);
    double best = kInfinity;
    for (Rival& rival : at.rivals) {
      if (rival.lower >= best) break;
      const PairData& pair = canonical_.pair(label(i), rival.c);
      rival.length = search.run(pair.pair, *pair.groups, point, rival.lower,
                                static_cast<std::uint64_t>(call_.options.first + first_ + i), best);
      if (search.stopped()) return false;
      rival.d = search.d();
      rival.share = search.share();
      rival.corner = search.corner();
      if (std::isfinite(rival.corner)) {
        rival.corner_d = search.corner_d();
        rival.corner_share = search.corner_share();
      }
      best = std::min(best, rival.length);
    }
    return true;
  }

  // The nearest rivals' perturbations, all points at a time; the others, where those cannot be met in float64 or are
  // longer than what they promised.
  void confirm() {
    std::vector<Index> which;
    std::vector<Found> found;
    for (Index i = 0; i < attacked_; ++i) {
      Work& at = work(i);
      at.done = true;
      if (!at.correct) continue;
      const Rival* best = nullptr;
      for (const Rival& rival : at.rivals)
        if (std::isfinite(rival.length) && (best == nullptr || rival.length < best->length)) best = &rival;
      if (best == nullptr) continue;
      which.push_back(i);
      found.push_back({i, &best->d, best->share});
      at.nearest = best->c;
    }
    const std::vector<double> d = to_inputs(call_, points_, found);
    witnesses_.confirm(which, d.data(), [&](std::size_t k, const double* witness, Index reached) {
      take(which[k], work(which[k]).nearest, witness, reached);
    });
    for (Index i = 0; i < attacked_; ++i) {
      if (!work(i).correct || call_.options.starts == 0) continue;
      confirm_others(i);
      if (!std::isfinite(work(i).upper) && canonical_.errs_at_centre(label(i))) take_centre(i);
    }
    std::vector<Index> reached(static_cast<std::size_t>(attacked_));
    if (std::any_of(&work(0), &work(0) + attacked_, [](const Work& at) { return !at.correct; }))
      witnesses_.reached(attacked_, reached.data());
    for (Index i = 0; i < attacked_; ++i)
      if (!work(i).correct) work(i).reached = reached[static_cast<std::size_t>(i)];
  }

  // What may still be shorter: other rivals, and corners.
  void confirm_others(Index i) {
    Work& at = work(i);
    const Index tried = at.nearest;
    for (const Rival& rival : at.rivals) {
      if (rival.c != tried && rival.length < at.upper) confirm_one(i, rival.c, rival.d, rival.share);
      if (rival.corner < at.upper) confirm_one(i, rival.c, rival.corner_d, rival.corner_share);
    }
  }

  void confirm_one(Index i, Index c, const Row& frame, double share) {
    const std::vector<double> d = to_inputs(call_, points_, {{i, &frame, share}});
    witnesses_.confirm({i}, d.data(),
                       [&](std::size_t, const double* witness, Index reached) { take(i, c, witness, reached); });
  }

  // The centre, where it is an error, whatever the attack found.
  void take_centre(Index i) {
    const std::vector<double> nowhere(static_cast<std::size_t>(canonical_.dim()), 0.0);
    witnesses_.confirm({i}, nowhere.data(), [&](std::size_t, const double* witness, Index reached) {
      take(i, work(i).rivals.front().c, witness, reached);
    });
  }

  void take(Index i, Index c, const double* witness, Index reached) {
    keep_witness(call_, first_ + i, work(i), c, witness, reached);
  }

  const Call& call_;
  const Canonical& canonical_;
  Index first_, count_, attacked_ = 0;
  std::vector<Work>& works_;
  std::vector<double> room_;
  const double* X_;  // (count, D)
  Points points_;
  Witnesses witnesses_;
};

// Closer brackets of one point.
class Refinement {
 public:
  Refinement(const Call& call, Index i, Work& work)
      : call_(call),
        canonical_(call.canonical),
        index_(i),
        work_(work),
        X_(call.X.at(i, 1, room_)),
        points_(call.canonical, X_, 1),
        witnesses_(call.canonical, call.evaluator, call.options, points_, X_, call.label + i),
        x_(span_coordinates(points_.direction(0))) {}

  void tighten(double gap) {
    double least = kInfinity;  // what is certified against the rivals so far: more against others is of no use
    for (Rival& rival : work_.rivals) {
      const double limit = std::min(sought(rival), least / (1.0 - gap));
      if (!(rival.lower < (1.0 - gap) * limit)) {
        least = std::min(least, rival.lower);
        continue;
      }
      const std::vector<double> d = witness_of(rival);
      Trace trace;
      const bool went_on =
          preluflow::tighten(canonical_.neurons(), canonical_.span(), pair(rival).pair, points_.at(0), x_.data(),
                             d.data(), limit, gap, call_.interrupt, spaces_, rival.lower, &trace);
      note(rival, trace);
      rival.cap();
      least = std::min(least, rival.lower);
      if (!went_on) {
        work_.done = false;
        return;
      }
    }
  }

  // Nodes and seconds are the point's: what one search leaves of them is the next one's.
  void exact(const ExactOptions& options) {
    for (Rival& rival : work_.rivals)
      for (int round = 0; round < kRefinements && open(rival, options.gap) && work_.done; ++round) {
        const ExactOptions left{options.gap, options.most_nodes - work_.nodes, options.most_seconds - spent_};
        if (left.most_nodes <= 0 || !(left.most_seconds > 0.0)) return;
        const double before = work_.upper;
        const Index nodes = search(rival, left);
        if (!work_.done || nodes >= left.most_nodes || !(work_.upper < before)) break;
      }
  }

 private:
  // Branch and bound against one rival; the nodes looked at.
  Index search(Rival& rival, const ExactOptions& options) {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    std::vector<double> d = witness_of(rival);
    const double old = rival.lower;
    const Index nodes = exact_radius(canonical_.neurons(), canonical_.span(), pair(rival).pair, points_.at(0),
                                     x_.data(), work_.upper, options, call_.interrupt, rival.lower, d.data());
    if (rival.lower > old) rival.certificate = Certificate::branch_and_bound;
    rival.cap();
    take(rival, d);
    work_.done = nodes >= 0;
    work_.nodes += std::max<Index>(nodes, 0);
    spent_ += std::chrono::duration<double>(Clock::now() - began).count();
    return nodes;
  }

  bool open(const Rival& rival, double gap) const { return rival.lower < (1.0 - gap) * work_.upper; }
  const PairData& pair(const Rival& rival) const { return canonical_.pair(call_.label[index_], rival.c); }

  void note(Rival& rival, const Trace& trace) {
    work_.rounds += trace.rounds;
    if (trace.form == Trace::Form::slice) rival.certificate = Certificate::slice;
    if (trace.form == Trace::Form::flat) rival.certificate = Certificate::flat;
  }

  std::vector<double> span_coordinates(const double* row) const {
    const Index D = canonical_.dim(), rank = canonical_.span().rank;
    std::vector<double> out(static_cast<std::size_t>(rank));
    VectorMap<double>(out.data(), rank).noalias() =
        ConstMatrixMap<double>(canonical_.basis().data(), rank, D) * ConstVectorMap<double>(row, D);
    return out;
  }

  // Whether the witness is what the attack found against this rival, but for rounding.
  bool is_as_found(const Rival& rival) const {
    return rival.c == work_.nearest && std::abs(rival.length - work_.upper) <= kRounded * work_.upper;
  }

  // The radius beyond which a certificate is of no use. A witness is rounded otherwise at another scale of x, which
  // would turn the search elsewhere; what the attack found is the same at every scale.
  double sought(const Rival& rival) const {
    return is_as_found(rival) ? std::min(rival.length, work_.upper) : work_.upper;
  }

  // A perturbation against this rival, in the span: what the attack found, or the witness, if it is its own and
  // another; zeros where nothing was.
  std::vector<double> witness_of(const Rival& rival) const {
    std::vector<double> d(static_cast<std::size_t>(canonical_.dim()), 0.0);
    if (rival.c == work_.nearest && std::isfinite(work_.upper) && !is_as_found(rival)) {
      work_.unit.in_unit(call_.witness(index_), canonical_.dim(), d.data());
    } else if (std::isfinite(rival.length)) {
      d = to_inputs(call_, points_, {{0, &rival.d, rival.share}});
    }
    return span_coordinates(d.data());
  }

  // A nearer error that branch and bound may have found.
  void take(const Rival& rival, const std::vector<double>& in_span) {
    const double length = ConstVectorMap<double>(in_span.data(), static_cast<Index>(in_span.size())).norm();
    if (!(length > 0.0 && length < work_.upper * (1.0 - 1e-12))) return;
    const Index D = canonical_.dim(), rank = canonical_.span().rank;
    std::vector<double> d(static_cast<std::size_t>(D));
    VectorMap<double>(d.data(), D).noalias() = ConstMatrixMap<double>(canonical_.basis().data(), rank, D).transpose() *
                                               ConstVectorMap<double>(in_span.data(), rank);
    witnesses_.confirm({0}, d.data(), [&](std::size_t, const double* witness, Index reached) {
      keep_witness(call_, index_, work_, rival.c, witness, reached);
    });
  }

  const Call& call_;
  const Canonical& canonical_;
  Index index_;
  Work& work_;
  std::vector<double> room_;
  const double* X_;  // (1, D)
  Points points_;
  Witnesses witnesses_;
  std::vector<double> x_;  // (rank,) the point in the span
  CertifierSpaces spaces_;
  double spent_ = 0.0;  // seconds of branch and bound
};

bool is_open(const Work& work, double gap) {
  return work.done && work.correct && work.lower() < (1.0 - gap) * work.upper;
}

// The bracket of a point in the units of x.
void report(const Call& call, Index i, const Work& work) {
  const Index D = call.canonical.dim();
  const BracketResult& out = call.result;
  out.done[i] = work.done;
  out.correct[i] = work.correct;
  out.rounds[i] = work.rounds;
  out.nodes[i] = work.nodes;
  out.lower[i] = out.upper[i] = 0.0;
  out.certificate[i] = static_cast<std::uint8_t>(Certificate::none);
  out.rival[i] = -1;
  if (work.correct && !work.rivals.empty()) {
    const Rival& least = *std::min_element(work.rivals.begin(), work.rivals.end(),
                                           [](const Rival& a, const Rival& b) { return a.lower < b.lower; });
    out.lower[i] = work.unit.certified(least.lower);
    out.certificate[i] = static_cast<std::uint8_t>(least.lower > 0.0 ? least.certificate : Certificate::none);
    out.rival[i] = least.c;
    out.upper[i] = std::isfinite(work.upper) ? length_of(call.witness(i), D) : kInfinity;
  }
  out.reached[i] = work.reached;
}

}  // namespace

void bracket(Team& team, const Canonical& canonical, const Evaluator& evaluator, const PointRows& X, const Index* label,
             Index n, const BracketOptions& options, const Interrupt& interrupt, const BracketResult& result) {
  constexpr Index kBlock = Evaluator::kBlock;  // points of a task
  const Call call{canonical, evaluator, X, label, options, interrupt, result};
  std::vector<Work> works(static_cast<std::size_t>(n));
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    if (asked_to_stop(interrupt)) return;
    const Index first = task * kBlock;
    FastBlock(call, first, std::min(kBlock, n - first), works).run();
  });
  if (options.level != Level::fast && canonical.span().rank > 0) {
    const bool small = canonical.span().rank <= kFewRank;
    team.parallel_for(n, [&](Index i) {
      Work& work = works[static_cast<std::size_t>(i)];
      if (!is_open(work, options.gap)) return;
      if (asked_to_stop(interrupt)) {
        work.done = false;
        return;
      }
      Refinement refinement(call, i, work);
      refinement.tighten(std::max(options.gap, kTight));
      if (small && is_open(work, kLoose))
        refinement.exact({kLoose, std::min(kFewNodes, options.most_nodes), options.most_seconds});
      if (options.level != Level::exact) return;
      if (is_open(work, options.gap)) refinement.tighten(options.gap);  // cheaper than nodes, where it gets there
      if (is_open(work, options.gap)) refinement.exact({options.gap, options.most_nodes, options.most_seconds});
    });
  }
  team.parallel_for(n, [&](Index i) { report(call, i, works[static_cast<std::size_t>(i)]); });
}

}  // namespace preluflow
