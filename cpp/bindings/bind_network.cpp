// Network views and the array functions on them: forward, input_gradient, loss_gradient.
#include "arrays.hpp"
#include "bindings.hpp"
#include "names.hpp"
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
  }
  return py::make_tuple(f, gradient);
}

template <class T>
py::tuple loss_gradients(NetworkArrays<T>& net, const Array<T>& X, const Array<double>& y, const std::string& loss_name,
                         int threads) {
  const PanelNetwork<T> view = net.panels();
  require_matrix(X, view.U.layout().dim, "X");
  require_vector(y, X.shape(0), "y");
  const Loss loss = parse_loss(loss_name);
  Array<double> f(X.shape(0));
  double* out = f.mutable_data();
  double value = 0.0;
  GradientKernel<T> kernel(X.shape(0), view.U.layout());
  const double flops = 4.0 * static_cast<double>(X.size()) * static_cast<double>(view.U.layout().width);
  {
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) {
      value = kernel.evaluate(team, {X.data(), y.data(), view.U.layout().dim, nullptr, X.shape(0)}, view, loss, out);
    });
  }
  return py::make_tuple(value, f, copy_matrix(kernel.G()), copy_vector(kernel.s()));
}

template <class T>
void bind(py::module_& m, const char* class_name) {
  py::class_<NetworkArrays<T>>(m, class_name, py::module_local())
      .def(py::init<Array<T>, Array<double>, Array<double>, Array<double>, const std::string&, double>(),
           py::arg("U").noconvert(), py::arg("log_norm").noconvert(), py::arg("sign").noconvert(),
           py::arg("log_abs_v").noconvert(), py::arg("activation"), py::arg("p"))
      .def("forward", &forward_values<T>, py::arg("X").noconvert(), py::arg("threads"))
      .def("input_gradient", &input_gradients<T>, py::arg("X").noconvert(), py::arg("threads"))
      .def("loss_gradient", &loss_gradients<T>, py::arg("X").noconvert(), py::arg("y").noconvert(), py::arg("loss"),
           py::arg("threads"));
}

}  // namespace

void bind_network(py::module_& m) {
  bind<float>(m, "Network32");
  bind<double>(m, "Network64");
}

}  // namespace preluflow::bindings
