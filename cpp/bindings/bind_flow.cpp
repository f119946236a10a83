// The gradient-flow stepper and the tableaus it steps by.
#include <pybind11/stl.h>

#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "preluflow/flow.hpp"

namespace preluflow::bindings {

namespace {

template <class T>
class BoundFlow {
 public:
  BoundFlow(const StartArrays<T>& start, Data<T> data, const std::string& loss, const std::string& method,
            const FlowOptions& options, int threads)
      : data_(std::move(data)),
        threads_(threads),
        flow_(data_.view(), start.state(), parse_loss(loss), find_tableau(method), options) {}

  // One step, with the GIL released, then a look for Ctrl-C.
  std::string advance() {
    FlowStatus status = FlowStatus::ok;
    run([&](Team& team) { status = flow_.advance(team); });
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (status == FlowStatus::ok) return "ok";
    return status == FlowStatus::not_finite ? "not_finite" : "step_too_small";
  }

  py::tuple state(double t) {
    require(t >= flow_.begin() && t <= flow_.end(), "t is outside the last step");
    const Index width = flow_.width(), outputs = flow_.outputs_count();
    Array<double> log_norm(width), sign({width, outputs}), log_abs_v({width, outputs});
    Array<double> bias(flow_.has_output_bias() ? outputs : 0);
    Array<T> rows({width, flow_.seen()});
    const NetworkArraysOut<T> out{rows.mutable_data(), log_norm.mutable_data(), sign.mutable_data(),
                                  log_abs_v.mutable_data(), bias.mutable_data()};
    run([&](Team& team) { flow_.interpolate(team, t, out); });
    return py::make_tuple(rows, log_norm, sign, log_abs_v, bias);
  }

  // The last step's polynomials: phi (degree + 1, h, D), without columns if the inner layer is frozen; l (degree + 1,
  // h); rho (degree + 1, h, C), without columns if the outer one is; B (degree + 1, C), without if there is none.
  py::tuple polynomials() {
    require(flow_.accepted() > 0, "no step has been taken");
    const Index count = flow_.degree() + 1, width = flow_.width(), outputs = flow_.outputs_count();
    const Trained trained = flow_.trained();
    Array<T> phi({count, width, trained == Trained::outer ? 0 : flow_.seen()});
    Array<double> l({count, width}), rho({count, width, trained == Trained::inner ? 0 : outputs});
    Array<double> bias({count, flow_.has_output_bias() ? outputs : 0});
    T* p = phi.mutable_data();
    double *a = l.mutable_data(), *b = rho.mutable_data(), *c = bias.mutable_data();
    run([&](Team& team) { flow_.polynomials(team, p, a, b, c); });
    return py::make_tuple(phi, l, rho, bias);
  }

  // Mean loss at the end of the step, and outputs() there.
  double loss() {
    double value = 0.0;
    run([&](Team& team) { value = flow_.loss(team); });
    return value;
  }
  Array<double> outputs() const { return copy_table(flow_.outputs().data(), data_.X.shape(0), flow_.outputs_count()); }

  double begin() const { return flow_.begin(); }
  double end() const { return flow_.end(); }
  double next_step() const { return flow_.next_step(); }
  Index accepted() const { return flow_.accepted(); }
  Index rejected() const { return flow_.rejected(); }
  Index gradients() const { return flow_.gradients(); }

 private:
  template <class Body>
  void run(const Body& body) {
    py::gil_scoped_release release;
    Team::run(threads_, 4.0 * static_cast<double>(data_.X.size()) * static_cast<double>(flow_.width()), body);
  }

  Data<T> data_;
  int threads_;
  Flow<T> flow_;
};

template <class T>
void bind(py::module_& m, const char* name) {
  using Bound = BoundFlow<T>;
  py::class_<Bound>(m, name, py::module_local())
      .def(py::init([](const StartArrays<T>& start, Array<T> X, Array<double> y, std::optional<Array<double>> weight,
                       const std::string& loss, const std::string& method, double t0, double t1, double rtol,
                       double step, double weight_decay, const std::string& trained, int threads) {
             require(weight_decay >= 0.0, "weight_decay must be >= 0");
             const FlowOptions options{t0, t1, rtol, step, weight_decay, parse_trained(trained)};
             Data<T> data(std::move(X), std::move(y), std::move(weight), start.dim(), start.outputs());
             return std::make_unique<Bound>(start, std::move(data), loss, method, options, threads);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("weight").noconvert(),
           py::arg("loss"), py::arg("method"), py::arg("t0"), py::arg("t1"), py::arg("rtol"), py::arg("step"),
           py::arg("weight_decay"), py::arg("trained"), py::arg("threads"))
      .def("advance", &Bound::advance)
      .def("state", &Bound::state, py::arg("t"))
      .def("polynomials", &Bound::polynomials)
      .def("loss", &Bound::loss)
      .def("outputs", &Bound::outputs)
      .def_property_readonly("begin", &Bound::begin)
      .def_property_readonly("end", &Bound::end)
      .def_property_readonly("next_step", &Bound::next_step)
      .def_property_readonly("accepted", &Bound::accepted)
      .def_property_readonly("rejected", &Bound::rejected)
      .def_property_readonly("gradients", &Bound::gradients);
}

py::dict as_dict(const Tableau& method) {
  py::dict entry;
  entry["name"] = method.name;
  entry["order"] = method.order;
  entry["control_order"] = method.control_order;
  entry["dense_order"] = method.dense_order;
  entry["a"] = method.a;
  entry["b"] = method.b;
  entry["e"] = method.e;
  entry["more"] = method.more;
  entry["dense"] = method.dense;
  return entry;
}

py::list tableau_list() {
  py::list out;
  for (const Tableau& method : tableaus()) out.append(as_dict(method));
  return out;
}

// By their stages: the tableau, and how far its stability reaches on the negative axis.
py::dict chebyshev_tableaus() {
  py::dict out;
  for (int s = kLeastStages; s <= kMostStages; ++s)
    out[py::int_(s)] = py::make_tuple(as_dict(chebyshev_tableau(s)), chebyshev_interval(s));
  return out;
}

}  // namespace

void bind_flow(py::module_& m) {
  m.def("tableaus", &tableau_list);
  m.def("chebyshev_tableaus", &chebyshev_tableaus);
  bind<float>(m, "Flow32");
  bind<double>(m, "Flow64");
}

}  // namespace preluflow::bindings
