// What the processor can do at most, for benches.

#include "arrays.hpp"
#include "bindings.hpp"
#include "preluflow/machine.hpp"

namespace preluflow::bindings {

namespace {

double fma(const std::string& dtype, Index repeats, int threads) {
  require(dtype == "float32" || dtype == "float64", "unknown dtype " + dtype);
  require(threads >= 1, "threads must be at least 1");
  const py::gil_scoped_release release;
  return dtype == "float32" ? fma_flops<float>(repeats, threads) : fma_flops<double>(repeats, threads);
}

double read(const Array<double>& values, Index repeats, int threads) {
  const double* data = values.data();
  const Index n = values.size();
  require(threads >= 1 && n >= 1024 * threads, "at least 1024 numbers a thread must be read");
  const py::gil_scoped_release release;
  return read_bytes(data, n, repeats, threads);
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("fma_flops", &fma, py::arg("dtype"), py::arg("repeats"), py::arg("threads"));
  m.def("read_bytes", &read, py::arg("values").noconvert(), py::arg("repeats"), py::arg("threads"));
}

}  // namespace preluflow::bindings
