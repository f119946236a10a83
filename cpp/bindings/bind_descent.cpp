// The gradient-descent stepper. advance() runs with the GIL released and looks for Ctrl-C between steps.
#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "preluflow/descent.hpp"

namespace preluflow::bindings {

namespace {

template <class T>
class DescentStepper {
 public:
  DescentStepper(const NetworkArrays<T>& start, Array<T> X, Array<double> y, const std::string& loss, double step,
                 int threads)
      : X_(std::move(X)),
        y_(std::move(y)),
        stepper_(checked(X_, y_, start.view()), y_.data(), X_.shape(0), start.view(), parse_loss(loss), step, threads) {
  }

  // Up to `steps` steps; returns how many were done (fewer when something is not finite).
  Index advance(Index steps) {
    for (Index done = 0; done < steps; ++done) {
      bool finite = false;
      {
        py::gil_scoped_release release;
        finite = stepper_.advance();
      }
      if (!finite) return done;
      ++iteration_;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    return steps;
  }

  double evaluate() {
    py::gil_scoped_release release;
    stepper_.evaluate();
    return stepper_.loss_value();
  }

  py::tuple state() const {
    const NetworkState<T>& now = stepper_.state();
    return py::make_tuple(copy_matrix(now.U), copy_vector(now.log_norm), copy_vector(now.sign),
                          copy_vector(now.log_abs_v));
  }

  Array<double> outputs() const { return copy_vector(stepper_.outputs()); }
  Index iteration() const { return iteration_; }
  Index gradients() const { return stepper_.gradients(); }

 private:
  static const T* checked(const Array<T>& X, const Array<double>& y, const Network<T>& net) {
    require_matrix(X, net.dim, "X");
    require_vector(y, X.shape(0), "y");
    return X.data();
  }

  Array<T> X_;
  Array<double> y_;
  Descent<T> stepper_;
  Index iteration_ = 0;
};

template <class T>
void bind(py::module_& m, const char* class_name) {
  using Stepper = DescentStepper<T>;
  py::class_<Stepper>(m, class_name, py::module_local())
      .def(py::init<const NetworkArrays<T>&, Array<T>, Array<double>, const std::string&, double, int>(),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("loss"), py::arg("step"),
           py::arg("threads"))
      .def("advance", &Stepper::advance, py::arg("steps"))
      .def("evaluate", &Stepper::evaluate)
      .def("state", &Stepper::state)
      .def("outputs", &Stepper::outputs)
      .def_property_readonly("iteration", &Stepper::iteration)
      .def_property_readonly("gradients", &Stepper::gradients);
}

}  // namespace

void bind_descent(py::module_& m) {
  bind<float>(m, "Descent32");
  bind<double>(m, "Descent64");
}

}  // namespace preluflow::bindings
