#include "preluflow/robustness/groups.hpp"

#include <algorithm>
#include <numeric>

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNear = 0.9;  // cosine from which on neurons of one side form a group

}  // namespace

Groups::Groups(const Neurons& net, const Pair& pair) : begin_{0} {
  if (net.curve == Curve::tanh) return;
  find(net, pair);
  weigh(net, pair);
}

void Groups::find(const Neurons& net, const Pair& pair) {
  const ConstMatrixMap<double> gram(net.gram, net.width, net.width);
  std::vector<Index> waiting;
  for (Index j = 0; j < net.width; ++j)
    if (std::isfinite(pair.log_a[j]) && gram(j, j) > 0.0) waiting.push_back(j);
  std::vector<Index> heaviest(waiting);
  std::stable_sort(heaviest.begin(), heaviest.end(), [&](Index i, Index j) { return pair.log_a[i] > pair.log_a[j]; });
  std::vector<char> grouped(static_cast<std::size_t>(net.width), 0);
  for (const Index j : heaviest) {
    if (grouped[static_cast<std::size_t>(j)]) continue;
    const auto joins = [&](Index i) { return i == j || (pair.side[i] == pair.side[j] && gram(j, i) >= kNear); };
    // Those that stay wait in their order, so that sums over a group go by the number of the neuron.
    const auto rest = std::stable_partition(waiting.begin(), waiting.end(), [&](Index i) { return !joins(i); });
    for (auto member = rest; member != waiting.end(); ++member) {
      neuron_.push_back(*member);
      grouped[static_cast<std::size_t>(*member)] = 1;
    }
    waiting.erase(rest, waiting.end());
    begin_.push_back(static_cast<Index>(neuron_.size()));
    own_.push_back(pair.side[j] > 0.0);
  }
}

void Groups::weigh(const Neurons& net, const Pair& pair) {
  const ConstMatrixMap<double> gram(net.gram, net.width, net.width);
  coefficient_.resize(neuron_.size());
  log_weight_.assign(own_.size(), -kInfinity);
  Scaled::Row member = Scaled::Row::Zero(net.width), reach = Scaled::Row::Zero(net.width);
  for (Index g = 0; g < count(); ++g) {
    double most = -kInfinity;
    for (Index k = begin(g); k < begin(g + 1); ++k) most = std::max(most, pair.log_a[neuron(k)]);
    for (Index k = begin(g); k < begin(g + 1); ++k) member(neuron(k)) = std::exp(pair.log_a[neuron(k)] - most);
    log_weight_[static_cast<std::size_t>(g)] = most + std::log(member.sum());
    for (Index k = begin(g); k < begin(g + 1); ++k) {
      double sum = 0.0;
      for (Index i = begin(g); i < begin(g + 1); ++i) sum += member(neuron(i)) * gram(neuron(i), neuron(k));
      reach(neuron(k)) = sum;  // <c_g, u_j>
    }
    const double norm = std::sqrt(std::max(reach.matrix().dot(member.matrix()), 1e-300));
    for (Index k = begin(g); k < begin(g + 1); ++k) {
      coefficient_[static_cast<std::size_t>(k)] = member(neuron(k)) / norm;
      member(neuron(k)) = reach(neuron(k)) = 0.0;
    }
  }
}

double Groups::cosine(const Neurons& net, Index g, Index r) const {
  const ConstMatrixMap<double> gram(net.gram, net.width, net.width);
  double total = 0.0;
  for (Index k = begin(g); k < begin(g + 1); ++k) {
    double sum = 0.0;
    for (Index i = begin(r); i < begin(r + 1); ++i) sum += coefficient(i) * gram(neuron(k), neuron(i));
    total += coefficient(k) * sum;
  }
  return total;
}

}  // namespace preluflow
