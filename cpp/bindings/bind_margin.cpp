// Certified and attacked radii on inner products; see margin.hpp.
#include "arrays.hpp"
#include "bindings.hpp"
#include "preluflow/exact.hpp"
#include "preluflow/margin.hpp"
#include "preluflow/tight.hpp"

namespace preluflow::bindings {

namespace {

class BoundMargin {
 public:
  BoundMargin(Array<double> gram, Array<double> a, Array<double> sign, double p, double lipschitz_positive,
              double lipschitz_negative, Array<Index> group_of, Index groups)
      : gram_(std::move(gram)), a_(std::move(a)), sign_(std::move(sign)), group_of_(std::move(group_of)) {
    const Index h = a_.size();
    require(h > 0, "a must not be empty");
    require_matrix(gram_, h, "gram");
    require(gram_.shape(0) == h, "gram must be square");
    require_vector(a_, h, "a");
    require_vector(sign_, h, "sign");
    require_vector(group_of_, h, "group_of");
    for (Index j = 0; j < h; ++j)
      require(group_of_.data()[j] >= 0 && group_of_.data()[j] < groups, "group_of out of range");
    net_ = {gram_.data(),     a_.data(), sign_.data(), h, p, {lipschitz_positive, lipschitz_negative},
            group_of_.data(), groups};
  }

  Array<double> certify(const Array<double>& z, const Array<double>& y, const Array<double>& norms, int threads) const {
    check(z, y);
    require_vector(norms, z.shape(0), "norms");
    Array<double> lower(z.shape(0));
    const double *zp = z.data(), *yp = y.data(), *np = norms.data();
    double* out = lower.mutable_data();
    const Index n = z.shape(0);
    run(n, threads, [&](Team& team) { preluflow::certify(team, net_, zp, yp, np, n, out); });
    return lower;
  }

  py::tuple attack(const Array<double>& z, const Array<double>& y, const Array<double>& norms,
                   const Array<double>& lower, int starts, int restarts, int steps, std::uint64_t seed, Index first,
                   int threads) const {
    const AttackOptions options{starts, restarts, steps, seed, first};
    check(z, y);
    require_vector(norms, z.shape(0), "norms");
    require_vector(lower, z.shape(0), "lower");
    Array<double> upper(z.shape(0)), beta({z.shape(0), z.shape(1)});
    const double *zp = z.data(), *yp = y.data(), *np = norms.data(), *lp = lower.data();
    double *out = upper.mutable_data(), *coefficients = beta.mutable_data();
    const Index n = z.shape(0);
    run(n, threads, [&](Team& team) { preluflow::attack(team, net_, zp, yp, np, lp, n, options, out, coefficients); });
    return py::make_tuple(upper, beta);
  }

 private:
  void check(const Array<double>& z, const Array<double>& y) const {
    require_matrix(z, net_.width, "z");
    require_vector(y, z.shape(0), "y");
  }

  template <class Body>
  void run(Index n, int threads, const Body& body) const {
    py::gil_scoped_release release;
    Team::run(threads, 20.0 * static_cast<double>(n) * static_cast<double>(net_.width * net_.width), body);
  }

  Array<double> gram_, a_, sign_;
  Array<Index> group_of_;
  MarginNetwork net_{};
};

// The span of a network's neurons, and points in its coordinates.
class BoundSpan {
 public:
  BoundSpan(Array<double> directions, Array<double> a, Array<double> sign, double p)
      : directions_(std::move(directions)), a_(std::move(a)), sign_(std::move(sign)) {
    const Index h = a_.size();
    require(h > 0, "a must not be empty");
    require(directions_.ndim() == 2 && directions_.shape(0) == h && directions_.shape(1) > 0,
            "directions must have shape (h, rank)");
    require_vector(a_, h, "a");
    require_vector(sign_, h, "sign");
    net_ = {directions_.data(), a_.data(), sign_.data(), h, directions_.shape(1), p};
  }

  Array<double> tighten(const Array<double>& x, const Array<double>& d, const Array<double>& y,
                        const Array<double>& norms, const Array<double>& lower, double tolerance, int threads) const {
    check(x, d, y, norms, lower);
    Array<double> raised = copy(lower);
    const double *xp = x.data(), *dp = d.data(), *yp = y.data(), *np = norms.data();
    double* out = raised.mutable_data();
    const Index n = y.size();
    run(n, threads, [&](Team& team) { preluflow::tighten(team, net_, xp, dp, yp, np, n, tolerance, out); });
    return raised;
  }

  py::tuple exact(const Array<double>& x, const Array<double>& d, const Array<double>& y, const Array<double>& norms,
                  const Array<double>& lower, double gap, Index most, int threads) const {
    check(x, d, y, norms, lower);
    Array<double> raised = copy(lower), shorter = copy(d);
    Array<Index> nodes(y.size());
    const double *xp = x.data(), *yp = y.data(), *np = norms.data();
    double *out = raised.mutable_data(), *dp = shorter.mutable_data();
    Index* count = nodes.mutable_data();
    const Index n = y.size();
    run(n, threads, [&](Team& team) { preluflow::exact_radii(team, net_, xp, yp, np, n, gap, most, out, dp, count); });
    return py::make_tuple(raised, shorter, nodes);
  }

 private:
  void check(const Array<double>& x, const Array<double>& d, const Array<double>& y, const Array<double>& norms,
             const Array<double>& lower) const {
    require_matrix(x, net_.rank, "x");
    require_matrix(d, net_.rank, "d");
    require(d.shape(0) == x.shape(0), "d must have as many rows as x");
    require_vector(y, x.shape(0), "y");
    require_vector(norms, x.shape(0), "norms");
    require_vector(lower, x.shape(0), "lower");
  }

  static Array<double> copy(const Array<double>& array) {
    Array<double> result(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()));
    std::copy(array.data(), array.data() + array.size(), result.mutable_data());
    return result;
  }

  template <class Body>
  void run(Index n, int threads, const Body& body) const {
    py::gil_scoped_release release;
    Team::run(threads, 1e3 * static_cast<double>(n) * static_cast<double>(net_.width * net_.rank), body);
  }

  Array<double> directions_, a_, sign_;
  SpanNetwork net_{};
};

}  // namespace

void bind_margin(py::module_& m) {
  py::class_<BoundMargin>(m, "Margin", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, double, double, double, Array<Index>, Index>(),
           py::arg("gram").noconvert(), py::arg("a").noconvert(), py::arg("sign").noconvert(), py::arg("p"),
           py::arg("lipschitz_positive"), py::arg("lipschitz_negative"), py::arg("group_of").noconvert(),
           py::arg("groups"))
      .def("certify", &BoundMargin::certify, py::arg("z").noconvert(), py::arg("y").noconvert(),
           py::arg("norms").noconvert(), py::arg("threads"))
      .def("attack", &BoundMargin::attack, py::arg("z").noconvert(), py::arg("y").noconvert(),
           py::arg("norms").noconvert(), py::arg("lower").noconvert(), py::arg("starts"), py::arg("restarts"),
           py::arg("steps"), py::arg("seed"), py::arg("first"), py::arg("threads"));
  py::class_<BoundSpan>(m, "Span", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, double>(), py::arg("directions").noconvert(),
           py::arg("a").noconvert(), py::arg("sign").noconvert(), py::arg("p"))
      .def("tighten", &BoundSpan::tighten, py::arg("x").noconvert(), py::arg("d").noconvert(), py::arg("y").noconvert(),
           py::arg("norms").noconvert(), py::arg("lower").noconvert(), py::arg("tolerance"), py::arg("threads"))
      .def("exact", &BoundSpan::exact, py::arg("x").noconvert(), py::arg("d").noconvert(), py::arg("y").noconvert(),
           py::arg("norms").noconvert(), py::arg("lower").noconvert(), py::arg("gap"), py::arg("most"),
           py::arg("threads"));
}

}  // namespace preluflow::bindings
