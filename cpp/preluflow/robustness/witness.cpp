#include "preluflow/robustness/witness.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

constexpr double kFirstRoom = 8.0;  // units of slack by which Confirmation lengthens first

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

void Witnesses::confirm(const std::vector<Index>& which, const double* d, const Take& take) const {
  std::vector<double> trial;
  std::vector<std::uint8_t> held(which.size(), 0);
  std::vector<Index> reached(which.size(), -1);
  const bool boxed = options_.low != nullptr;  // whose points are moved one by one
  if (!boxed) first_attempt(which, d, trial, held, reached);
  const Index D = canonical_.dim();
  for (std::size_t k = 0; k < which.size(); ++k) {
    const auto row = static_cast<Index>(k) * D;
    if (held[k]) {
      take(k, trial.data() + row, reached[k]);
    } else {
      confirm_one(which[k], d + row, k, take);
    }
  }
}

// Confirmation's first attempt, for all at a time: nearly all hold there, and products of many rows are fast.
void Witnesses::first_attempt(const std::vector<Index>& which, const double* d, std::vector<double>& trial,
                              std::vector<std::uint8_t>& held, std::vector<Index>& reached) const {
  const Index D = canonical_.dim(), m = static_cast<Index>(which.size());
  trial.resize(static_cast<std::size_t>(m * D));
  std::vector<double> moved(trial.size());
  std::vector<Index> labels;
  for (Index k = 0; k < m; ++k) {
    const Index i = which[static_cast<std::size_t>(k)];
    const double length = ConstVectorMap<double>(d + k * D, D).norm();
    const double stretched = 1.0 + kFirstRoom * canonical_.slack() / std::max(length, 1e-300);
    double *row = trial.data() + k * D, *to = moved.data() + k * D;
    for (Index j = 0; j < D; ++j) row[j] = d[k * D + j] * stretched;
    points_.unit(i).back(row, D, row);
    for (Index j = 0; j < D; ++j) to[j] = X_[i * D + j] + row[j];
    labels.push_back(label_[i]);
  }
  errors(moved.data(), labels.data(), m, true, held.data(), reached.data());
  for (Index k = 0; k < m; ++k) {
    const Index i = which[static_cast<std::size_t>(k)];
    const bool centre_is_nearer = length_of(trial.data() + k * D, D) > points_.unit(i).back(points_.at(i).length);
    if (centre_is_nearer && canonical_.errs_at_centre(label_[i])) held[static_cast<std::size_t>(k)] = 0;
  }
}

void Witnesses::confirm_one(Index i, const double* d, std::size_t k, const Take& take) const {
  const Index D = canonical_.dim(), y = label_[i];
  const Unit& unit = points_.unit(i);
  std::vector<double> offsets, witness(static_cast<std::size_t>(D));
  if (!canonical_.neurons().homogeneous)
    for (double offset : canonical_.offsets()) offsets.push_back(std::ldexp(offset / unit.size, -unit.exponent));
  Index reached = -1;
  const Judge judge = [&](const double* moved, bool room) {
    std::uint8_t error = 0;
    errors(moved, &y, 1, room, &error, &reached);
    return error != 0;
  };
  Place place{};
  place.x = X_ + i * D;
  place.dim = D;
  place.e = points_.direction(i);
  place.size = unit.size;
  place.exponent = unit.exponent;
  place.slack = canonical_.slack();
  place.homogeneous = canonical_.errs_at_centre(y);
  place.length = points_.at(i).length;
  place.directions = canonical_.directions();
  place.width = canonical_.width();
  place.offsets = offsets.empty() ? nullptr : offsets.data();
  place.centre = canonical_.center();
  place.low = options_.low;
  place.high = options_.high;
  place.fixed = options_.fixed;
  Confirmation confirmation(place, judge);
  if (!std::isfinite(confirmation.run(d, witness.data()))) return;
  std::vector<double> moved(place.x, place.x + D);
  for (Index j = 0; j < D; ++j) moved[static_cast<std::size_t>(j)] += witness[static_cast<std::size_t>(j)];
  judge(moved.data(), true);  // for the class reached
  take(k, witness.data(), reached);
}

void Witnesses::reached(Index m, Index* out) const {
  std::vector<std::uint8_t> error(static_cast<std::size_t>(m));
  const Index C = evaluator_.network().outputs, D = canonical_.dim();
  std::vector<double> F(static_cast<std::size_t>(Evaluator::kBlock * C));
  for (Index first = 0; first < m; first += Evaluator::kBlock) {
    const Index rows = std::min(Evaluator::kBlock, m - first);
    evaluator_.outputs_here(X_ + first * D, rows, F.data());
    for (Index i = 0; i < rows; ++i) {
      bool is_error = false;
      out[first + i] = strongest_rival(F.data() + i * C, C, label_[first + i], is_error);
    }
  }
}

// docs/mathematics.md#rounding-witness
void Witnesses::errors(const double* moved, const Index* label, Index m, bool room, std::uint8_t* out,
                       Index* reached) const {
  const Index D = canonical_.dim(), C = evaluator_.network().outputs;
  std::vector<double> F(static_cast<std::size_t>(m * C)), rows;
  for (Index first = 0; first < m; first += Evaluator::kBlock)
    evaluator_.outputs_here(moved + first * D, std::min(Evaluator::kBlock, m - first), F.data() + first * C);
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
  for (std::size_t k = 0; k < which.size(); ++k)
    out[which[k]] = certain(points, static_cast<Index>(k), label[which[k]], room);
}

bool Witnesses::certain(const Points& moved, Index i, Index y, bool room) const {
  const Point point = moved.at(i);
  if (!(point.length > 0.0) && (canonical_.neurons().homogeneous || canonical_.jumps_at_centre()))
    return canonical_.errs_at_centre(y);
  for (Index c = 0; c < canonical_.classes(); ++c)
    if (c != y && is_error(canonical_.neurons(), canonical_.pair(y, c).generous, point, room)) return true;
  return false;
}

}  // namespace preluflow
