#include "preluflow/robustness/node_majorant.hpp"

#include <cmath>
#include <limits>

#include "preluflow/relu_power.hpp"

namespace preluflow {

namespace {

using Eigen::VectorXd;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kHuge = 1e100;  // a rival beyond it, in units of the largest own term, is not bounded once active
constexpr double kUnderflow = 1e-140;  // what powers of one term may lose, in that unit
constexpr double kFromKink =
    0.02;  // p < 2: contacts of rivals stay so far from the kink, as a share of the range's end

// p < 2: off the kink, where no quadratic touches from above.
double off_kink(double c, double low, double high, double p) {
  if (!(p < 2.0) || low > 0.0) return c;
  return c > 0.0 ? std::max(c, kFromKink * high) : std::min(c, -kFromKink * high);
}

}  // namespace

NodeMajorant::NodeMajorant(const Sides& sides, double p, double span_slack)
    : quadratic(sides.own.columns.rows(), sides.rival.count() + sides.own.count()),
      p_(p),
      unit_(span_slack + 64.0 * kEpsilon),
      rivals_(sides.rival.count()),
      neurons_(rivals_ + sides.own.count()) {
  const Index rank = sides.own.columns.rows();
  columns.resize(rank, neurons_);
  columns << sides.rival.columns, sides.own.columns;
  for (VectorXd* v : {&a, &z, &length}) v->resize(neurons_);
  a << sides.rival.a, sides.own.a;
  z << sides.rival.z, sides.own.z;
  length << sides.rival.length, sides.own.length;
  const Eigen::MatrixXd gram = columns.transpose() * columns;
  gram_.assign(gram.data(), gram.data() + gram.size());
  products_ = {gram_.data(), neurons_, {}};
}

void NodeMajorant::take(const Node& node) {
  const Index count = node.directions.cols(), rank = columns.rows();
  columns.conservativeResize(rank, neurons_ + count);
  for (VectorXd* v : {&a, &z, &length}) v->conservativeResize(neurons_ + count);
  if (count > 0) columns.rightCols(count) = node.directions;
  a.tail(count).setZero();
  z.tail(count).setZero();
  length.tail(count).setConstant(1.0 + kEpsilon * static_cast<double>(rank + 8));
  if (rows.rows() != terms()) rows = ColumnMatrix(terms(), rank);
  rows.view() = columns.transpose();
}

bool NodeMajorant::build(const Node& node, double reach, const VectorXd& touch, const Kind& kind,
                         const Moments& mixture) {
  quadratic.clear();
  quadratic.products = &products_;
  allowance = 0.0;
  for (Index k = 0; k < neurons_; ++k) {
    const double contact = kind.mixed ? mixed_contact(node, k, mixture) : z(k) + columns.col(k).dot(touch);
    if (!add_neuron(node, reach, k, contact, kind.share)) return false;
  }
  quadratic.form_Q();
  allow();
  return std::isfinite(quadratic.scale);
}

// docs/mathematics.md#rounding-branch-and-bound
void NodeMajorant::allow() {
  const auto count = static_cast<double>(terms() + columns.rows());
  quadratic.c0 -= allowance;
  allowance = (2.0 * unit_ + 64.0 * kEpsilon * count) * quadratic.scale + count * kUnderflow;
  quadratic.c0 += allowance;
}

// docs/mathematics.md#best-contact
double NodeMajorant::mixed_contact(const Node& node, Index k, const Moments& mixture) const {
  Spread t{node.low(k), node.high(k), 0.0, std::max(mixture.second(k) - mixture.mean(k) * mixture.mean(k), 0.0)};
  t.mean = t.inside(z(k) + mixture.mean(k));
  if (!(t.high > t.low) || (p_ == 1.0 && !is_rival(k))) return t.mean;
  return power_contact(t, !is_rival(k), p_);
}

// value + slant (t - c) + bend (t - c)^2, t = z + <column, d>: above a rival's term, above minus an own neuron's.
bool NodeMajorant::add_neuron(const Node& node, double reach, Index k, double contact, double share) {
  const double low = node.low(k), high = node.high(k);
  if (!(high > 0.0)) return true;  // adds nothing
  const bool rival = is_rival(k);
  if (rival && !(a(k) < kHuge)) return false;
  double c = std::min(std::max(contact, low), high);
  if (rival && p_ >= 2.0 && c > 0.0) c -= share * (c - std::max(low, 0.0));
  if (rival) c = off_kink(c, low, high, p_);
  const double sign = rival ? a(k) : -a(k);
  const double bend = sign * (rival ? most_curvature(low, high, c, p_) : least_curvature(low, high, c, p_));
  const double value = sign * relu_power(c, p_), slant = sign * p_ * slope(c, p_), off = z(k) - c;
  const double extent = std::abs(z(k)) + std::abs(c) + length(k) * reach;
  quadratic.c0 += value + slant * off + bend * off * off;
  quadratic.scale += std::abs(value) + std::abs(slant) * extent + std::abs(bend) * extent * extent;
  quadratic.b += (slant + 2.0 * bend * off) * columns.col(k);
  if (bend == 0.0) return true;
  quadratic.columns.col(quadratic.curved) = columns.col(k);
  quadratic.bend(quadratic.curved) = bend;
  quadratic.which[static_cast<std::size_t>(quadratic.curved)] = k;
  quadratic.bends += std::abs(bend) * length(k) * length(k);
  ++quadratic.curved;
  return true;
}

double NodeMajorant::multiplier(const VectorXd& touch) const {
  const double square = touch.squaredNorm();
  if (!(square > 0.0)) return 0.0;
  const VectorXd bow = quadratic.Q.view().selfadjointView<Eigen::Lower>() * touch;
  return std::max((touch.dot(quadratic.b) + 2.0 * touch.dot(bow)) / (2.0 * square), 0.0);
}

void NodeMajorant::wanted(const VectorXd& touch, double share, VectorXd& weights) const {
  const double most = share * multiplier(touch);
  weights.setZero(terms() - neurons_);
  if (!(most > 0.0)) return;
  for (Index i = 0; i < weights.size(); ++i) {
    const VectorXd n = columns.col(neurons_ + i), bow = quadratic.Q.view().selfadjointView<Eigen::Lower>() * n;
    weights(i) = std::max(n.dot(bow) - most, 0.0);
  }
}

void NodeMajorant::press(const Node& node, double reach, const VectorXd& weights) {
  quadratic.products = nullptr;  // from here on Q has more than neurons
  for (Index i = 0; i < weights.size(); ++i) {
    const double weight = weights(i), low = node.low(neurons_ + i), high = node.high(neurons_ + i);
    if (!(weight > 0.0)) continue;
    const VectorXd n = columns.col(neurons_ + i);
    quadratic.c0 -= weight * low * high;
    quadratic.scale += weight * (reach + std::abs(low)) * (reach + std::abs(high));
    quadratic.b += weight * (low + high) * n;
    quadratic.Q.view().selfadjointView<Eigen::Lower>().rankUpdate(n, -weight);
    quadratic.bends += weight;
  }
  allow();
}

double NodeMajorant::spread(const Node& node, Index k, double value) const {
  const double low = node.low(k), high = node.high(k);
  if (!(high > 0.0)) return 0.0;
  const double c = off_kink(std::min(std::max(value, low), high), low, high, p_);
  return std::min(a(k), kHuge) * (most_curvature(low, high, c, p_) - least_curvature(low, high, c, p_));
}

}  // namespace preluflow
