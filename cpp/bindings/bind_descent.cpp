// The descent steppers. Steps run with the GIL released; Ctrl-C is looked for between them.
#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "preluflow/descent.hpp"

namespace preluflow::bindings {

namespace {

// What both steppers show.
template <class Stepper, class T>
class Bound {
 public:
  template <class... Args>
  Bound(Data<T> data, int threads, Args&&... args)
      : data_(std::move(data)), threads_(threads), stepper_(data_.view(), std::forward<Args>(args)...) {}

  double evaluate() {
    double value = 0.0;
    py::gil_scoped_release release;
    Team::run(threads_, gradient_flops(), [&](Team& team) { value = stepper_.evaluate(team); });
    return value;
  }

  py::tuple state() const {
    const NetworkState<T>& now = stepper_.state();
    const Index width = now.U.layout().width;
    return py::make_tuple(copy_matrix(now.U), copy_vector(now.log_norm),
                          copy_table(now.sign.data(), width, now.outputs),
                          copy_table(now.log_abs_v.data(), width, now.outputs), copy_vector(now.output_bias));
  }

  Array<double> outputs() const {
    const Index count = stepper_.state().outputs;
    return copy_table(stepper_.outputs().data(), data_.X.shape(0), count);
  }
  Index iteration() const { return iteration_; }
  Index gradients() const { return stepper_.gradients(); }

  // Up to `steps` descent steps; returns how many were done (fewer when something is not finite).
  Index advance(Index steps) {
    Index done = 0;
    Team::run(threads_, static_cast<double>(steps) * gradient_flops(), [&](Team& team) {
      while (done < steps && step([&] { return stepper_.advance(team); })) ++done;
    });
    return done;
  }

  // One epoch of mini-batches in the given order of rows; the last batch may be short. False if not finite.
  bool epoch(const Array<Index>& order) {
    require_vector(order, stepper_.n(), "order");
    const Index* rows = order.data();
    for (Index i = 0; i < stepper_.n(); ++i) require(rows[i] >= 0 && rows[i] < stepper_.n(), "order out of range");
    Index first = 0;
    Team::run(threads_, gradient_flops(), [&](Team& team) {
      for (; first < stepper_.n(); first += stepper_.batch()) {
        const Index count = std::min(stepper_.batch(), stepper_.n() - first);
        if (!step([&] { return stepper_.advance(team, rows + first, count); })) return;
      }
    });
    return first >= stepper_.n();
  }

 private:
  double gradient_flops() const {
    const auto width = static_cast<double>(stepper_.state().U.layout().width);
    return 4.0 * static_cast<double>(data_.X.size()) * width;
  }

  // One step without the GIL, then a look for Ctrl-C.
  template <class Step>
  bool step(const Step& advance) {
    bool finite = false;
    {
      py::gil_scoped_release release;
      finite = advance();
    }
    iteration_ += finite;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    return finite;
  }

  Data<T> data_;
  int threads_;
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
void bind(py::module_& m, const char* descent_name, const char* stochastic_name, const char* adam_name) {
  using Start = StartArrays<T>;
  using Part = std::optional<Array<double>>;

  using Full = Bound<Descent<T>, T>;
  py::class_<Full> full(m, descent_name, py::module_local());
  bind_common(full);
  full.def(py::init([](const Start& start, Array<T> X, Array<double> y, Part weight, const std::string& loss,
                       double step, double weight_decay, const std::string& trained, int threads) {
             Data<T> data(std::move(X), std::move(y), std::move(weight), start.dim(), start.outputs());
             const StepOptions options{step, weight_decay, parse_trained(trained)};
             return std::make_unique<Full>(std::move(data), threads, start.state(), parse_loss(loss), options);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("weight").noconvert(),
           py::arg("loss"), py::arg("step"), py::arg("weight_decay"), py::arg("trained"), py::arg("threads"))
      .def("advance", &Full::advance, py::arg("steps"))
      .def_property_readonly("gradients", &Full::gradients);

  using Stochastic = Bound<StochasticDescent<T>, T>;
  py::class_<Stochastic> stochastic(m, stochastic_name, py::module_local());
  bind_common(stochastic);
  stochastic
      .def(py::init([](const Start& start, Array<T> X, Array<double> y, Part weight, const std::string& loss,
                       double step, double weight_decay, const std::string& trained, Index batch, int threads) {
             require(batch >= 1 && batch <= X.shape(0), "batch must be in 1 .. n");
             Data<T> data(std::move(X), std::move(y), std::move(weight), start.dim(), start.outputs());
             const StepOptions options{step, weight_decay, parse_trained(trained)};
             return std::make_unique<Stochastic>(std::move(data), threads, start.state(), parse_loss(loss), options,
                                                 batch);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("weight").noconvert(),
           py::arg("loss"), py::arg("step"), py::arg("weight_decay"), py::arg("trained"), py::arg("batch"),
           py::arg("threads"))
      .def("epoch", &Stochastic::epoch, py::arg("order").noconvert());

  using Adaptive = Bound<Adam<T>, T>;
  py::class_<Adaptive> adaptive(m, adam_name, py::module_local());
  bind_common(adaptive);
  adaptive
      .def(py::init([](const Start& start, Array<T> X, Array<double> y, Part weight, const std::string& loss,
                       double step, double weight_decay, const std::string& trained, double beta1, double beta2,
                       double eps, Index batch, int threads) {
             require(batch >= 1 && batch <= X.shape(0), "batch must be in 1 .. n");
             require(beta1 >= 0.0 && beta1 < 1.0 && beta2 >= 0.0 && beta2 < 1.0, "betas must be in [0, 1)");
             Data<T> data(std::move(X), std::move(y), std::move(weight), start.dim(), start.outputs());
             const AdamOptions options{{step, weight_decay, parse_trained(trained)}, beta1, beta2, eps};
             return std::make_unique<Adaptive>(std::move(data), threads, start.state(), parse_loss(loss), options,
                                               batch);
           }),
           py::arg("start"), py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("weight").noconvert(),
           py::arg("loss"), py::arg("step"), py::arg("weight_decay"), py::arg("trained"), py::arg("beta1"),
           py::arg("beta2"), py::arg("eps"), py::arg("batch"), py::arg("threads"))
      .def("epoch", &Adaptive::epoch, py::arg("order").noconvert());
}

}  // namespace

void bind_descent(py::module_& m) {
  bind<float>(m, "Descent32", "StochasticDescent32", "Adam32");
  bind<double>(m, "Descent64", "StochasticDescent64", "Adam64");
}

}  // namespace preluflow::bindings
