// Whether a moved point is an error: as the network itself says, and with room for what rounding may have done.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "preluflow/evaluate.hpp"
#include "preluflow/robustness/bracket.hpp"
#include "preluflow/robustness/points.hpp"

namespace preluflow {

class Judge {
 public:
  Judge(const Canonical& canonical, const Evaluator& evaluator) : canonical_(canonical), evaluator_(evaluator) {}

  // moved (m, D), label (m,). out (m,): 1 where the network's own outputs, those of decision_function in float64, say so,
  // and with `room` also values and contributions moved against it by what float64 may have done to them, or else since
  // no own neuron is active (docs/mathematics.md#rounding-witness). reached (m,): the largest rival output.
  void errors(const double* moved, const Index* label, Index m, bool room, std::uint8_t* out, Index* reached) const;

 private:
  void outputs(const double* moved, Index m, std::vector<double>& F) const;
  bool certain(const Points& points, Index i, Index y, bool room) const;

  const Canonical& canonical_;
  const Evaluator& evaluator_;
};

}  // namespace preluflow
