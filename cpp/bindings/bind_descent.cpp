// The descent steppers. Steps run with the GIL released; Ctrl-C is looked for between them.
#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "preluflow/descent.hpp"

namespace preluflow::bindings {

namespace {

// The data a stepper works on, checked and kept alive.
template <class T>
struct Data {
  Data(Array<T> X_, Array<double> y_, Index dim) : X(std::move(X_)), y(std::move(y_)) {
    require_matrix(X, dim, "X");
    require_vector(y, X.shape(0), "y");
  }
  Array<T> X;
  Array<double> y;
};

template <class Advance>
bool without_gil(const Advance& advance) {
  bool finite = false;
  {
    py::gil_scoped_release release;
    finite = advance();
  }
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  return finite;
}

// What both steppers show.
template <class Stepper, class T>
class Bound {
 public:
  template <class... Args>
  Bound(Data<T> data, Args&&... args)
      : data_(std::move(data)),
        stepper_(data_.X.data(), data_.y.data(), data_.X.shape(0), std::forward<Args>(args)...) {}

  double evaluate() {
    py::gil_scoped_release release;
    return stepper_.evaluate();
  }

  py::tuple state() const {
    const NetworkState<T>& now = stepper_.state();
    return py::make_tuple(copy_matrix(now.U), copy_vector(now.log_norm), copy_vector(now.sign),
                          copy_vector(now.log_abs_v));
  }

  Array<double> outputs() const { return copy_vector(stepper_.outputs()); }
  Index iteration() const { return iteration_; }
  Index gradients() const { return stepper_.gradients(); }

  // Up to `steps` descent steps; returns how many were done (fewer when something is not finite).
  Index advance(Index steps) {
    for (Index done = 0; done < steps; ++done) {
      if (!without_gil([&] {
            const bool finite = stepper_.advance();
            iteration_ += finite;
            return finite;
          }))
        return done;
    }
    return steps;
  }

  // One epoch of mini-batches in the given order of rows; the last batch may be short. False if not finite.
  bool epoch(const Array<Index>& order) {
    require_vector(order, stepper_.n(), "order");
    const Index* rows = order.data();
    for (Index i = 0; i < stepper_.n(); ++i) require(rows[i] >= 0 && rows[i] < stepper_.n(), "order out of range");
    for (Index first = 0; first < stepper_.n(); first += stepper_.batch()) {
      const Index count = std::min(stepper_.batch(), stepper_.n() - first);
      if (!without_gil([&] {
            const bool finite = stepper_.advance(rows + first, count);
            iteration_ += finite;
            return finite;
          }))
        return false;
    }
    return true;
  }

 private:
  Data<T> data_;
  Stepper stepper_;
  Index iteration_ = 0;
};

template <class Class>
void bind_common(Class& bound) {
  using Stepper = typename Class::type;
  bound.def("evaluate", &Stepper::evaluate)
      .def("state", &Stepper::state)
      .def("outputs", &Stepper::outputs)
      .def_property_readonly("iteration", &Stepper::iteration);
}

template <class T>
void bind(py::module_& m, const char* descent_name, const char* stochastic_name) {
  using Full = Bound<Descent<T>, T>;
  py::class_<Full> full(m, descent_name, py::module_local());
  bind_common(full);
  full.def(py::init([](const NetworkArrays<T>& start, Array<T> X, Array<double> y, const std::string& loss, double step,
                       int threads) {
             const Network<T> net = start.view();
             return std::make_unique<Full>(Data<T>(std::move(X), std::move(y), net.dim), net, parse_loss(loss), step,
                                           threads);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("loss"), py::arg("step"),
           py::arg("threads"))
      .def("advance", &Full::advance, py::arg("steps"))
      .def_property_readonly("gradients", &Full::gradients);

  using Stochastic = Bound<StochasticDescent<T>, T>;
  py::class_<Stochastic> stochastic(m, stochastic_name, py::module_local());
  bind_common(stochastic);
  stochastic
      .def(py::init([](const NetworkArrays<T>& start, Array<T> X, Array<double> y, const std::string& loss, double step,
                       Index batch, int threads) {
             const Network<T> net = start.view();
             require(batch >= 1 && batch <= X.shape(0), "batch must be in 1 .. n");
             return std::make_unique<Stochastic>(Data<T>(std::move(X), std::move(y), net.dim), net, parse_loss(loss),
                                                 step, batch, threads);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("loss"), py::arg("step"),
           py::arg("batch"), py::arg("threads"))
      .def("epoch", &Stochastic::epoch, py::arg("order").noconvert());
}

}  // namespace

void bind_descent(py::module_& m) {
  bind<float>(m, "Descent32", "StochasticDescent32");
  bind<double>(m, "Descent64", "StochasticDescent64");
}

}  // namespace preluflow::bindings
