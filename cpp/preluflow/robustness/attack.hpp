// The shortest d with m(x + d) <= 0 found, in inner products (pair.hpp): along swaps of an own group of neurons for
// a rival one, to faces where own neurons are silent, and from there with d parallel to -grad m(x + d), which the
// shortest is (docs/mathematics.md#attack).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/random.hpp"
#include "preluflow/robustness/cuts.hpp"
#include "preluflow/robustness/groups.hpp"
#include "preluflow/robustness/pair.hpp"
#include "preluflow/robustness/ray.hpp"

namespace preluflow {

struct AttackOptions {
  int starts;    // swaps tried
  int restarts;  // random starts, seeded by (seed, number of the point)
  int steps;     // refinements of each
  std::uint64_t seed;
};

// The search for one point and pair after another. A corner is an error in itself only: own neurons are silent there
// and active again on its other side, so that the error is one exactly in the corner, if float64 can meet it.
class Attack {
 public:
  Attack(const Neurons& net, const AttackOptions& options, const Interrupt& interrupt);

  // The shortest length found, infinite if none was: errors need not exist where the network is not homogeneous.
  //
  // `lower` is a certified radius of the pair, where an attack close to it is good enough, and one far from it has more
  // tried. `limit` is the shortest witness known of other pairs: a longer one is worth nothing. `stream` is the number
  // of the point.
  double run(const Pair& pair, const Groups& groups, const Point& point, double lower, std::uint64_t stream,
             double limit = std::numeric_limits<double>::infinity());
  bool stopped() const { return stopped_; }  // whether that ended early because it was asked to

  // The perturbation: what the frame holds (frame_size,), and the share of x, which is 0 without a norm's term.
  const Scaled::Row& d() const { return best_ray_.d; }
  double share() const { return best_ray_.share; }

  double corner() const { return corner_; }  // the length of the shortest corner below that, or infinite
  const Scaled::Row& corner_d() const { return corner_ray_.d; }
  double corner_share() const { return corner_ray_.share; }

 private:
  using Row = Scaled::Row;
  struct Swap {
    double strength, reach;
    Index own, rival;  // own -1: none
  };
  struct Bound {  // side <d, u_j> <= -excess
    Index neuron;
    double side, excess;
  };

  void begin(const Pair& pair, const Groups& groups, const Point& point, double lower, double limit);
  void guess_radius();
  bool stop() { return stopped_ = stopped_ || asked_to_stop(interrupt_); }
  double aim() const { return std::min(best_, limit_); }
  bool good() const;
  bool any() const { return std::isfinite(best_) && best_ > 0.0; }
  double reach() const;
  bool moves(Index j) const;

  void keep(double t);
  double reach_boundary(double limit, int multiples);
  void start_from(double limit);
  void start_from_neurons(double limit);
  void towards_gradient(double t);
  void refine(double t, int count);

  static bool nearer(const Swap& b, const Swap& e);
  double force(Index g) const;
  void measure_groups();
  void swaps_from(Index own, double strength, std::vector<Swap>& out) const;
  void order_swaps(std::size_t count);
  void more_swaps();
  void swap(const Swap& start);
  void from_gradient();
  void restart(Random& random);
  void hop(Random& random, double width);
  void search_more(Random& random);
  void look_around(Random& random);
  bool convex_parts() const;
  void polish();
  bool from_contacts();
  void toggle_rivals();
  void wake_rivals(Random& random);
  void silence_own();
  void raise_rivals(const std::vector<Index>& own);
  void turn_signs();
  void silence(const std::vector<Index>& own);
  void meet(const std::vector<Bound>& bounds, bool corners);
  void look_for_corners(double limit);

  const Neurons& net_;
  const Pair* pair_ = nullptr;
  const Groups* groups_ = nullptr;
  const AttackOptions options_;
  const Interrupt& interrupt_;
  bool stopped_ = false;
  ConstMatrixMap<double> gram_;
  Frame frame_;
  RayMargin margin_;
  CutSearch cuts_;
  Row c_;           // (h,) coefficients of a direction
  Ray ray_;         // the direction that is looked at
  Ray at_, sum_;    // the one it is turned from; scratch
  Row contact_;     // (h,) where rivals' tangents touch
  Ray best_ray_;    // the shortest perturbation found
  Ray corner_ray_;  // to the nearest corner
  std::vector<Swap> order_, more_;
  std::vector<double> reached_, force_;  // (groups,) a group's value and force
  double best_ = 0.0, corner_ = 0.0, lower_ = 0.0, limit_ = 0.0;
  double blur_ = 0.0;    // averages the slope over a kink
  double length_ = 1.0;  // ||x||
  double guess_ = 1.0;   // of the radius, where the network is not homogeneous
};

}  // namespace preluflow
