// The shortest d with m(x + d) <= 0 found, in inner products (pair.hpp): along swaps of an own group of neurons for
// a rival one, to faces where own neurons are silent, and from there with d parallel to -grad m(x + d), which the
// shortest is (docs/mathematics.md#attack).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/robustness/pair.hpp"

namespace preluflow {

struct AttackOptions {
  int starts;    // swaps tried
  int restarts;  // random starts, seeded by (seed, number of the point)
  int steps;     // refinements of each
  std::uint64_t seed;
};

Index frame_size(const Neurons& net);  // rank or h: of a perturbation in the network's coordinates, or over its neurons

// Groups of a pair's neurons as one neuron each: weight sum a, direction sum a u / ||.||, in coefficients over the
// neurons.
struct Groups {
  Groups(const Neurons& net, const Pair& pair);

  std::vector<double> log_weight, side;  // (groups,)
  RowMatrix<double> member;              // (groups, h)
  RowMatrix<double> between;             // (groups, groups) cosines
};

// The search for one point after another. A corner is an error in itself only: own neurons are silent there and active
// again on its other side, so that the error is one exactly in the corner, if float64 can meet it.
class PointAttack;
class Attack {
 public:
  Attack(const Neurons& net, const AttackOptions& options, const Interrupt& interrupt);
  ~Attack();

  // The shortest length found, infinite if none was; `lower` is a certified radius, where an attack close to it is good
  // enough, and one far from it has more tried. `stream` is the number of the point.
  double run(const Pair& pair, const Groups& groups, const Point& point, double lower, std::uint64_t stream);
  bool stopped() const;          // whether that ended early because it was asked to
  const Scaled::Row& d() const;  // (frame_size,)
  double corner() const;         // the length of the shortest corner below, or infinite
  const Scaled::Row& corner_d() const;

 private:
  std::unique_ptr<PointAttack> search_;
};

}  // namespace preluflow
