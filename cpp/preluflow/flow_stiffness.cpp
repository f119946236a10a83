// Where stability and not accuracy holds the steps of a stabilised method short: which stages it takes then
// (docs/mathematics.md#polar-flow).
//
// At late times the flow of data with unequal directions is stiff: lambda_max of the Jacobian holds a step of
// Bogacki and Shampine's to 2.5 / lambda_max, whatever little happens in it. Chebyshev's s stages reach 0.65 (s^2 - 1)
// / lambda_max.

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "preluflow/flow.hpp"

namespace preluflow {

namespace {

constexpr double kMargin = 1.2;  // by which more is allowed for than was found: iterations approach it from below
// size * stiffness from which on, and below which, the given method gives way and comes back; it is stable to 2.5.
constexpr double kStiff = 2.6, kMild = 2.2;
constexpr Index kEveryMild = 8, kEveryStiff = 4;  // steps between looks, of the given method and of Chebyshev's
// Iterations of a look: the first, later ones, and at most, until they settle, after a step that was rejected.
constexpr int kFirstLook = 2, kNextLook = 1, kMostLooks = 4;
constexpr double kGrowing = 1.3;  // factor from one step to the next at which stability does not hold it
constexpr Index kWindow = 12, kMostPatience = 192;  // steps
constexpr double kLatest = 0.3;                     // weight of the last step in the average of the given method
constexpr double kSettled = 0.05;                   // relative change below which a further iteration says nothing new

}  // namespace

// Length of a slot of (K, k, kb) over all neurons and biases, rho and B relative where they are beyond 1, as in errors.
template <class T>
double Flow<T>::length_of(Team& team, int slot) {
  team.parallel_for(width_, [&](Index j) {
    double square = 0.0;
    if (inner_moves()) square = static_cast<double>(ConstVectorMap<T>(K(slot, j), dim_).squaredNorm());
    double large = 1.0, of_rho = 0.0;
    for (Index c = 1; c < parts_; ++c) {
      large = std::max(large, std::abs(now(j)[c]));
      of_rho = std::hypot(of_rho, k(slot, j)[c]);
    }
    of_rho /= large;
    error_[at(j)] = square + k(slot, j)[0] * k(slot, j)[0] + of_rho * of_rho;
  });
  double sum = 0.0;
  for (double square : error_) sum += square;
  for (Index c = 0; c < static_cast<Index>(bias_.size()); ++c) {
    const double part = kb(slot, c) / std::max(1.0, std::abs(bias_[at(c)]));
    sum += part * part;
  }
  return std::sqrt(sum);
}

// Iterations of the power method on differences of the field, each a gradient; they go on from the direction found
// before, at first from the field itself. Slots 1 and 2 are free between steps.
template <class T>
void Flow<T>::measure_stiffness(Team& team, int times) {
  const double small = std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon())) * 10.0;
  const auto copy = [&](int from, int to) {
    if (inner_moves()) std::copy_n(K(from, 0), width_ * dim_, K(to, 0));
    std::copy_n(k(from, 0), width_ * parts_, k(to, 0));
    std::copy_n(kb_.data() + at(from) * bias_.size(), bias_.size(), kb_.data() + at(to) * bias_.size());
  };
  if (stiffness_ == 0.0) copy(0, kStiffSlot);
  for (int time = 0; time < times; ++time) {
    const double norm = length_of(team, kStiffSlot);
    if (!(norm > 0.0) || !std::isfinite(norm)) {
      stiffness_ = 0.0;  // begins with the field again
      break;
    }
    copy(kStiffSlot, 1);
    size_ = small / norm;
    const double weights[] = {0.0, 1.0};
    build(team, weights, 2);
    field(team, 2, true);
    team.parallel_for(width_, [&](Index j) {
      for (Index d = 0; inner_moves() && d < dim_; ++d) K(kStiffSlot, j)[d] = K(2, j)[d] - K(0, j)[d];
      for (Index i = 0; i < parts_; ++i) k(kStiffSlot, j)[i] = k(2, j)[i] - k(0, j)[i];
    });
    for (Index c = 0; c < static_cast<Index>(bias_.size()); ++c) kb(kStiffSlot, c) = kb(2, c) - kb(0, c);
    const double before = stiffness_, found = length_of(team, kStiffSlot) / small;
    stiffness_ = std::isfinite(found) ? found : 0.0;
    if (stiffness_ == 0.0) break;
    if (std::abs(found - before) <= kSettled * before) break;
  }
  since_stiffness_ = 0;
}

// How far a gradient carries: of the given method on an average over its last steps, of Chebyshev's over every kWindow
// steps. If that is less far they are left out, for twice as many steps each time. At p = 1 neurons slide along kinks:
// there the field is stiff, but no smoother than it is stiff.
template <class T>
void Flow<T>::keep_pace() {
  const auto since = [&] { return (begin_ - pace_.begin) / static_cast<double>(gradients_ - pace_.gradients); };
  if (pace_.alone) {
    if (accepted_ > 0) pace_.given += (pace_.given > 0.0 ? kLatest : 1.0) * (since() - pace_.given);
    pace_.wait -= pace_.wait > 0 ? 1 : 0;
  } else if (++pace_.steps <= kWindow) {
    return;
  } else if (since() < pace_.given) {
    pace_.alone = true;
    pace_.patience = std::clamp(2 * pace_.patience, kWindow, kMostPatience);
    pace_.wait = pace_.patience;
  } else {
    pace_.patience = 0;
  }
  begin_window();
}

template <class T>
void Flow<T>::begin_window() {
  pace_.begin = begin_;
  pace_.gradients = gradients_;
  pace_.steps = 1;
}

// Chooses the method of the next step, whose length accuracy would have be h; returns the length that it can take.
template <class T>
double Flow<T>::choose_stages(Team& team, double h, bool rejected) {
  if (!rejected) keep_pace();
  const bool mild = method_ == &given_;
  if (!rejected && ++since_stiffness_ >= (mild ? kEveryMild : kEveryStiff))
    measure_stiffness(team, stiffness_ == 0.0 ? kFirstLook : kNextLook);
  else if (rejected && !mild)
    measure_stiffness(team, kMostLooks);
  const double reach = kMargin * stiffness_ * h;
  if (reach < (mild ? kStiff : kMild) || (pace_.alone && pace_.wait > 0)) {
    method_ = &given_;
    return h;
  }
  if (mild && !rejected && pace_.grew > kGrowing) return h;
  if (pace_.alone) {
    pace_.alone = false;
    begin_window();
  }
  int stages = kLeastStages;
  while (stages < kMostStages && chebyshev_interval(stages) < reach) ++stages;
  try {
    for (int slot = 0; slot <= stages; ++slot) need(slot);
  } catch (const std::bad_alloc&) {  // the run goes on, and slowly
    method_ = &given_;
    return h;
  }
  method_ = &chebyshev_tableau(stages);
  return h * std::min(1.0, chebyshev_interval(stages) / reach);
}

template double Flow<float>::choose_stages(Team&, double, bool);
template double Flow<double>::choose_stages(Team&, double, bool);

}  // namespace preluflow
