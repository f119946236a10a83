// The names Python uses for the core's enumerations.
#pragma once

#include <string>

#include "arrays.hpp"
#include "preluflow/loss.hpp"
#include "preluflow/update.hpp"

namespace preluflow::bindings {

inline Loss parse_loss(const std::string& name) {
  if (name == "squared") return Loss::squared;
  if (name == "exponential") return Loss::exponential;
  if (name == "cross_entropy") return Loss::cross_entropy;
  require(name == "logistic", "unknown loss " + name);
  return Loss::logistic;
}

inline Trained parse_trained(const std::string& name) {
  if (name == "both") return Trained::both;
  if (name == "inner") return Trained::inner;
  require(name == "outer", "unknown layer " + name);
  return Trained::outer;
}

}  // namespace preluflow::bindings
