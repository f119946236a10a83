// NumPy arrays as views: dtype, contiguity and shape are checked here, once. Python's _arrays.py has already turned
// bad input into readable errors; these checks keep a wrong call from ever touching foreign memory.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "preluflow/descent.hpp"
#include "preluflow/evaluate.hpp"
#include "preluflow/gradient.hpp"

namespace preluflow::bindings {

namespace py = pybind11;

// C-contiguous and of exactly this dtype; with py::arg(...).noconvert() nothing is ever copied silently.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool ok, const std::string& what) {
  if (!ok) throw std::invalid_argument("preluflow core: " + what);
}

template <class T>
void require_vector(const Array<T>& array, Index size, const char* name) {
  require(array.ndim() == 1 && array.shape(0) == size,
          std::string(name) + " must have shape (" + std::to_string(size) + ",)");
}

template <class T>
void require_matrix(const Array<T>& array, Index cols, const char* name) {
  require(array.ndim() == 2 && array.shape(0) > 0 && array.shape(1) == cols,
          std::string(name) + " must have shape (n, " + std::to_string(cols) + ")");
}

inline Activation parse_activation(const std::string& name) {
  if (name == "prelu") return Activation::prelu;
  if (name == "polynomial") return Activation::polynomial;
  require(name == "tanh", "unknown activation " + name);
  return Activation::tanh;
}

// The arrays of a network, kept alive, and the view of them.
template <class T>
class NetworkArrays {
 public:
  NetworkArrays(Array<T> U, Array<double> log_norm, Array<double> sign, Array<double> log_abs_v,
                const std::string& activation, double p)
      : U_(std::move(U)),
        log_norm_(std::move(log_norm)),
        sign_(std::move(sign)),
        log_abs_v_(std::move(log_abs_v)),
        activation_(parse_activation(activation)),
        p_(p) {
    require(U_.ndim() == 2 && U_.shape(0) > 0 && U_.shape(1) > 0, "U must have shape (h, D)");
    require_vector(log_norm_, U_.shape(0), "log_norm");
    require_vector(sign_, U_.shape(0), "sign");
    require_vector(log_abs_v_, U_.shape(0), "log_abs_v");
    require(p_ >= 1.0, "p must be >= 1");
  }

  // The same with its directions in panels, which are laid out when first asked for (with the GIL held) and kept.
  PanelNetwork<T> panels() {
    if (panels_.layout().width == 0) panels_ = PanelMatrix<T>(view().directions());
    return {panels_, view()};
  }

  Network<T> view() const {
    return {U_.data(), log_norm_.data(), sign_.data(), log_abs_v_.data(), U_.shape(0), U_.shape(1), activation_, p_};
  }

 private:
  Array<T> U_;
  Array<double> log_norm_, sign_, log_abs_v_;
  Activation activation_;
  double p_;
  PanelMatrix<T> panels_;
};

// The arrays of any network in float64, kept alive, and the view of them. sign and log_abs_v are (h, C), also for C
// = 1.
class GeneralArrays {
 public:
  using Part = std::optional<Array<double>>;

  GeneralArrays(Array<double> U, Array<double> log_norm, Array<double> sign, Array<double> log_abs_v,
                const std::string& activation, double p, Part offsets, Part output_bias, Part center,
                bool normalize_input)
      : U_(std::move(U)),
        log_norm_(std::move(log_norm)),
        sign_(std::move(sign)),
        log_abs_v_(std::move(log_abs_v)),
        offsets_(std::move(offsets)),
        output_bias_(std::move(output_bias)),
        center_(std::move(center)),
        activation_(parse_activation(activation)),
        p_(p),
        normalize_input_(normalize_input) {
    require(U_.ndim() == 2 && U_.shape(0) > 0 && U_.shape(1) > 0, "U must have shape (h, D)");
    require_vector(log_norm_, U_.shape(0), "log_norm");
    for (const Array<double>* matrix : {&sign_, &log_abs_v_})
      require(matrix->ndim() == 2 && matrix->shape(0) == U_.shape(0) && matrix->shape(1) > 0 &&
                  matrix->shape(1) == sign_.shape(1),
              "sign and log_abs_v must have shape (h, C)");
    if (offsets_) require_vector(*offsets_, U_.shape(0), "offsets");
    if (output_bias_) require_vector(*output_bias_, sign_.shape(1), "output_bias");
    if (center_) require_vector(*center_, U_.shape(1), "center");
    require(p_ >= 1.0, "p must be >= 1");
  }

  GeneralNetwork<double> view() const {
    const auto data = [](const Part& part) { return part ? part->data() : nullptr; };
    return {{U_.data(), log_norm_.data(), sign_.data(), log_abs_v_.data(), U_.shape(0), U_.shape(1), activation_, p_},
            sign_.shape(1),
            data(offsets_),
            data(output_bias_),
            data(center_),
            normalize_input_};
  }

 private:
  Array<double> U_, log_norm_, sign_, log_abs_v_;
  Part offsets_, output_bias_, center_;
  Activation activation_;
  double p_;
  bool normalize_input_;
};

// Where training starts: a network in its polar form, with what it sees of an input. U is (h, D), or (h, D + 1) where a
// 1 is appended to what it sees; sign and log_abs_v are (h, C), also for C = 1.
template <class T>
class StartArrays {
 public:
  using Part = std::optional<Array<double>>;

  StartArrays(Array<T> U, Array<double> log_norm, Array<double> sign, Array<double> log_abs_v,
              const std::string& activation, double p, Part output_bias, Part center, bool constant, double power)
      : U_(std::move(U)),
        log_norm_(std::move(log_norm)),
        sign_(std::move(sign)),
        log_abs_v_(std::move(log_abs_v)),
        output_bias_(std::move(output_bias)),
        center_(std::move(center)),
        activation_(parse_activation(activation)),
        p_(p),
        inputs_{nullptr, constant, power} {
    require(U_.ndim() == 2 && U_.shape(0) > 0 && dim() > 0, "U must have shape (h, D)");
    require_vector(log_norm_, U_.shape(0), "log_norm");
    for (const Array<double>* matrix : {&sign_, &log_abs_v_})
      require(matrix->ndim() == 2 && matrix->shape(0) == U_.shape(0) && matrix->shape(1) > 0 &&
                  matrix->shape(1) == sign_.shape(1),
              "sign and log_abs_v must have shape (h, C)");
    if (output_bias_) require_vector(*output_bias_, outputs(), "output_bias");
    if (center_) require_vector(*center_, dim(), "center");
    require(p_ >= 1.0, "p must be >= 1");
    require(power >= 0.0, "power must be >= 0");
    inputs_.center = center_ ? center_->data() : nullptr;
  }

  Index outputs() const { return sign_.shape(1); }
  Index dim() const { return U_.shape(1) - (inputs_.constant ? 1 : 0); }

  Network<T> network() const {
    return {U_.data(), log_norm_.data(), sign_.data(), log_abs_v_.data(), U_.shape(0), U_.shape(1), activation_, p_};
  }
  const double* output_bias() const { return output_bias_ ? output_bias_->data() : nullptr; }
  const Inputs& inputs() const { return inputs_; }
  NetworkState<T> state() const { return {network(), outputs(), output_bias(), inputs_}; }

 private:
  Array<T> U_;
  Array<double> log_norm_, sign_, log_abs_v_;
  Part output_bias_, center_;
  Activation activation_;
  double p_;
  Inputs inputs_;
};

// The data a stepper works on, checked and kept alive: X (n, D), targets y (n, C), weights (n,) or none.
template <class T>
struct Data {
  Data(Array<T> X_, Array<double> y_, std::optional<Array<double>> weight_, Index dim, Index outputs)
      : X(std::move(X_)), y(std::move(y_)), weight(std::move(weight_)) {
    require_matrix(X, dim, "X");
    require_matrix(y, outputs, "y");
    require(y.shape(0) == X.shape(0), "y must have as many rows as X");
    if (weight) require_vector(*weight, X.shape(0), "weight");
  }
  TrainingData<T> view() const { return {X.data(), y.data(), X.shape(0), weight ? weight->data() : nullptr}; }

  Array<T> X;
  Array<double> y;
  std::optional<Array<double>> weight;
};

template <class T>
Array<T> copy_matrix(const PanelMatrix<T>& matrix) {
  Array<T> out({matrix.layout().width, matrix.layout().dim});
  matrix.copy_to(out.mutable_data());
  return out;
}

inline Array<double> copy_vector(const Vector<double>& vector) {
  Array<double> out(vector.size());
  VectorMap<double>(out.mutable_data(), vector.size()) = vector;
  return out;
}

inline Array<double> copy_vector(const std::vector<double>& vector) {
  return copy_vector(Vector<double>(ConstVectorMap<double>(vector.data(), static_cast<Index>(vector.size()))));
}

inline Array<double> copy_table(const double* values, Index rows, Index columns) {
  Array<double> out({rows, columns});
  std::copy_n(values, rows * columns, out.mutable_data());
  return out;
}

}  // namespace preluflow::bindings
