// Network views and the array functions on them: forward, input_gradient, loss_gradient.

#include <optional>

#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
#include "preluflow/evaluate.hpp"
#include "preluflow/gradient.hpp"

namespace preluflow::bindings {

namespace {

template <class T>
Array<double> forward_values(NetworkArrays<T>& net, const Array<T>& X, int threads) {
  const PanelNetwork<T> view = net.panels();
  require_matrix(X, view.U.layout().dim, "X");
  Array<double> f(X.shape(0));
  double* out = f.mutable_data();
  {
    py::gil_scoped_release release;
    forward(X.data(), X.shape(0), view, threads, out);
    mend_range(view.scalars, X.data(), X.shape(0), threads, out);
  }
  return f;
}

template <class T>
py::tuple input_gradients(NetworkArrays<T>& net, const Array<T>& X, int threads) {
  const PanelNetwork<T> view = net.panels();
  require_matrix(X, view.U.layout().dim, "X");
  Array<double> f(X.shape(0));
  Array<T> gradient({X.shape(0), X.shape(1)});
  double* out = f.mutable_data();
  T* gradient_out = gradient.mutable_data();
  {
    py::gil_scoped_release release;
    input_gradient(X.data(), X.shape(0), view, threads, out, gradient_out);
    mend_range(view.scalars, X.data(), X.shape(0), threads, out);
  }
  return py::make_tuple(f, gradient);
}

// Mean loss, F (n, C), and the kernel's G, s and b; weights of the points, or none.
template <class T>
py::tuple loss_gradients(const StartArrays<T>& start, Array<T> X, Array<double> y, std::optional<Array<double>> weight,
                         const std::string& loss_name, int threads) {
  const Data<T> data(std::move(X), std::move(y), std::move(weight), start.dim(), start.outputs());
  const NetworkState<T> state = start.state();
  const Loss loss = parse_loss(loss_name);
  const Index n = data.X.shape(0), width = state.U.layout().width;
  Array<double> F({n, state.outputs});
  double* out = F.mutable_data();
  double value = 0.0;
  GradientKernel<T> kernel(n, state.U.layout(), state.outputs);
  const double flops = 4.0 * static_cast<double>(data.X.size()) * static_cast<double>(width);
  {
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) {
      value = kernel.evaluate(team, data.view().rows(state.dim()), state.view(), loss, out);
    });
  }
  return py::make_tuple(value, F, copy_matrix(kernel.G()), copy_table(kernel.s().data(), width, state.outputs),
                        copy_vector(kernel.b()));
}

template <class T>
bool finite(const Array<T>& values) {
  const T* data = values.data();
  const Index n = values.size();
  const py::gil_scoped_release release;
  return all_finite(data, n);
}

template <class T>
void bind(py::module_& m, const char* class_name, const char* start_name) {
  m.def("all_finite", &finite<T>, py::arg("values").noconvert());
  py::class_<NetworkArrays<T>>(m, class_name, py::module_local())
      .def(py::init<Array<T>, Array<double>, Array<double>, Array<double>, const std::string&, double>(),
           py::arg("U").noconvert(), py::arg("log_norm").noconvert(), py::arg("sign").noconvert(),
           py::arg("log_abs_v").noconvert(), py::arg("activation"), py::arg("p"))
      .def("forward", &forward_values<T>, py::arg("X").noconvert(), py::arg("threads"))
      .def("input_gradient", &input_gradients<T>, py::arg("X").noconvert(), py::arg("threads"));

  using Part = std::optional<Array<double>>;
  py::class_<StartArrays<T>>(m, start_name, py::module_local())
      .def(py::init<Array<T>, Array<double>, Array<double>, Array<double>, const std::string&, double, Part, Part, bool,
                    double>(),
           py::arg("U").noconvert(), py::arg("log_norm").noconvert(), py::arg("sign").noconvert(),
           py::arg("log_abs_v").noconvert(), py::arg("activation"), py::arg("p"), py::arg("output_bias").noconvert(),
           py::arg("center").noconvert(), py::arg("constant"), py::arg("power"))
      .def("loss_gradient", &loss_gradients<T>, py::arg("X").noconvert(), py::arg("y").noconvert(),
           py::arg("weight").noconvert(), py::arg("loss"), py::arg("threads"));
}

// Any network in float64: the arrays, kept alive, and what evaluates it.
class BoundEvaluator {
 public:
  BoundEvaluator(Array<double> U, Array<double> log_norm, Array<double> sign, Array<double> log_abs_v,
                 const std::string& activation, double p, std::optional<Array<double>> offsets,
                 std::optional<Array<double>> output_bias, std::optional<Array<double>> center, bool normalize_input)
      : arrays_(std::move(U), std::move(log_norm), std::move(sign), std::move(log_abs_v), activation, p,
                std::move(offsets), std::move(output_bias), std::move(center), normalize_input),
        evaluator_(arrays_.view()) {}

  Array<double> outputs(const Array<double>& X, int threads) const {
    return run(X, threads, [&](Team& team, double* F) { evaluator_.outputs(team, X.data(), X.shape(0), F); });
  }

  Array<double> relative_outputs(const Array<double>& X, int threads) const {
    return run(X, threads, [&](Team& team, double* F) { evaluator_.relative_outputs(team, X.data(), X.shape(0), F); });
  }

  py::tuple gradient(const Array<double>& X, const Array<double>& weights, int threads) {
    require_matrix(weights, evaluator_.network().outputs, "weights");
    require(weights.shape(0) == X.shape(0), "weights must have as many rows as X");
    require_matrix(X, evaluator_.network().scalars.dim, "X");
    evaluator_.prepare_gradient();
    Array<double> result({X.shape(0), X.shape(1)});
    double* out = result.mutable_data();
    Array<double> F = run(X, threads, [&](Team& team, double* values) {
      evaluator_.gradient(team, X.data(), X.shape(0), weights.data(), values, out);
    });
    return py::make_tuple(F, result);
  }

 private:
  // F (n, C), written by body(team, F) without the GIL.
  template <class Body>
  Array<double> run(const Array<double>& X, int threads, const Body& body) const {
    const GeneralNetwork<double>& net = evaluator_.network();
    require_matrix(X, net.scalars.dim, "X");
    Array<double> F({X.shape(0), static_cast<py::ssize_t>(net.outputs)});
    double* out = F.mutable_data();
    const double flops = 2.0 * static_cast<double>(X.size()) * static_cast<double>(net.scalars.width);
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) { body(team, out); });
    return F;
  }

  GeneralArrays arrays_;
  Evaluator evaluator_;
};

}  // namespace

void bind_network(py::module_& m) {
  bind<float>(m, "Network32", "Start32");
  bind<double>(m, "Network64", "Start64");
  py::class_<BoundEvaluator>(m, "Evaluator", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, Array<double>, const std::string&, double,
                    std::optional<Array<double>>, std::optional<Array<double>>, std::optional<Array<double>>, bool>(),
           py::arg("U").noconvert(), py::arg("log_norm").noconvert(), py::arg("sign").noconvert(),
           py::arg("log_abs_v").noconvert(), py::arg("activation"), py::arg("p"), py::arg("offsets").noconvert(),
           py::arg("output_bias").noconvert(), py::arg("center").noconvert(), py::arg("normalize_input"))
      .def("outputs", &BoundEvaluator::outputs, py::arg("X").noconvert(), py::arg("threads"))
      .def("relative_outputs", &BoundEvaluator::relative_outputs, py::arg("X").noconvert(), py::arg("threads"))
      .def("gradient", &BoundEvaluator::gradient, py::arg("X").noconvert(), py::arg("weights").noconvert(),
           py::arg("threads"));
}

}  // namespace preluflow::bindings
