// One extension module per instruction set, from the same sources: PRELUFLOW_MODULE is its name.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings.hpp"
#include "preluflow/parallel.hpp"

namespace py = pybind11;

namespace {

#define PRELUFLOW_STRINGIFY_(x) #x
#define PRELUFLOW_STRINGIFY(x) PRELUFLOW_STRINGIFY_(x)

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " PRELUFLOW_STRINGIFY(_MSC_VER);
#else
  return "unknown";
#endif
}

py::dict build_info() {
  py::dict info;
  info["eigen"] = PRELUFLOW_STRINGIFY(EIGEN_WORLD_VERSION) "." PRELUFLOW_STRINGIFY(
      EIGEN_MAJOR_VERSION) "." PRELUFLOW_STRINGIFY(EIGEN_MINOR_VERSION);
  info["eigen_simd"] = Eigen::SimdInstructionSetsInUse();
  info["compiler"] = compiler();
  return info;
}

// The system enlarges a main thread's stack as it is used, and where address space is short then, ends the process.
// Called when the module is loaded, this makes room enough for all that is called later (threads' stacks are whole).
PRELUFLOW_NOINLINE void enlarge_stack() {
  constexpr std::size_t kRoom = std::size_t{1} << 18, kPage = std::size_t{1} << 12;  // bytes
  volatile char room[kRoom];
  for (std::size_t k = kRoom; k >= kPage; k -= kPage) room[k - 1] = 0;  // downwards, as stacks grow
  static_cast<void>(room[kPage]);
}

}  // namespace

PYBIND11_MODULE(PRELUFLOW_MODULE, m) {
  m.doc() = "preluflow's compiled core; use the preluflow package instead.";
  preluflow::detail::count_forks();
  enlarge_stack();
  preluflow::detail::can_throw();
  m.def("build_info", &build_info);
  preluflow::bindings::bind_network(m);
  preluflow::bindings::bind_descent(m);
  preluflow::bindings::bind_flow(m);
  preluflow::bindings::bind_robustness(m);
  preluflow::bindings::bind_machine(m);
}
