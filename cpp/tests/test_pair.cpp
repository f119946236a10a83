// y f at a point, from logarithms: against plain sums where those exist, and where they do not.
#include <cmath>

#include "check.hpp"
#include "preluflow/robustness/pair.hpp"

namespace preluflow::tests {

namespace {

struct Terms {
  std::vector<double> log_a, sign, value, weight;
  double p;

  Terms(Numbers& numbers, Index width, double p_) : p(p_) {
    for (Index j = 0; j < width; ++j) {
      log_a.push_back(numbers.uniform(-5.0, 5.0));
      sign.push_back(numbers.uniform() < 0.5 ? -1.0 : 1.0);
      value.push_back(numbers.uniform(-1.0, 1.0));
      weight.push_back(numbers.uniform(-1e-3, 1e-3));
    }
  }

  Balance balance(double y) const {
    Neurons net{};
    net.width = static_cast<Index>(log_a.size());
    net.p = p;
    std::vector<double> side(sign);
    for (double& s : side) s *= y;
    Pair pair{};
    pair.log_a = log_a.data();
    pair.side = side.data();
    return balance_by_logs(
        net, pair, [&](Index j) { return value[static_cast<std::size_t>(j)]; },
        [&](Index j) { return weight[static_cast<std::size_t>(j)]; });
  }

  // The sums themselves, and the largest term that balance_by_logs divides by.
  long double naive(double y, long double& size, long double& most) const {
    long double difference = 0.0L;
    size = most = 0.0L;
    for (std::size_t j = 0; j < log_a.size(); ++j) {
      if (!(value[j] > 0.0)) continue;
      const long double a = std::exp(static_cast<long double>(log_a[j]) + static_cast<long double>(weight[j]));
      const long double term = a * std::pow(static_cast<long double>(value[j]), static_cast<long double>(p));
      difference += sign[j] == y ? term : -term;
      size += term;
      most = std::max(most, term);
    }
    return difference;
  }
};

TEST(pair_balance_by_logs_agrees_with_plain_sums) {
  Numbers numbers(1);
  for (double p : {1.0, 1.5, 2.0, 3.0, 4.7})
    for (Index width : {1, 2, 10, 100})
      for (double y : {-1.0, 1.0}) {
        const Terms terms(numbers, width, p);
        long double size = 0.0L, most = 0.0L;
        const long double difference = terms.naive(y, size, most);
        const Balance found = terms.balance(y);
        if (most == 0.0L) {
          CHECK(found.difference == 0.0 && found.size == 0.0);
          continue;
        }
        const double tolerance = 1e-13 * static_cast<double>(size / most);
        CHECK_AT_MOST(std::abs(found.difference - static_cast<double>(difference / most)), tolerance);
        CHECK_AT_MOST(std::abs(found.size - static_cast<double>(size / most)), tolerance);
      }
}

TEST(pair_balance_by_logs_is_the_same_at_any_scale) {
  Numbers numbers(2);
  for (double shift : {-1e6, -800.0, 800.0, 1e6}) {
    Terms terms(numbers, 20, 3.0);
    const Balance near = terms.balance(1.0);
    for (double& log : terms.log_a) log += shift;
    const Balance far = terms.balance(1.0);
    const double tolerance = 1e-15 * std::abs(shift) * near.size;  // the logarithms' own rounding
    CHECK_AT_MOST(std::abs(far.difference - near.difference), tolerance);
    CHECK_AT_MOST(std::abs(far.size - near.size), tolerance);
  }
}

TEST(pair_balance_by_logs_of_silent_neurons_is_zero) {
  Numbers numbers(3);
  Terms terms(numbers, 5, 3.0);
  for (double& value : terms.value) value = -std::abs(value);
  terms.value[2] = 0.0;
  CHECK(terms.balance(1.0).difference == 0.0 && terms.balance(1.0).size == 0.0);
  terms.value[3] = 1e-300;  // its cube is no float64
  CHECK(terms.balance(terms.sign[3]).difference == 1.0);
  CHECK(terms.balance(-terms.sign[3]).difference == -1.0);
}

}  // namespace

}  // namespace preluflow::tests
