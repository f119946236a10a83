#include "preluflow/robustness/cuts.hpp"

#include "preluflow/robustness/min_norm_qp.hpp"

namespace preluflow {

namespace {

constexpr std::size_t kMostCuts = 40;
constexpr double kMet = 1e-10;        // M is 0 within this share of its terms' sizes
constexpr double kGain = 1.0 - 1e-7;  // what is not so much shorter is not worth a cut

}  // namespace

bool CutSearch::run(const RayMargin& margin, const Row& contact, const Ray& start, double limit, Ray& result) {
  set_tangents(margin, contact);
  at_ = start;
  used_ = 0;
  M_.resize(0, 0);
  weights_.resize(0);
  bool any = false;
  while (used_ < kMostCuts && cut(margin)) {
    solve(limit);
    const double length = std::sqrt(std::max(frame_.square(at_), 0.0));
    if (!(length < kGain * limit)) return false;  // every d is at least as long
    any = true;
  }
  if (any) result = at_;
  return any;
}

void CutSearch::set_tangents(const RayMargin& margin, const Row& contact) {
  const Scaled& scaled = margin.scaled();
  constant_ = margin.constant();
  for (Index j = 0; j < net_.width; ++j) {
    slope_(j) = 0.0;
    if (scaled.side(j) > 0.0 || !(contact(j) > 0.0) || scaled.signed_a(j) == 0.0) continue;
    slope_(j) = scaled.signed_a(j) * net_.p * slope(contact(j), net_.p);
    constant_ += scaled.signed_a(j) * power(contact(j), net_.p) - slope_(j) * contact(j);
  }
}

// Adds the linear part of M at at_; false if M <= 0 there.
bool CutSearch::cut(const RayMargin& margin) {
  const Scaled& scaled = margin.scaled();
  double value = constant_, size = std::abs(constant_), along = 0.0;
  for (Index j = 0; j < net_.width; ++j) {
    const double s = margin.z()(j) + at_.dz(j);
    double term = slope_(j) * s;
    c_(j) = slope_(j);
    if (scaled.side(j) > 0.0) {
      term = s > 0.0 ? scaled.signed_a(j) * power(s, net_.p) : 0.0;
      c_(j) = scaled.signed_a(j) * net_.p * slope(s, net_.p);
    }
    value += term;
    size += std::abs(term);
    along += c_(j) * at_.dz(j);
  }
  if (!std::isfinite(value) || (used_ > 0 && value <= kMet * size)) return false;
  if (used_ == cuts_.size()) cuts_.push_back({Ray(frame_.size(), net_.width), 0.0});
  Cut& next = cuts_[used_];
  frame_.of_neurons(c_, 0.0, next.normal);
  const double norm = std::sqrt(std::max(frame_.square(next.normal), 0.0));
  if (!(norm > 0.0) || !std::isfinite(norm)) return false;
  next.normal /= norm;
  next.excess = (value - along) / norm;
  ++used_;
  return true;
}

// at_ = the shortest d that all cuts allow.
void CutSearch::solve(double limit) {
  const auto count = static_cast<Index>(used_);
  M_.conservativeResize(count, count);
  excess_.conservativeResize(count);
  excess_(count - 1) = cuts_[used_ - 1].excess;
  for (Index i = 0; i < count; ++i)
    M_(i, count - 1) = M_(count - 1, i) = product(cuts_[static_cast<std::size_t>(i)].normal, cuts_[used_ - 1].normal);
  weights_ = min_norm_weights(M_, excess_, limit, weights_);
  at_.d.setZero();
  at_.dz.setZero();
  for (Index i = 0; i < count; ++i) {
    if (weights_(i) == 0.0) continue;
    const Ray& normal = cuts_[static_cast<std::size_t>(i)].normal;
    at_.d -= weights_(i) * normal.d;
    at_.dz -= weights_(i) * normal.dz;
  }
}

double CutSearch::product(const Ray& a, const Ray& b) const {
  return net_.rank > 0 ? (a.d * b.d).sum() : (a.d * b.dz).sum();
}

}  // namespace preluflow
