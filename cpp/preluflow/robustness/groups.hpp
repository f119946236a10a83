// Neurons of one side with nearly one direction, as one neuron each: between such groups the attack swaps
// (docs/mathematics.md#attack).
#pragma once

#include <vector>

#include "preluflow/robustness/pair.hpp"

namespace preluflow {

// The groups of a pair: weight sum a, direction sum a u / ||.||, as one coefficient for each neuron. A neuron belongs
// to the heaviest not yet grouped one of its side whose cosine with it is at least 0.9. Constants and neurons that are
// no part of the pair belong to none; there are no groups of tanh, whose neurons have no sides.
class Groups {
 public:
  Groups(const Neurons& net, const Pair& pair);

  Index count() const { return static_cast<Index>(log_weight_.size()); }
  double log_weight(Index g) const { return log_weight_[static_cast<std::size_t>(g)]; }
  bool own(Index g) const { return own_[static_cast<std::size_t>(g)]; }

  // sum over the group's neurons of the coefficient times v_j; v (h,)
  template <class Values>
  double sum(Index g, const Values& v) const {
    double total = 0.0;
    for (Index k = begin(g); k < begin(g + 1); ++k) total += coefficient(k) * v(neuron(k));
    return total;
  }
  // The cosine between the directions of two groups.
  double cosine(const Neurons& net, Index g, Index r) const;

  // Adds times the group's direction to coefficients over the neurons, c (h,).
  template <class Coefficients>
  void add(Index g, double times, Coefficients& c) const {
    for (Index k = begin(g); k < begin(g + 1); ++k) c(neuron(k)) += times * coefficient(k);
  }

 private:
  void find(const Neurons& net, const Pair& pair);
  void weigh(const Neurons& net, const Pair& pair);
  Index begin(Index g) const { return begin_[static_cast<std::size_t>(g)]; }
  Index neuron(Index k) const { return neuron_[static_cast<std::size_t>(k)]; }
  double coefficient(Index k) const { return coefficient_[static_cast<std::size_t>(k)]; }

  std::vector<double> log_weight_;   // (groups,)
  std::vector<char> own_;            // (groups,)
  std::vector<Index> begin_;         // (groups + 1,) where a group begins in the next two
  std::vector<Index> neuron_;        // (grouped neurons,)
  std::vector<double> coefficient_;  // (grouped neurons,)
};

}  // namespace preluflow
