// Certified and attacked radii; see preluflow/robustness. Results go into arrays of the
// caller's, so that what is done stays done when Ctrl-C ends a call.
#include "arrays.hpp"
#include "bindings.hpp"
#include "interrupts.hpp"
#include "preluflow/robustness/attack.hpp"
#include "preluflow/robustness/branch_and_bound.hpp"
#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/robustness/tangent.hpp"
#include "preluflow/robustness/trust_region.hpp"

namespace preluflow::bindings {

namespace {

using Flags = Array<std::uint8_t>;

// Runs body(team, interrupt) without the GIL and raises what a signal handler raised meanwhile.
template <class Body>
void run(int threads, double flops, const Body& body) {
  Signals signals;
  {
    const Interrupt interrupt = signals.interrupt();
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) {
      team.watch(&interrupt);
      body(team, interrupt);
    });
  }
  signals.rethrow();
}

class BoundMargin {
 public:
  BoundMargin(Array<double> gram, Array<double> log_a, Array<double> sign, double p, double log_lipschitz_positive,
              double log_lipschitz_negative, double slack, double doubt, Array<Index> group_of, Index groups,
              Array<double> rows)
      : gram_(std::move(gram)),
        log_a_(std::move(log_a)),
        sign_(std::move(sign)),
        group_of_(std::move(group_of)),
        rows_(std::move(rows)) {
    const Index h = log_a_.size();
    require(h > 0, "log_a must not be empty");
    require_matrix(gram_, h, "gram");
    require(gram_.shape(0) == h, "gram must be square");
    require_vector(log_a_, h, "log_a");
    require_vector(sign_, h, "sign");
    require_vector(group_of_, h, "group_of");
    require(rows_.ndim() == 2 && rows_.shape(0) == h, "rows must have shape (h, rank)");
    for (Index j = 0; j < h; ++j)
      require(group_of_.data()[j] >= 0 && group_of_.data()[j] < groups, "group_of out of range");
    net_ = {Curve::power, gram_.data(), h, p, slack, rows_.data(), rows_.shape(1), true};
    slack_.assign(static_cast<std::size_t>(h), slack);
    doubt_.assign(static_cast<std::size_t>(h), doubt);
    for (const int k : {0, 1}) {
      for (Index j = 0; j < h; ++j) side_[k].push_back(k == 0 ? sign_.data()[j] : -sign_.data()[j]);
      pair_[k] = {log_a_.data(),
                  side_[k].data(),
                  doubt_.data(),
                  doubt,
                  k == 0 ? log_lipschitz_negative : log_lipschitz_positive,
                  group_of_.data(),
                  groups};
    }
  }

  void certify(const Array<double>& z, const Array<double>& y, Array<double>& lower, Flags& correct,
               int threads) const {
    check(z, y);
    require_vector(lower, z.shape(0), "lower");
    require_vector(correct, z.shape(0), "correct");
    const double *zp = z.data(), *yp = y.data();
    double* out = lower.mutable_data();
    std::uint8_t* right = correct.mutable_data();
    const Index n = z.shape(0);
    run(threads, flops(n), [&](Team& team, const Interrupt&) {
      constexpr Index kBlock = 16;  // points of a task
      team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
        Tangent tangent(net_);
        for (Index i = task * kBlock; i < std::min((task + 1) * kBlock, n); ++i) {
          bool is_right = false;
          out[i] = tangent.radius(pair(yp[i]), point(zp, i), is_right);
          right[i] = is_right;
        }
      });
    });
  }

  void attack(const Array<double>& z, const Array<double>& y, const Flags& correct, const Array<double>& lower,
              int starts, int restarts, int steps, std::uint64_t seed, Index first, Array<double>& upper,
              Array<double>& d, Array<double>& corner, Array<double>& corner_d, int threads) const {
    const AttackOptions options{starts, restarts, steps, seed};
    check(z, y);
    const Index n = z.shape(0);
    require_vector(correct, n, "correct");
    require_vector(lower, n, "lower");
    require_vector(upper, n, "upper");
    require_vector(corner, n, "corner");
    for (const Array<double>* perturbations : {&d, &corner_d}) {
      require_matrix(*perturbations, frame_size(net_), "d and corner_d");
      require(perturbations->shape(0) == n, "d and corner_d must have as many rows as z");
    }
    const double *zp = z.data(), *yp = y.data(), *lp = lower.data();
    const std::uint8_t* cp = correct.data();
    double *up = upper.mutable_data(), *dp = d.mutable_data(), *cornerp = corner.mutable_data(),
           *corner_dp = corner_d.mutable_data();
    run(threads, flops(n), [&](Team& team, const Interrupt& interrupt) {
      constexpr Index kBlock = 4;  // points of a task
      const Groups groups[2] = {Groups(net_, pair_[0]), Groups(net_, pair_[1])};
      team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
        if (asked_to_stop(interrupt)) return;
        Attack search(net_, options, interrupt);
        for (Index i = task * kBlock; i < std::min((task + 1) * kBlock, n); ++i) {
          if (asked_to_stop(interrupt)) return;
          if (!cp[i]) {
            up[i] = 0.0;
            continue;
          }
          const double length = search.run(pair(yp[i]), groups[yp[i] > 0.0 ? 0 : 1], point(zp, i), lp[i],
                                           static_cast<std::uint64_t>(first + i));
          if (search.stopped()) return;
          const Index size = frame_size(net_);
          MatrixMap<double>(dp + i * size, 1, size) = search.d().matrix();
          MatrixMap<double>(corner_dp + i * size, 1, size) = search.corner_d().matrix();
          cornerp[i] = search.corner();
          up[i] = length;
        }
      });
    });
  }

  void errors(const Array<double>& z, const Array<double>& y, bool room, Flags& out) const {
    check(z, y);
    require_vector(out, z.shape(0), "out");
    const double *zp = z.data(), *yp = y.data();
    std::uint8_t* flags = out.mutable_data();
    const Index n = z.shape(0);
    py::gil_scoped_release release;
    for (Index i = 0; i < n; ++i) flags[i] = is_error(net_, pair(yp[i]), point(zp, i), room);
  }

 private:
  void check(const Array<double>& z, const Array<double>& y) const {
    require_matrix(z, net_.width, "z");
    require_vector(y, z.shape(0), "y");
  }

  const Pair& pair(double y) const { return pair_[y > 0.0 ? 0 : 1]; }
  Point point(const double* z, Index i) const { return {z + i * net_.width, slack_.data()}; }

  double flops(Index n) const { return 20.0 * static_cast<double>(n) * static_cast<double>(net_.width * net_.width); }

  Array<double> gram_, log_a_, sign_;
  Array<Index> group_of_;
  Array<double> rows_;
  std::vector<double> slack_, doubt_, side_[2];
  Neurons net_{};
  Pair pair_[2];
};

// The span of a network's neurons, and points in its coordinates.
class BoundSpan {
 public:
  BoundSpan(Array<double> directions, Array<double> log_a, Array<double> sign, double p, double slack, double doubt)
      : directions_(std::move(directions)), log_a_(std::move(log_a)), sign_(std::move(sign)) {
    const Index h = log_a_.size();
    require(h > 0, "log_a must not be empty");
    require(directions_.ndim() == 2 && directions_.shape(0) == h && directions_.shape(1) > 0,
            "directions must have shape (h, rank)");
    require_vector(log_a_, h, "log_a");
    require_vector(sign_, h, "sign");
    net_ = {Curve::power, nullptr, h, p, slack, nullptr, 0, true};
    span_ = {directions_.data(), directions_.shape(1), slack};
    doubt_.assign(static_cast<std::size_t>(h), doubt);
    slack_.assign(static_cast<std::size_t>(h), slack);
    for (const int k : {0, 1}) {
      for (Index j = 0; j < h; ++j) side_[k].push_back(k == 0 ? sign_.data()[j] : -sign_.data()[j]);
      pair_[k] = {log_a_.data(), side_[k].data(), doubt_.data(), doubt, 0.0, nullptr, 0};
    }
  }

  void tighten(const Array<double>& x, const Array<double>& d, const Array<double>& y, double tolerance,
               Array<double>& lower, Flags& done, int threads) const {
    check(x, d, y, lower);
    require_vector(done, y.size(), "done");
    const double *xp = x.data(), *dp = d.data(), *yp = y.data();
    double* out = lower.mutable_data();
    std::uint8_t* finished = done.mutable_data();
    const Index n = y.size();
    run(threads, flops(n), [&](Team& team, const Interrupt& interrupt) {
      team.parallel_for(n, [&](Index i) {
        if (asked_to_stop(interrupt)) return;
        const Index rank = span_.rank;
        const std::vector<double> z = values(xp + i * rank);
        finished[i] = preluflow::tighten(
            net_, span_, pair_[yp[i] > 0.0 ? 0 : 1], {z.data(), slack_.data()}, xp + i * rank, dp + i * rank,
            ConstVectorMap<double>(dp + i * rank, rank).norm(), tolerance, interrupt, out[i]);
      });
    });
  }

  void exact(const Array<double>& x, Array<double>& d, const Array<double>& y, double gap, Index most_nodes,
             double most_seconds, Array<double>& lower, Array<Index>& nodes, int threads) const {
    check(x, d, y, lower);
    require_vector(nodes, y.size(), "nodes");
    const double *xp = x.data(), *yp = y.data();
    double *out = lower.mutable_data(), *dp = d.mutable_data();
    Index* count = nodes.mutable_data();
    const Index n = y.size();
    const ExactOptions options{gap, most_nodes, most_seconds};
    run(threads, flops(n), [&](Team& team, const Interrupt& interrupt) {
      team.parallel_for(n, [&](Index i) {
        if (asked_to_stop(interrupt)) return;
        const Index rank = span_.rank;
        const std::vector<double> z = values(xp + i * rank);
        const Index looked_at = exact_radius(net_, span_, pair_[yp[i] > 0.0 ? 0 : 1], {z.data(), slack_.data()},
                                             xp + i * rank, options, interrupt, out[i], dp + i * rank);
        if (looked_at >= 0) count[i] = looked_at;
      });
    });
  }

 private:
  void check(const Array<double>& x, const Array<double>& d, const Array<double>& y, const Array<double>& lower) const {
    require_matrix(x, span_.rank, "x");
    require_matrix(d, span_.rank, "d");
    require(d.shape(0) == x.shape(0), "d must have as many rows as x");
    require_vector(y, x.shape(0), "y");
    require_vector(lower, x.shape(0), "lower");
  }

  // <x,u_j>, known within the span's slack.
  std::vector<double> values(const double* x) const {
    std::vector<double> z(static_cast<std::size_t>(net_.width));
    VectorMap<double>(z.data(), net_.width).noalias() =
        Eigen::Map<const Eigen::MatrixXd>(span_.directions, span_.rank, net_.width).transpose() *
        ConstVectorMap<double>(x, span_.rank);
    return z;
  }

  double flops(Index n) const { return 1e3 * static_cast<double>(n) * static_cast<double>(net_.width * span_.rank); }

  Array<double> directions_, log_a_, sign_;
  std::vector<double> doubt_, slack_, side_[2];
  Neurons net_{};
  Span span_{};
  Pair pair_[2];
};

Array<double> bound_products(const Array<double>& A, const Array<double>& B, int threads) {
  require(A.ndim() == 2 && B.ndim() == 2 && A.shape(1) == B.shape(1), "A and B must have rows of one length");
  const Index n = A.shape(0), m = B.shape(0), k = A.shape(1);
  Array<double> out({n, m});
  const double *a = A.data(), *b = B.data();
  double* result = out.mutable_data();
  const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(k);
  {
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) { products(team, a, n, b, m, k, result); });
  }
  return out;
}

double bound_largest_eigenvalue(const Array<double>& M) {
  require(M.ndim() == 2 && M.shape(0) == M.shape(1), "M must be square");
  const Eigen::MatrixXd copy = ConstMatrixMap<double>(M.data(), M.shape(0), M.shape(1));
  py::gil_scoped_release release;
  return largest_eigenvalue(copy);
}

Array<double> bound_orthonormal_basis(const Array<double>& U, double tolerance) {
  require(U.ndim() == 2, "U must be a matrix");
  std::vector<double> basis;
  {
    const double* rows = U.data();
    const Index h = U.shape(0), D = U.shape(1);
    py::gil_scoped_release release;
    basis = orthonormal_basis(rows, h, D, tolerance);
  }
  Array<double> out({static_cast<Index>(basis.size()) / U.shape(1), static_cast<Index>(U.shape(1))});
  std::copy(basis.begin(), basis.end(), out.mutable_data());
  return out;
}

}  // namespace

void bind_robustness(py::module_& m) {
  py::class_<BoundMargin>(m, "Margin", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, double, double, double, double, double, Array<Index>,
                    Index, Array<double>>(),
           py::arg("gram").noconvert(), py::arg("log_a").noconvert(), py::arg("sign").noconvert(), py::arg("p"),
           py::arg("log_lipschitz_positive"), py::arg("log_lipschitz_negative"), py::arg("slack"), py::arg("doubt"),
           py::arg("group_of").noconvert(), py::arg("groups"), py::arg("rows").noconvert())
      .def("certify", &BoundMargin::certify, py::arg("z").noconvert(), py::arg("y").noconvert(),
           py::arg("lower").noconvert(), py::arg("correct").noconvert(), py::arg("threads"))
      .def("attack", &BoundMargin::attack, py::arg("z").noconvert(), py::arg("y").noconvert(),
           py::arg("correct").noconvert(), py::arg("lower").noconvert(), py::arg("starts"), py::arg("restarts"),
           py::arg("steps"), py::arg("seed"), py::arg("first"), py::arg("upper").noconvert(), py::arg("d").noconvert(),
           py::arg("corner").noconvert(), py::arg("corner_d").noconvert(), py::arg("threads"))
      .def("errors", &BoundMargin::errors, py::arg("z").noconvert(), py::arg("y").noconvert(), py::arg("room"),
           py::arg("out").noconvert());
  py::class_<BoundSpan>(m, "Span", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, double, double, double>(),
           py::arg("directions").noconvert(), py::arg("log_a").noconvert(), py::arg("sign").noconvert(), py::arg("p"),
           py::arg("slack"), py::arg("doubt"))
      .def("tighten", &BoundSpan::tighten, py::arg("x").noconvert(), py::arg("d").noconvert(), py::arg("y").noconvert(),
           py::arg("tolerance"), py::arg("lower").noconvert(), py::arg("done").noconvert(), py::arg("threads"))
      .def("exact", &BoundSpan::exact, py::arg("x").noconvert(), py::arg("d").noconvert(), py::arg("y").noconvert(),
           py::arg("gap"), py::arg("most_nodes"), py::arg("most_seconds"), py::arg("lower").noconvert(),
           py::arg("nodes").noconvert(), py::arg("threads"));
  m.def("products", &bound_products, py::arg("A").noconvert(), py::arg("B").noconvert(), py::arg("threads"));
  m.def("largest_eigenvalue", &bound_largest_eigenvalue, py::arg("M").noconvert());
  m.def("orthonormal_basis", &bound_orthonormal_basis, py::arg("U").noconvert(), py::arg("tolerance"));
}

}  // namespace preluflow::bindings
