// What each bind_<concept>.cpp adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace preluflow::bindings {

void bind_network(pybind11::module_& m);
void bind_descent(pybind11::module_& m);
void bind_flow(pybind11::module_& m);
void bind_robustness(pybind11::module_& m);
void bind_machine(pybind11::module_& m);

}  // namespace preluflow::bindings
