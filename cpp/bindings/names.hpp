// The names Python uses for the core's enumerations.
#pragma once

#include <string>

#include "arrays.hpp"
#include "preluflow/loss.hpp"

namespace preluflow::bindings {

inline Loss parse_loss(const std::string& name) {
  if (name == "squared") return Loss::squared;
  if (name == "exponential") return Loss::exponential;
  require(name == "logistic", "unknown loss " + name);
  return Loss::logistic;
}

}  // namespace preluflow::bindings
