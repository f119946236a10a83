#include "preluflow/robustness/judge.hpp"

#include <algorithm>

namespace preluflow {

namespace {

// The rival with the largest output, and whether it is at least that of class y.
Index strongest_rival(const double* F, Index outputs, Index y, bool& error) {
  if (outputs == 1) {
    error = y == 1 ? *F <= 0.0 : *F >= 0.0;
    return 1 - y;
  }
  Index best = y == 0 ? 1 : 0;
  for (Index c = 0; c < outputs; ++c)
    if (c != y && F[c] > F[best]) best = c;
  error = F[best] >= F[y];
  return best;
}

}  // namespace

void Judge::outputs(const double* moved, Index m, std::vector<double>& F) const {
  const Index C = evaluator_.network().outputs;
  F.resize(static_cast<std::size_t>(m * C));
  for (Index first = 0; first < m; first += Evaluator::kBlock)
    evaluator_.outputs_here(moved + first * canonical_.dim(), std::min(Evaluator::kBlock, m - first), F.data() + first * C);
}

void Judge::errors(const double* moved, const Index* label, Index m, bool room, std::uint8_t* out, Index* reached) const {
  const Index D = canonical_.dim(), C = evaluator_.network().outputs;
  std::vector<double> F, rows;
  outputs(moved, m, F);
  std::vector<Index> which;
  for (Index i = 0; i < m; ++i) {
    bool error = false;
    reached[i] = strongest_rival(F.data() + i * C, C, label[i], error);
    out[i] = 0;
    if (!error) continue;
    which.push_back(i);
    rows.insert(rows.end(), moved + i * D, moved + (i + 1) * D);
  }
  if (which.empty()) return;
  const Points points(canonical_, rows.data(), static_cast<Index>(which.size()));
  for (std::size_t k = 0; k < which.size(); ++k) {
    const Index i = which[k];
    out[i] = certain(points, static_cast<Index>(k), label[i], room);
  }
}

bool Judge::certain(const Points& points, Index i, Index y, bool room) const {
  const Point point = points.at(i);
  if (canonical_.neurons().homogeneous && !(point.length > 0.0)) return true;  // the origin
  for (Index c = 0; c < canonical_.classes(); ++c)
    if (c != y && is_error(canonical_.neurons(), canonical_.pair(y, c).pair, point, room)) return true;
  return false;
}

}  // namespace preluflow
