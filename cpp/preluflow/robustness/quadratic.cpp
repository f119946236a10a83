#include "preluflow/robustness/quadratic.hpp"

namespace preluflow {

void Quadratic::clear() {
  c0 = grow = cross = scale = bends = 0.0;
  curved = 0;
  formed = false;
  products = nullptr;
  b.setZero();
}

void Quadratic::form_Q() {
  if (formed) return;
  for (Index k = 0; k < curved; ++k) weighted.col(k) = bend(k) * columns.col(k);
  lower_product(weighted, columns, curved, Q);
  Q.view().diagonal().array() += grow;
  formed = true;
}

}  // namespace preluflow
