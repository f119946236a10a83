// Certified and attacked radii on inner products; see margin.hpp.
#include "arrays.hpp"
#include "bindings.hpp"
#include "preluflow/margin.hpp"

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

  py::tuple attack(const Array<double>& z, const Array<double>& y, int starts, int restarts, int steps,
                   std::uint64_t seed, Index first, int threads) const {
    const AttackOptions options{starts, restarts, steps, seed, first};
    check(z, y);
    Array<double> upper(z.shape(0)), beta({z.shape(0), z.shape(1)});
    const double *zp = z.data(), *yp = y.data();
    double *out = upper.mutable_data(), *coefficients = beta.mutable_data();
    const Index n = z.shape(0);
    run(n, threads, [&](Team& team) { preluflow::attack(team, net_, zp, yp, n, options, out, coefficients); });
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

}  // namespace

void bind_margin(py::module_& m) {
  py::class_<BoundMargin>(m, "Margin", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, double, double, double, Array<Index>, Index>(),
           py::arg("gram").noconvert(), py::arg("a").noconvert(), py::arg("sign").noconvert(), py::arg("p"),
           py::arg("lipschitz_positive"), py::arg("lipschitz_negative"), py::arg("group_of").noconvert(),
           py::arg("groups"))
      .def("certify", &BoundMargin::certify, py::arg("z").noconvert(), py::arg("y").noconvert(),
           py::arg("norms").noconvert(), py::arg("threads"))
      .def("attack", &BoundMargin::attack, py::arg("z").noconvert(), py::arg("y").noconvert(), py::arg("starts"),
           py::arg("restarts"), py::arg("steps"), py::arg("seed"), py::arg("first"), py::arg("threads"));
}

}  // namespace preluflow::bindings
