// The kernels on teams of several threads: the same bits as on one thread, and, under ThreadSanitizer, no races.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "preluflow/descent.hpp"
#include "preluflow/flow.hpp"
#include "preluflow/robustness/bracket.hpp"

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

  NetworkState<T> state(Activation activation) const { return {network(activation), 1, nullptr, {}}; }

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
  Descent<T> descent({data.X.data(), data.y.data(), data.n}, data.state(activation), Loss::squared, {0.2});
  double loss = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    for (int step = 0; step < 5; ++step) CHECK(descent.advance(team));
    loss = descent.evaluate(team);
  });
  return Trained<T>(descent.state(), loss);
}

template <class T, class Step>
Trained<T> after_an_epoch(StochasticDescent<T, Step>& descent, const Problem<T>& data, int threads) {
  const Index batch = descent.batch();
  double loss = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    for (Index first = 0; first < data.n; first += batch)
      CHECK(descent.advance(team, data.order.data() + first, std::min(batch, data.n - first)));
    loss = descent.evaluate(team);
  });
  return Trained<T>(descent.state(), loss);
}

template <class T>
Trained<T> descend_in_batches(const Problem<T>& data, int threads) {
  StochasticDescent<T> descent({data.X.data(), data.y.data(), data.n}, data.state(Activation::prelu), Loss::logistic,
                               {0.2}, 90);
  return after_an_epoch(descent, data, threads);
}

// Ten outputs, so that the scalars of neurons make several tasks; biases, a centre and normalised inputs; weights of
// the points.
template <class T>
struct ClassProblem {
  static constexpr Index outputs = 10;

  explicit ClassProblem(const Problem<T>& data_)
      : data(data_),
        y(RowMatrix<double>::Zero(data.n, outputs)),
        weight(data.n),
        sign(data.width * outputs),
        log_abs_v(data.width * outputs),
        center(data.dim),
        bias(Vector<double>::Constant(outputs, 0.1)) {
    Numbers numbers(2);
    for (Index i = 0; i < data.n; ++i) {
      y(i, i % outputs) = 1.0;
      weight(i) = i % 2 == 0 ? 0.5 : 1.5;
    }
    for (Index k = 0; k < sign.size(); ++k) {
      sign(k) = numbers.uniform() < 0.5 ? -1.0 : 1.0;
      log_abs_v(k) = numbers.uniform(-2.0, 0.0);
    }
    for (Index d = 0; d < data.dim; ++d) center(d) = 0.1 * numbers.normal();
    U = numbers.directions(data.width, data.dim + 1).template cast<T>();
  }

  TrainingData<T> view() const { return {data.X.data(), y.data(), data.n, weight.data()}; }
  NetworkState<T> state(Activation activation) const {
    const Network<T> net{U.data(),   data.log_norm.data(), sign.data(), log_abs_v.data(),
                         data.width, data.dim + 1,         activation,  3.0};
    return {net, outputs, bias.data(), {center.data(), true, activation == Activation::prelu ? 2.0 : 0.0}};
  }

  const Problem<T>& data;
  RowMatrix<double> y;
  Vector<double> weight, sign, log_abs_v, center, bias;
  RowMatrix<T> U;
};

template <class T>
Trained<T> descend_to_classes(const Problem<T>& data, int threads) {
  const ClassProblem<T> problem(data);
  Descent<T> descent(problem.view(), problem.state(Activation::prelu), Loss::cross_entropy, {0.2, 0.01});
  double loss = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    for (int step = 0; step < 5; ++step) CHECK(descent.advance(team));
    loss = descent.evaluate(team);
  });
  return Trained<T>(descent.state(), loss);
}

template <class T, class Step>
Trained<T> descend_to_classes_in_batches(const Problem<T>& data, const typename Step::Options& options, int threads) {
  const ClassProblem<T> problem(data);
  StochasticDescent<T, Step> descent(problem.view(), problem.state(Activation::prelu), Loss::cross_entropy, options,
                                     150);
  return after_an_epoch(descent, data, threads);
}

// The loss after three steps, the network and polynomials within the last, and work done.
template <class T>
std::vector<double> integrate(Flow<T>& flow, int threads) {
  const Index width = flow.width(), C = flow.outputs_count(), count = flow.degree() + 1;
  RowMatrix<T> U(width, flow.seen()), phi(count * width, flow.seen());
  Vector<double> log_norm(width), sign(width * C), log_abs_v(width * C), bias(C);
  Vector<double> l(count * width), rho(count * width * C), B(count * C);
  for (Vector<double>* values : {&bias, &rho, &B}) values->setZero();
  phi.setZero();
  std::vector<double> out;
  Team::run(threads, kWork, [&](Team& team) {
    for (int step = 0; step < 3; ++step) CHECK(flow.advance(team) == FlowStatus::ok);
    flow.interpolate(team, 0.5 * (flow.begin() + flow.end()),
                     {U.data(), log_norm.data(), sign.data(), log_abs_v.data(), bias.data()});
    flow.polynomials(team, phi.data(), l.data(), rho.data(), B.data());
    out.push_back(flow.loss(team));
  });
  CHECK(std::isfinite(out[0]));
  for (const Vector<double>* values : {&log_norm, &sign, &log_abs_v, &bias, &l, &rho, &B})
    out.insert(out.end(), values->data(), values->data() + values->size());
  for (Index k = 0; k < U.size(); ++k) out.push_back(static_cast<double>(U.data()[k]));
  for (Index k = 0; k < phi.size(); ++k) out.push_back(static_cast<double>(phi.data()[k]));
  out.push_back(static_cast<double>(flow.gradients()));
  return out;
}

template <class T>
std::vector<double> flow(const Problem<T>& data, const char* method, int threads) {
  FlowOptions options;
  options.t1 = 2.0;
  Flow<T> flow({data.X.data(), data.y.data(), data.n}, data.state(Activation::prelu), Loss::squared,
               find_tableau(method), options);
  return integrate(flow, threads);
}

template <class T>
std::vector<double> flow_to_classes(const Problem<T>& data, Activation activation, preluflow::Trained trained,
                                    int threads) {
  const ClassProblem<T> problem(data);
  FlowOptions options;
  options.t1 = 2.0;
  options.weight_decay = 0.01;
  options.trained = trained;
  Flow<T> flow(problem.view(), problem.state(activation), Loss::cross_entropy, find_tableau("tsit5"), options);
  return integrate(flow, threads);
}

template <class T>
void check_training() {
  const Problem<T> data;
  for (Activation activation : {Activation::prelu, Activation::polynomial, Activation::tanh})
    CHECK(descend(data, activation, 3) == descend(data, activation, 1));
  CHECK(descend_in_batches(data, 3) == descend_in_batches(data, 1));
  CHECK(descend_to_classes(data, 3) == descend_to_classes(data, 1));
  const auto sgd = descend_to_classes_in_batches<T, DescentStep<T>>;
  const auto adam = descend_to_classes_in_batches<T, AdamStep<T>>;
  CHECK(sgd(data, {0.1, 0.01}, 3) == sgd(data, {0.1, 0.01}, 1));
  CHECK(adam(data, {{0.01, 0.01}}, 3) == adam(data, {{0.01, 0.01}}, 1));
  for (const char* method : {"bosh3", "dop853"}) CHECK(flow(data, method, 3) == flow(data, method, 1));
  for (Activation activation : {Activation::prelu, Activation::polynomial, Activation::tanh})
    for (auto trained : {preluflow::Trained::both, preluflow::Trained::inner, preluflow::Trained::outer})
      CHECK(flow_to_classes(data, activation, trained, 3) == flow_to_classes(data, activation, trained, 1));
}

TEST(kernels_train_to_the_same_bits_on_any_number_of_threads) {
  check_training<float>();
  check_training<double>();
}

// A small network of three classes with all its parts, and points.
struct Classes {
  static constexpr Index n = 40, width = 8, dim = 12, outputs = 3;

  explicit Classes(Activation activation)
      : kind(activation),
        U(width, dim),
        X(n, dim),
        sign(width, outputs),
        log_abs_v(width, outputs),
        log_norm(width),
        offsets(width),
        bias(outputs) {
    Numbers numbers(2);
    U = numbers.directions(width, dim);
    X = numbers.directions(n, dim);
    for (Index j = 0; j < width; ++j) {
      log_norm(j) = numbers.uniform(-1.0, 1.0);
      offsets(j) = numbers.uniform(-0.2, 0.2);
      for (Index c = 0; c < outputs; ++c) {
        sign(j, c) = numbers.uniform() < 0.5 ? -1.0 : 1.0;
        log_abs_v(j, c) = numbers.uniform(-1.0, 1.0);
      }
    }
    for (Index c = 0; c < outputs; ++c) bias(c) = numbers.uniform(-0.1, 0.1);
    for (Index i = 0; i < n; ++i) label.push_back(i % outputs);
  }

  GeneralNetwork<double> network() const {
    return {{U.data(), log_norm.data(), sign.data(), log_abs_v.data(), width, dim, kind, 3.0},
            outputs,
            offsets.data(),
            bias.data(),
            nullptr,
            kind == Activation::prelu};
  }

  Activation kind;
  RowMatrix<double> U, X, sign, log_abs_v;
  Vector<double> log_norm, offsets, bias;
  std::vector<Index> label;
};

// What a call of bracket() gives.
struct Radii {
  static constexpr Index n = Classes::n;
  Vector<double> lower = Vector<double>::Zero(n), upper = lower;
  RowMatrix<double> witness = RowMatrix<double>::Zero(n, Classes::dim);
  std::vector<std::uint8_t> correct = std::vector<std::uint8_t>(n), done = correct, certificate = correct;
  std::vector<std::int64_t> reached = std::vector<std::int64_t>(n), rival = reached, rounds = reached, nodes = reached;

  BracketResult view() {
    return {lower.data(), upper.data(),       witness.data(), correct.data(), reached.data(),
            done.data(),  certificate.data(), rival.data(),   rounds.data(),  nodes.data()};
  }
  bool operator==(const Radii& o) const {
    return lower == o.lower && upper == o.upper && witness == o.witness && correct == o.correct &&
           reached == o.reached && certificate == o.certificate && rival == o.rival && rounds == o.rounds &&
           nodes == o.nodes;
  }
};

Radii radii(const Classes& problem, Level level, int threads, const Interrupt& interrupt) {
  Radii out;
  BracketOptions options;
  options.level = level;
  options.seed = 1;
  options.gap = 1e-3;
  options.most_nodes = 100;
  options.most_seconds = kInfinity;
  Team::run(threads, kWork, [&](Team& team) {
    team.watch(&interrupt);
    Canonical canonical(team, problem.network(), nullptr);
    const Evaluator evaluator(problem.network());
    canonical.prepare(team, {0, 1, 2});
    canonical.prepare_span(team);
    bracket(team, canonical, evaluator, {problem.X.data(), nullptr, problem.dim}, problem.label.data(), problem.n,
            options, interrupt, out.view());
  });
  return out;
}

void check_brackets(Activation activation, Level level) {
  const Classes problem(activation);
  const Interrupt never = [] { return false; };
  const Radii alone = radii(problem, level, 1, never);
  CHECK(radii(problem, level, 3, never) == alone);
  CHECK(radii(problem, level, 2, never) == alone);
  Index correct = 0;
  for (Index i = 0; i < problem.n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    CHECK(alone.done[at] == 1);
    CHECK_AT_MOST(alone.lower(i), alone.upper(i));
    if (alone.correct[at] && std::isfinite(alone.upper(i)))
      CHECK_AT_MOST(std::abs(alone.witness.row(i).norm() - alone.upper(i)), 1e-12);
    correct += alone.correct[at];
  }
  CHECK(correct > 5);
}

TEST(kernels_bracket_radii_to_the_same_bits_on_any_number_of_threads) {
  for (const Level level : {Level::fast, Level::tight, Level::exact})
    for (const Activation kind : {Activation::prelu, Activation::polynomial, Activation::tanh})
      check_brackets(kind, level);
}

// Threads of a team ask at once; whoever is told to stop leaves what is not begun undone.
TEST(kernels_stop_when_asked_to) {
  const Classes problem(Activation::polynomial);
  std::atomic<int> asked{0};
  const Radii found = radii(problem, Level::tight, 3, [&] { return asked.fetch_add(1) >= 30; });
  CHECK(std::count(found.done.begin(), found.done.end(), 0) > 0);
  CHECK(asked.load() > 30);
}

}  // namespace

}  // namespace preluflow::tests
