// How a long computation asks whether it should stop.
#pragma once

#include <functional>

namespace preluflow {

// Called between pieces of work, by any thread of a team, a few times a second at least; true: leave what is not begun.
// An empty one never says stop.
using Interrupt = std::function<bool()>;

inline bool asked_to_stop(const Interrupt& interrupt) { return interrupt && interrupt(); }

}  // namespace preluflow
