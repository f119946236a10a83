// The kernels on teams of several threads: the same bits as on one thread, and, under ThreadSanitizer, no races.
#include <atomic>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/attack.hpp"
#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/descent.hpp"
#include "preluflow/exact.hpp"
#include "preluflow/flow.hpp"
#include "preluflow/robustness/pair.hpp"
#include "preluflow/tight.hpp"

namespace preluflow::tests {

namespace {

constexpr double kWork = 1e9;  // flops: enough to be shared
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Two clusters a label, more rows than a stripe; a network of both signs.
template <class T>
struct Problem {
  static constexpr Index n = 600, width = 70, dim = 40;

  Problem() : X(n, dim), y(n), U(width, dim), log_norm(width), sign(width), log_abs_v(width), order(n) {
    Numbers numbers(1);
    for (Index i = 0; i < n; ++i) {
      y(i) = i % 2 == 0 ? 1.0 : -1.0;
      for (Index d = 0; d < dim; ++d) X(i, d) = static_cast<T>(0.1 * numbers.normal() + (d == i % 4 ? 1.0 : 0.0));
      order(i) = numbers.integer(0, n - 1);
    }
    U = numbers.directions(width, dim).template cast<T>();
    for (Index j = 0; j < width; ++j) {
      log_norm(j) = log_abs_v(j) = std::log(0.1) + 0.1 * numbers.normal();
      sign(j) = j % 2 == 0 ? 1.0 : -1.0;
    }
  }

  Network<T> network(Activation activation) const {
    return {U.data(), log_norm.data(), sign.data(), log_abs_v.data(), width, dim, activation, 3.0};
  }

  RowMatrix<T> X;
  Vector<double> y;
  RowMatrix<T> U;
  Vector<double> log_norm, sign, log_abs_v;
  Vector<Index> order;
};

// A trained network and the loss on the way, to be compared bit for bit.
template <class T>
struct Trained {
  explicit Trained(const NetworkState<T>& state, double value)
      : U(state.U.layout().width, state.U.layout().dim), log_norm(state.log_norm), v(state.log_abs_v), loss(value) {
    state.U.copy_to(U.data());
  }
  bool operator==(const Trained& o) const {
    return U == o.U && log_norm == o.log_norm && v == o.v && loss == o.loss && std::isfinite(loss);
  }

  RowMatrix<T> U;
  Vector<double> log_norm, v;
  double loss;
};

template <class T>
Trained<T> descend(const Problem<T>& data, Activation activation, int threads) {
  Descent<T> descent(data.X.data(), data.y.data(), data.n, data.network(activation), Loss::squared, 0.2);
  double loss = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    for (int step = 0; step < 5; ++step) CHECK(descent.advance(team));
    loss = descent.evaluate(team);
  });
  return Trained<T>(descent.state(), loss);
}

template <class T>
Trained<T> descend_in_batches(const Problem<T>& data, int threads) {
  constexpr Index kBatch = 90;
  StochasticDescent<T> descent(data.X.data(), data.y.data(), data.n, data.network(Activation::prelu), Loss::logistic,
                               0.2, kBatch);
  double loss = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    for (Index first = 0; first < data.n; first += kBatch)
      CHECK(descent.advance(team, data.order.data() + first, std::min(kBatch, data.n - first)));
    loss = descent.evaluate(team);
  });
  return Trained<T>(descent.state(), loss);
}

template <class T>
std::vector<double> flow(const Problem<T>& data, const char* method, int threads) {
  FlowOptions options;
  options.t1 = 2.0;
  Flow<T> flow(data.X.data(), data.y.data(), data.n, data.network(Activation::prelu), Loss::squared,
               find_tableau(method), options);
  RowMatrix<T> U(data.width, data.dim);
  Vector<double> log_norm(data.width), sign(data.width), log_abs_v(data.width);
  std::vector<double> out;
  Team::run(threads, kWork, [&](Team& team) {
    for (int step = 0; step < 3; ++step) CHECK(flow.advance(team) == FlowStatus::ok);
    flow.interpolate(team, 0.5 * (flow.begin() + flow.end()), U.data(), log_norm.data(), sign.data(), log_abs_v.data());
    out.push_back(flow.loss(team));
  });
  for (Index j = 0; j < data.width; ++j) {
    out.insert(out.end(), {log_norm(j), log_abs_v(j)});
    for (Index d = 0; d < data.dim; ++d) out.push_back(static_cast<double>(U(j, d)));
  }
  return out;
}

template <class T>
void check_training() {
  const Problem<T> data;
  for (Activation activation : {Activation::prelu, Activation::polynomial, Activation::tanh})
    CHECK(descend(data, activation, 3) == descend(data, activation, 1));
  CHECK(descend_in_batches(data, 3) == descend_in_batches(data, 1));
  for (const char* method : {"bosh3", "dop853"}) CHECK(flow(data, method, 3) == flow(data, method, 1));
}

TEST(kernels_train_to_the_same_bits_on_any_number_of_threads) {
  check_training<float>();
  check_training<double>();
}

// A small network and points in its span, which are their own coordinates: the basis is the unit vectors.
struct Brackets {
  static constexpr Index n = 40, width = 8, dim = 5;

  Brackets()
      : U(width, dim), x(n, dim), gram(width, width), z(n, width), y(n), log_a(width), sign(width), group(width) {
    Numbers numbers(2);
    U = numbers.directions(width, dim);
    x = numbers.directions(n, dim);
    for (Index j = 0; j < width; ++j) {
      log_a(j) = numbers.uniform(-1.0, 1.0);
      sign(j) = j % 2 == 0 ? 1.0 : -1.0;
      group(j) = j;
    }
    for (Index i = 0; i < n; ++i) y(i) = i % 2 == 0 ? 1.0 : -1.0;
    Team::run(1, kWork, [&](Team& team) {
      products(team, U.data(), width, U.data(), width, dim, gram.data());
      products(team, x.data(), n, U.data(), width, dim, z.data());
    });
  }

  MarginNetwork margin() const {
    double sums[2] = {0.0, 0.0};  // of a, whose root bounds the Lipschitz constant of a side
    for (Index j = 0; j < width; ++j) sums[sign(j) > 0.0 ? 0 : 1] += std::exp(log_a(j));
    return {gram.data(), log_a.data(), sign.data(),
            width,       kPower,       {std::log(sums[0]) / kPower, std::log(sums[1]) / kPower},
            kSlack,      kSlack,       group.data(),
            width,       nullptr,      0};
  }
  SpanNetwork span() const { return {U.data(), log_a.data(), sign.data(), width, dim, kPower, kSlack, kSlack}; }

  static constexpr double kPower = 3.0, kSlack = 1e-14;
  RowMatrix<double> U, x, gram, z;
  Vector<double> y, log_a, sign;
  Vector<Index> group;
};

// What all levels find; lower and upper in turn, then what the witness is made of.
struct Radii {
  Vector<double> fast, tight, exact, upper;
  RowMatrix<double> witness;
  bool operator==(const Radii& o) const {
    return fast == o.fast && tight == o.tight && exact == o.exact && upper == o.upper && witness == o.witness;
  }
};

Radii radii(const Brackets& data, int threads) {
  constexpr Index n = Brackets::n;
  const MarginNetwork net = data.margin();
  const SpanNetwork span = data.span();
  Radii out;
  out.fast = out.upper = Vector<double>::Zero(n);
  Vector<double> corner = Vector<double>::Zero(n);
  Vector<std::uint8_t> correct(n), done(n);
  RowMatrix<double> beta = RowMatrix<double>::Zero(n, data.width), corner_beta = beta;
  std::vector<Index> nodes(static_cast<std::size_t>(n));
  std::atomic<int> asked{0};
  const Interrupt interrupt = [&] { return ++asked < 0; };
  Team::run(threads, kWork, [&](Team& team) {
    team.watch(&interrupt);
    certify(team, net, data.z.data(), data.y.data(), n, out.fast.data(), correct.data());
    attack(team, net, data.z.data(), data.y.data(), correct.data(), out.fast.data(), n, {8, 4, 20, 1, 0}, interrupt,
           {out.upper.data(), beta.data(), corner.data(), corner_beta.data()});
    out.witness = beta.lazyProduct(data.U);
    out.tight = out.fast;
    tighten(team, span, data.x.data(), out.witness.data(), data.y.data(), n, 1e-3, interrupt, out.tight.data(),
            done.data());
    out.exact = out.tight;
    RowMatrix<double> shortest = out.witness;
    exact_radii(team, span, data.x.data(), data.y.data(), n, {1e-2, 200, 1e3}, interrupt, out.exact.data(),
                shortest.data(), nodes.data());
  });
  CHECK(asked.load() > 0);
  for (Index i = 0; i < n; ++i) {
    if (!correct(i)) continue;
    CHECK_AT_MOST(out.fast(i), out.tight(i));
    CHECK_AT_MOST(out.tight(i), out.exact(i));
    CHECK_AT_MOST(out.exact(i), out.upper(i));
    CHECK_AT_MOST(std::abs(out.witness.row(i).norm() - out.upper(i)), 1e-6);
  }
  return out;
}

TEST(kernels_bracket_radii_to_the_same_bits_on_any_number_of_threads) {
  const Brackets data;
  const Radii alone = radii(data, 1);
  CHECK(radii(data, 3) == alone);
  CHECK(radii(data, 2) == alone);
}

// Threads of a team ask at once; whoever is told to stop leaves what is not begun as it was.
TEST(kernels_stop_when_asked_to) {
  const Brackets data;
  const MarginNetwork net = data.margin();
  const Index n = data.n;
  std::atomic<int> asked{0};
  const Interrupt interrupt = [&] { return asked.fetch_add(1) >= 5; };
  Vector<double> lower = Vector<double>::Zero(n), upper = Vector<double>::Constant(n, -1.0), corner = upper;
  Vector<std::uint8_t> correct(n);
  RowMatrix<double> beta = RowMatrix<double>::Zero(n, data.width), corner_beta = beta;
  Team::run(3, kWork, [&](Team& team) {
    certify(team, net, data.z.data(), data.y.data(), n, lower.data(), correct.data());
    attack(team, net, data.z.data(), data.y.data(), correct.data(), lower.data(), n, {8, 4, 20, 1, 0}, interrupt,
           {upper.data(), beta.data(), corner.data(), corner_beta.data()});
  });
  const Index untouched = (upper.array() == -1.0).count();
  CHECK(untouched > 0 && asked.load() > 5);
}

}  // namespace

}  // namespace preluflow::tests
