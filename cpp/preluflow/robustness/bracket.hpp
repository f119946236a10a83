// Brackets: for every point and every rival class, certified below, attacked above, both made closer where asked for,
// and witnesses confirmed on the network itself.
#pragma once

#include <cstdint>
#include <vector>

#include "preluflow/evaluate.hpp"
#include "preluflow/interrupt.hpp"
#include "preluflow/robustness/canonical.hpp"

namespace preluflow {

enum class Level { fast, tight, exact };  // tangent; trust region too; branch and bound too

struct BracketOptions {
  Level level = Level::fast;
  int starts = 3, restarts = 2, steps = 30;  // of the attack, see AttackOptions; without starts there is none
  std::uint64_t seed = 0;
  Index first = 0;                               // number of the first point
  double gap = 0.0;                              // a bracket is closed where lower >= (1 - gap) upper
  Index most_nodes = 0;                          // of branch and bound, for each point and rival
  double most_seconds = 0.0;                     // likewise, about
  const double *low = nullptr, *high = nullptr;  // (D,) box that witnesses stay in, or null
  const std::uint8_t* fixed = nullptr;           // (D,) 1: the adversary cannot touch it; or null
};

// What decided about a point.
enum class Certificate : std::uint8_t { none, tangent, slice, flat, branch_and_bound };

// X (n, D) in float64, or in float32: the other is null.
struct PointRows {
  const double* doubles;
  const float* floats;
  Index dim;

  // Some rows in float64: as they lie there, or copied into `room`.
  const double* at(Index first, Index count, std::vector<double>& room) const {
    if (doubles != nullptr) return doubles + first * dim;
    room.assign(floats + first * dim, floats + (first + count) * dim);
    return room.data();
  }
};

// Where results go; views of n points, in the units of X.
struct BracketResult {
  double* lower;
  double* upper;              // infinite where no error was found
  double* witness;            // (n, D), zeros before: rows where none was found are left alone
  std::uint8_t* correct;      // m > 0 against every rival class
  std::int64_t* reached;      // the class that the witness reaches or ties with
  std::uint8_t* done;         // 0 where it was asked to stop before
  std::uint8_t* certificate;  // which one lower is
  std::int64_t* rival;        // the class it is about
  std::int64_t* rounds;       // of moving contacts
  std::int64_t* nodes;        // of branch and bound
};

// label (n,): numbers of classes. Bits depend neither on threads nor on the other points of a call.
// Canonical::prepare() for the labels, and prepare_span() for a level above fast, come first.
void bracket(Team& team, const Canonical& canonical, const Evaluator& evaluator, const PointRows& X, const Index* label,
             Index n, const BracketOptions& options, const Interrupt& interrupt, const BracketResult& result);

}  // namespace preluflow
