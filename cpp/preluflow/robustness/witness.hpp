// Perturbations that the attack found, made witnesses: whether a moved point is an error is asked of the network
// itself, and with room for what rounding may have done.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "preluflow/evaluate.hpp"
#include "preluflow/robustness/bracket.hpp"
#include "preluflow/robustness/confirm.hpp"
#include "preluflow/robustness/points.hpp"

namespace preluflow {

class Witnesses {
 public:
  // What is to be done with a witness (D,) of row k, in the units of x, which reaches this class.
  using Take = std::function<void(std::size_t k, const double* witness, Index reached)>;

  // X (n, D) and label (n,) of the points.
  Witnesses(const Canonical& canonical, const Evaluator& evaluator, const BracketOptions& options, const Points& points,
            const double* X, const Index* label)
      : canonical_(canonical), evaluator_(evaluator), options_(options), points_(points), X_(X), label_(label) {}

  // d (m, D) in the units of the points `which` (m,): row k of point which[k]. Those found are given to take().
  void confirm(const std::vector<Index>& which, const double* d, const Take& take) const;

  // The largest rival output of each of m points as they are.
  void reached(Index m, Index* out) const;

 private:
  void first_attempt(const std::vector<Index>& which, const double* d, std::vector<double>& trial,
                     std::vector<std::uint8_t>& held, std::vector<Index>& reached) const;
  void confirm_one(Index i, const double* d, std::size_t k, const Take& take) const;
  void errors(const double* moved, const Index* label, Index m, bool room, std::uint8_t* out, Index* reached) const;
  bool certain(const Points& moved, Index i, Index y, bool room) const;

  const Canonical& canonical_;
  const Evaluator& evaluator_;
  const BracketOptions& options_;
  const Points& points_;
  const double* X_;
  const Index* label_;
};

}  // namespace preluflow
