#include "preluflow/robustness/quadratic_bound.hpp"

#include <Eigen/Eigenvalues>
#include <cmath>
#include <limits>

namespace preluflow {

namespace {

using Eigen::VectorXd;

// The best multipliers of directions (press < 0) serve most nodes best; contacts at the values themselves suit a
// concave F, those at the low end one that bends along the way to the error, pressing by a fixed share small nodes.
constexpr Kind kKinds[] = {{true, 0.0, -1.0},  {false, 0.0, 0.0}, {false, 1.0, -1.0}, {false, 0.0, 0.8},
                           {false, 0.0, 0.95}, {false, 0.5, 0.8}, {false, 0.5, 0.95}};
constexpr int kCount = static_cast<int>(sizeof(kKinds) / sizeof(kKinds[0]));
constexpr int kContacts = 6;  // rounds of moving contacts, and how far they move towards the centre in each
constexpr double kMove = 0.7;
constexpr double kWorth = 0.02;     // of what is asked for: a round that gains less is the last
constexpr double kPassWorth = 0.1;  // of the widest range lost, or half of that of the bound: likewise for a pass
constexpr double kBent = 0.9;       // curvature beyond this share of the ball's multiplier calls for a cut
constexpr double kSame = 0.9;       // cosine from which directions are one
constexpr Index kEigenvectors = 8, kLanczos = 48;  // looked at
constexpr double kNeuron = 0.1;  // weight of neurons' quadratics against directions: many of them share one
constexpr double kSmooth = 2.5;  // below, sigma^p bends at once at 0: ranges are cut there
constexpr double kThin = 1e-7;   // a range below it, of the reach, is not cut
constexpr double kEnds = 0.02, kMiddle = 0.3;  // cuts keep these shares of a range away from its ends

// The eigenvectors of a symmetric matrix (its lower triangle) with the largest eigenvalues, nearly, and those: Lanczos'
// iteration with all orthogonalisation, which the ends of a spectrum need few steps of.
struct Bent {
  Eigen::MatrixXd vectors;  // (rank, count) columns, the largest last
  VectorXd values;
};
Bent bent_most(const ColumnMatrix& Q, Index count) {
  const Index rank = Q.rows(), most = std::min<Index>(rank, kLanczos);
  Eigen::MatrixXd V(rank, most);
  VectorXd diagonal(most), beside(most);
  V.col(0) = VectorXd::LinSpaced(rank, 1.0, 2.0).normalized();
  Index steps = 0;
  for (Index i = 0; i < most; ++i) {
    VectorXd next = Q.view().selfadjointView<Eigen::Lower>() * V.col(i);
    diagonal(i) = next.dot(V.col(i));
    steps = i + 1;
    for (int twice = 0; twice < 2; ++twice) next -= V.leftCols(steps) * (V.leftCols(steps).transpose() * next);
    beside(i) = next.norm();
    if (i + 1 == most || !(beside(i) > 1e-12 * (std::abs(diagonal(i)) + beside(0)))) break;
    V.col(i + 1) = next / beside(i);
  }
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> small;
  small.computeFromTridiagonal(diagonal.head(steps), beside.head(steps - 1));
  count = std::min(count, steps);
  return {V.leftCols(steps) * small.eigenvectors().rightCols(count), small.eigenvalues().tail(count)};
}

}  // namespace

bool QuadraticBound::bound(Node& node, double reach, double enough, int passes) {
  any_ = false;
  best_bound_ = -1.0;
  F_.take(node);
  for (int pass = 0; pass < passes; ++pass) {
    double gained = 0.0;
    const double before = node.bound;
    const int first = std::max(node.kind, 0);  // what served best so far
    for (int k = 0; k < (pass > 0 ? 1 : kCount); ++k) {
      const int kind = (first + k) % kCount;
      if (!follow(node, kind, reach, enough, gained)) return false;
      if (node.bound >= enough) return true;
    }
    if (gained < kPassWorth && node.bound < before + 0.5 * kPassWorth * (enough - before)) break;
  }
  return true;
}

// The multipliers of the ball and of directions: those that a kind is given, or nearly the best ones.
bool QuadraticBound::multipliers(const Node& node, const VectorXd& touch, double enough, const Kind& kind, double& l,
                                 VectorXd& w) {
  const bool held = kind.press >= 0.0;
  if (held) F_.wanted(touch, kind.press, w);
  if (!multipliers_.search(F_, node, enough, l, w, held)) return false;
  l = multipliers_.l();
  w = multipliers_.w();
  return true;
}

// Majorants of one kind, whose contacts move towards the centre of what they leave. False if that is nothing.
bool QuadraticBound::follow(Node& node, int kind, double reach, double enough, double& gained) {
  VectorXd touch = node.centre;
  Moments mixture;
  const auto seen = [&](const VectorXd& d) -> VectorXd {
    return F_.columns.leftCols(F_.neurons()).transpose() * (std::min(1.0, reach / std::max(d.norm(), 1e-300)) * d);
  };
  if (kKinds[kind].mixed) mixture.set(seen(touch), 0.0);
  double best = -1.0, before = -1.0, l = node.multiplier;
  VectorXd w = node.pressed;
  for (int round = 0; round < kContacts && !stop_(); ++round) {
    if (!F_.build(node, reach, touch, kKinds[kind], mixture) || !multipliers(node, touch, enough, kKinds[kind], l, w))
      return true;
    F_.press(node, reach, w);
    if (!ellipsoid_.set(F_, reach, l)) return true;
    ellipsoid_.meet(node, F_);
    const double found = ellipsoid_.bound();
    if (found > node.bound) {
      node.bound = found;
      node.kind = kind;
    }
    if (node.bound >= enough) return true;
    if (found > best) {
      best = found;
      if (!ellipsoid_.narrow(node, F_, gained)) return false;
      node.centre = ellipsoid_.centre();
      node.multiplier = l;
      node.pressed = w;
      if (found > best_bound_) {
        best_bound_ = found;
        best_ = ellipsoid_;
        any_ = true;
      }
    }
    if (kKinds[kind].mixed) {
      mixture.mix(seen(ellipsoid_.centre()), 0.0, 2.0 / (round + 3.0));
      continue;
    }
    if (round > 0 && found < before + kWorth * (enough - before)) break;
    before = found;
    touch += kMove * (ellipsoid_.centre() - touch);
  }
  return true;
}

void QuadraticBound::into(Node& node, double length) const {
  const Index k = node.term;
  const bool neuron = k < F_.neurons();
  const double size = neuron ? F_.length(k) : 1.0, z = neuron ? F_.z(k) : 0.0;
  if (!(size > 0.0)) return;
  const VectorXd n = neuron ? VectorXd(F_.columns.col(k) / size) : VectorXd(node.directions.col(k - F_.neurons()));
  const double low = (node.low(k) - z) / size, high = (node.high(k) - z) / size, s = n.dot(node.centre);
  const double inside = std::min(std::max(s, low), high);
  if (inside == s) return;
  VectorXd rest = node.centre - s * n;
  const double left = rest.norm(), room = std::sqrt(std::max(length * length - inside * inside, 0.0));
  if (left > 0.0) rest *= room / left;
  node.centre = inside * n + rest;
}

bool QuadraticBound::known(const VectorXd& n) const {
  for (Index k = F_.neurons(); k < F_.terms(); ++k)
    if (std::abs(F_.columns.col(k).dot(n)) > kSame) return true;
  return false;
}

// The node's direction, or an eigenvector of F that becomes one, along which F loses most for being bent: the
// curvature beyond what the ball makes up for, times the width's square. Sets node.term; returns that loss.
double QuadraticBound::widest_direction(Node& node, double reach) {
  const double wanted = kBent * F_.multiplier(node.centre);
  double most = 0.0;
  for (Index k = F_.neurons(); k < F_.terms(); ++k) {
    const VectorXd n = F_.columns.col(k), bow = F_.quadratic.Q.view().selfadjointView<Eigen::Lower>() * n;
    const double width = node.high(k) - node.low(k), loss = (n.dot(bow) - wanted) * width * width;
    if (!(loss > most) || !(width > kThin * reach)) continue;
    most = loss;
    node.term = k;
  }
  const Bent bent = bent_most(F_.quadratic.Q, kEigenvectors);
  Index chosen = -1;
  double from = 0.0, to = 0.0;
  for (Index i = 0; i < bent.values.size(); ++i) {
    const double excess = bent.values(i) - wanted;
    const VectorXd n = bent.vectors.col(i).normalized();
    if (!(excess > 0.0) || known(n)) continue;
    double low = -reach * (1.0 + 1e-12), high = -low;
    if (any_) best_.range(n, low, high);
    if (!(excess * (high - low) * (high - low) > most)) continue;
    most = excess * (high - low) * (high - low);
    chosen = i;
    from = low;
    to = high;
  }
  if (chosen < 0) return most;
  node.add_direction(bent.vectors.col(chosen).normalized(), from, to);
  node.term = node.low.size() - 1;
  return most;
}

bool QuadraticBound::choose_cut(Node& node, double reach, const VectorXd& witness) {
  double most = 0.0;
  if (F_.build(node, reach, node.centre, {false, 0.0, 0.0}, Moments()) && node.centre.squaredNorm() > 0.0)
    most = widest_direction(node, reach);
  if (most > 0.0) {
    const double low = node.low(node.term), high = node.high(node.term), room = kEnds * (high - low);
    const double at = node.directions.col(node.term - F_.neurons()).dot(witness);
    node.at = at > low + room && at < high - room ? at : 0.5 * (low + high);
  }
  for (Index k = 0; k < F_.neurons(); ++k) {
    const double low = node.low(k), high = node.high(k), width = high - low;
    if (!(width > kThin * reach * F_.length(k))) continue;
    const double value = F_.z(k) + F_.columns.col(k).dot(node.centre);
    const double loss = kNeuron * F_.spread(node, k, value) * width * width;
    if (!(loss > most)) continue;
    most = loss;
    node.term = k;
    node.at = std::min(std::max(value, low + kMiddle * width), high - kMiddle * width);
    if (p_ < kSmooth && low < 0.0 && high > 0.0) node.at = 0.0;
  }
  return most > 0.0;
}

}  // namespace preluflow
