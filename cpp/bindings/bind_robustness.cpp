// Certified and attacked radii (preluflow/robustness), and the linear algebra they are built on. Results go into arrays
// of the caller's, so that what is done stays done when Ctrl-C ends a call.
#include "arrays.hpp"
#include "bindings.hpp"
#include "interrupts.hpp"
#include "preluflow/robustness/bracket.hpp"
#include "preluflow/robustness/linear_algebra.hpp"

namespace preluflow::bindings {

namespace {

using Flags = Array<std::uint8_t>;

// Runs body(team, interrupt) without the GIL and raises what a signal handler raised meanwhile.
template <class Body>
void run(int threads, double flops, const Body& body) {
  Signals signals;
  {
    const Interrupt interrupt = signals.interrupt();
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) {
      team.watch(&interrupt);
      body(team, interrupt);
    });
  }
  signals.rethrow();
}

Level parse_level(const std::string& name) {
  if (name == "fast") return Level::fast;
  if (name == "tight") return Level::tight;
  require(name == "exact", "unknown level " + name);
  return Level::exact;
}

// The entry of a dict of arrays, which must have these sizes.
template <class T>
T* array_of(const py::dict& out, const char* name, std::vector<py::ssize_t> shape) {
  require(out.contains(name), std::string("out must have ") + name);
  auto array = py::cast<py::array>(out[name]);
  require(py::isinstance<Array<T>>(array) && array.writeable(), std::string(name) + " has a wrong dtype");
  require(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) == shape,
          std::string(name) + " has a wrong shape");
  return static_cast<T*>(array.mutable_data());
}

// Points (n, dim) in float64 or float32.
PointRows point_rows(const py::array& X, Index dim) {
  if (py::isinstance<Array<float>>(X)) {
    const auto rows = py::cast<Array<float>>(X);
    require_matrix(rows, dim, "X");
    return {nullptr, rows.data(), dim};
  }
  require(py::isinstance<Array<double>>(X), "X must be C-contiguous and hold float32 or float64");
  const auto rows = py::cast<Array<double>>(X);
  require_matrix(rows, dim, "X");
  return {rows.data(), nullptr, dim};
}

// A network in canonical form, and brackets of points.
class BoundBrackets {
 public:
  BoundBrackets(Array<double> U, Array<double> log_norm, Array<double> sign, Array<double> log_abs_v,
                const std::string& activation, double p, std::optional<Array<double>> offsets,
                std::optional<Array<double>> output_bias, std::optional<Array<double>> center, bool normalize_input,
                std::optional<Flags> fixed, int threads)
      : arrays_(std::move(U), std::move(log_norm), std::move(sign), std::move(log_abs_v), activation, p,
                std::move(offsets), std::move(output_bias), std::move(center), normalize_input),
        fixed_(std::move(fixed)),
        evaluator_(arrays_.view()) {
    const GeneralNetwork<double> net = arrays_.view();
    if (fixed_) require_vector(*fixed_, net.scalars.dim, "fixed");
    const std::uint8_t* mask = fixed_ ? fixed_->data() : nullptr;
    const auto width = static_cast<double>(net.scalars.width), dim = static_cast<double>(net.scalars.dim);
    run(threads, 2.0 * width * width * dim,  // inner products of neurons
        [&](Team& team, const Interrupt&) { canonical_ = std::make_unique<Canonical>(team, net, mask); });
  }

  Index width() const { return canonical_->width(); }

  // X (n, D) in float64 or float32, label (n,) numbers of classes; out: arrays that are written to, by name.
  void bracket(const py::array& X, const Array<std::int64_t>& label, const std::string& level, int starts, int restarts,
               int steps, std::uint64_t seed, Index first, double gap, Index max_nodes, double max_seconds,
               const std::optional<Array<double>>& low, const std::optional<Array<double>>& high, const py::dict& out,
               int threads) {
    const Index D = canonical_->dim();
    const PointRows points = point_rows(X, D);
    const Index n = X.shape(0);
    require_vector(label, n, "label");
    BracketOptions options;
    options.level = parse_level(level);
    options.starts = starts;
    options.restarts = restarts;
    options.steps = steps;
    options.seed = seed;
    options.first = first;
    options.gap = gap;
    options.most_nodes = max_nodes;
    options.most_seconds = max_seconds;
    require(low.has_value() == high.has_value(), "low and high must come together");
    if (low) {
      require_vector(*low, D, "low");
      require_vector(*high, D, "high");
      options.low = low->data();
      options.high = high->data();
    }
    options.fixed = fixed_ ? fixed_->data() : nullptr;
    std::vector<Index> labels(label.data(), label.data() + n), present(labels);
    std::sort(present.begin(), present.end());
    present.erase(std::unique(present.begin(), present.end()), present.end());
    require(present.front() >= 0 && present.back() < canonical_->classes(), "label out of range");
    const BracketResult result{array_of<double>(out, "lower", {n}),
                               array_of<double>(out, "upper", {n}),
                               array_of<double>(out, "witness", {n, D}),
                               array_of<std::uint8_t>(out, "correct", {n}),
                               array_of<std::int64_t>(out, "reached", {n}),
                               array_of<std::uint8_t>(out, "done", {n}),
                               array_of<std::uint8_t>(out, "certificate", {n}),
                               array_of<std::int64_t>(out, "rival", {n}),
                               array_of<std::int64_t>(out, "rounds", {n}),
                               array_of<std::int64_t>(out, "nodes", {n})};
    const double flops = 20.0 * static_cast<double>(n) * static_cast<double>(canonical_->width() * canonical_->width());
    run(threads, options.level == Level::fast ? flops : kMuch, [&](Team& team, const Interrupt& interrupt) {
      canonical_->prepare(team, present);
      if (options.level != Level::fast) canonical_->prepare_span(team);
      preluflow::bracket(team, *canonical_, evaluator_, points, labels.data(), n, options, interrupt, result);
    });
  }

 private:
  static constexpr double kMuch = 1e12;  // flops: more than enough for all threads

  GeneralArrays arrays_;
  std::optional<Flags> fixed_;
  Evaluator evaluator_;
  std::unique_ptr<Canonical> canonical_;
};

Array<double> bound_products(const Array<double>& A, const Array<double>& B, int threads) {
  require(A.ndim() == 2 && B.ndim() == 2 && A.shape(1) == B.shape(1), "A and B must have rows of one length");
  const Index n = A.shape(0), m = B.shape(0), k = A.shape(1);
  Array<double> out({n, m});
  const double *a = A.data(), *b = B.data();
  double* result = out.mutable_data();
  const double flops = 2.0 * static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(k);
  {
    py::gil_scoped_release release;
    Team::run(threads, flops, [&](Team& team) { products(team, a, n, b, m, k, result); });
  }
  return out;
}

double bound_largest_eigenvalue(const Array<double>& M) {
  require(M.ndim() == 2 && M.shape(0) == M.shape(1), "M must be square");
  const Eigen::MatrixXd copy = ConstMatrixMap<double>(M.data(), M.shape(0), M.shape(1));
  py::gil_scoped_release release;
  return largest_eigenvalue(copy);
}

Array<double> bound_orthonormal_basis(const Array<double>& U, double tolerance) {
  require(U.ndim() == 2, "U must be a matrix");
  std::vector<double> basis;
  {
    const double* rows = U.data();
    const Index h = U.shape(0), D = U.shape(1);
    py::gil_scoped_release release;
    basis = orthonormal_basis(rows, h, D, tolerance);
  }
  Array<double> out({static_cast<Index>(basis.size()) / U.shape(1), static_cast<Index>(U.shape(1))});
  std::copy(basis.begin(), basis.end(), out.mutable_data());
  return out;
}

}  // namespace

void bind_robustness(py::module_& m) {
  using Part = std::optional<Array<double>>;
  py::class_<BoundBrackets>(m, "Brackets", py::module_local())
      .def(py::init<Array<double>, Array<double>, Array<double>, Array<double>, const std::string&, double, Part, Part,
                    Part, bool, std::optional<Flags>, int>(),
           py::arg("U").noconvert(), py::arg("log_norm").noconvert(), py::arg("sign").noconvert(),
           py::arg("log_abs_v").noconvert(), py::arg("activation"), py::arg("p"), py::arg("offsets").noconvert(),
           py::arg("output_bias").noconvert(), py::arg("center").noconvert(), py::arg("normalize_input"),
           py::arg("fixed").noconvert(), py::arg("threads"))
      .def_property_readonly("width", &BoundBrackets::width)
      .def("bracket", &BoundBrackets::bracket, py::arg("X").noconvert(), py::arg("label").noconvert(), py::kw_only(),
           py::arg("level"), py::arg("starts"), py::arg("restarts"), py::arg("steps"), py::arg("seed"),
           py::arg("first"), py::arg("gap"), py::arg("max_nodes"), py::arg("max_seconds"), py::arg("low").noconvert(),
           py::arg("high").noconvert(), py::arg("out"), py::arg("threads"));
  m.def("products", &bound_products, py::arg("A").noconvert(), py::arg("B").noconvert(), py::arg("threads"));
  m.def("largest_eigenvalue", &bound_largest_eigenvalue, py::arg("M").noconvert());
  m.def("orthonormal_basis", &bound_orthonormal_basis, py::arg("U").noconvert(), py::arg("tolerance"));
}

}  // namespace preluflow::bindings
