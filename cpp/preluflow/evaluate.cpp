#include "preluflow/evaluate.hpp"

#include <algorithm>
#include <limits>

#include "preluflow/shift.hpp"

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLog2 = 0.69314718055994530942;
// Entries of x' within these, and 0, leave room for powers, lengths and quotients in float64.
constexpr double kLeastEntry = 1e-50, kMostEntry = 1e50;
constexpr double kMostLog = 450.0;  // of a coefficient that float64 multiplies without a second thought; it ends at 709
constexpr double kMostKappaLog = 200.0;  // and of kappa
constexpr double kMostNormLog = 300.0;   // and of a norm that tanh has its argument multiplied by
constexpr double kLeastLog = -745.2;     // of the smallest float64

double log_size(double x) { return std::log(std::abs(x)); }
double sign_of(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0; }

// sum a_i b_i; the same bits wherever rows lie.
PRELUFLOW_NOINLINE double dot(const double* a, const double* b, Index n) {
  const Eigen::Map<const Eigen::Array<double, 1, Eigen::Dynamic>> left(a, n), right(b, n);
  return (left * right).sum();
}

// e^scale x without the overflow or underflow of e^scale alone.
double scaled(double x, double scale) {
  if (std::abs(scale) < 700.0) return x * std::exp(scale);
  if (x == 0.0) return 0.0;
  return sign_of(x) * std::exp(log_size(x) + scale);
}

}  // namespace

// ---- a row by logarithms

template <class T>
LogRow<T>::LogRow(const GeneralNetwork<T>& net, const PanelMatrix<double>& U)
    : net_(net),
      U_(U),
      products_(static_cast<std::size_t>(U.layout().padded())),
      x_(static_cast<std::size_t>(net.scalars.dim)),
      z_(static_cast<std::size_t>(net.scalars.width)),
      log_phi_(z_.size()),
      terms_(z_.size()),
      parts_(static_cast<std::size_t>(net.outputs)) {}

template <class T>
const double* LogRow<T>::scale(const T* x) {
  const Index dim = net_.scalars.dim;
  double most = 0.0;
  for (Index d = 0; d < dim; ++d) {
    most = std::max(most, std::abs(static_cast<double>(x[d])));
    if (net_.center != nullptr) most = std::max(most, std::abs(net_.center[d]));
  }
  const int halved = most > 1e300 ? 2 : 0;  // so that the difference stays finite
  double largest = 0.0;
  const Shift half(-halved);
  for (Index d = 0; d < dim; ++d) {
    double value = half(static_cast<double>(x[d]));
    if (net_.center != nullptr) value -= half(net_.center[d]);
    x_[static_cast<std::size_t>(d)] = value;
    largest = std::max(largest, std::abs(value));
  }
  std::frexp(largest, &exponent_);
  const Shift shift(-exponent_);
  for (double& value : x_) value = shift(value);
  exponent_ += halved;
  size_ = std::sqrt(dot(x_.data(), x_.data(), dim));
  log_length_ = size_ > 0.0 ? std::log(size_) + exponent_ * kLog2 : -kInfinity;
  silent_ = net_.normalized() && size_ == 0.0;
  log_kappa_ = net_.normalized() && !silent_ ? -(net_.scalars.p - 1.0) * log_length_ : 0.0;
  return x_.data();
}

template <class T>
void LogRow<T>::finish(const double* products) {
  for (Index j = 0; j < net_.scalars.width; ++j) set_neuron(j, products[j], exponent_);
}

template <class T>
void LogRow<T>::set(const T* x) {
  const double* row = scale(x);
  for (Index panel = 0; panel < U_.layout().panels; ++panel)
    panel_product(U_, panel, &row, 1, products_.data(), U_.layout().padded());
  finish(products_.data());
}

// z_j = 2^exponent product + o_j, and phi of it.
template <class T>
void LogRow<T>::set_neuron(Index j, double product, int exponent) {
  const std::size_t k = static_cast<std::size_t>(j);
  const double offset = net_.offsets == nullptr ? 0.0 : net_.offsets[j];
  double value = product;
  int unit = exponent;
  if (offset != 0.0) {
    unit = 0;
    value = std::ldexp(product, exponent) + offset;
    if (!std::isfinite(value)) {
      unit = 64;  // more than the sum of all inputs can grow beyond the largest
      value = std::ldexp(product, exponent - unit) + std::ldexp(offset, -unit);
    }
  }
  z_[k] = {sign_of(value), value == 0.0 ? -kInfinity : log_size(value) + unit * kLog2};
  if (net_.scalars.activation == Activation::tanh) {
    const double log_t = net_.scalars.log_norm[j] + z_[k].log;
    constexpr double kLinear = -20.0;  // below, tanh t = t in float64
    log_phi_[k] = log_t < kLinear ? log_t : std::log(std::tanh(std::exp(log_t)));
    return;
  }
  log_phi_[k] = value > 0.0 ? net_.scalars.p * z_[k].log : -kInfinity;
}

template <class T>
typename LogRow<T>::Signed LogRow<T>::sum_of(const std::vector<Signed>& terms) const {
  double top = -kInfinity, sum = 0.0;
  for (const Signed& term : terms)
    if (term.sign != 0.0) top = std::max(top, term.log);
  if (top == -kInfinity) return {0.0, -kInfinity};
  for (const Signed& term : terms)
    if (term.sign != 0.0) sum += term.sign * std::exp(term.log - top);
  return {sign_of(sum), sum == 0.0 ? -kInfinity : top + log_size(sum)};
}

// kappa sum_j v_jc phi_j.
template <class T>
typename LogRow<T>::Signed LogRow<T>::sum(Index c) {
  if (silent_) return {0.0, -kInfinity};
  const bool odd = net_.scalars.activation == Activation::tanh;
  for (std::size_t k = 0; k < terms_.size(); ++k) {
    const Index j = static_cast<Index>(k);
    const double sign = net_.scalars.sign[j * net_.outputs + c] * (odd ? z_[k].sign : 1.0);
    terms_[k] = {sign, log_coefficient(net_, j, c) + log_phi_[k]};
  }
  Signed result = sum_of(terms_);
  result.log += log_kappa_;
  return result;
}

template <class T>
void LogRow<T>::outputs(double* F, bool relative) {
  double top = -kInfinity;
  for (Index c = 0; c < net_.outputs; ++c) {
    const Signed found = parts_[static_cast<std::size_t>(c)] = sum(c);
    const double bias = net_.output_bias == nullptr ? 0.0 : net_.output_bias[c];
    top = std::max({top, found.log, bias == 0.0 ? -kInfinity : log_size(bias)});
  }
  if (top == -kInfinity) top = 0.0;
  for (Index c = 0; c < net_.outputs; ++c) {
    constexpr double kNearEnd = 700.0;  // beyond, what a bias takes from a sum may bring it back into float64
    const Signed found = parts_[static_cast<std::size_t>(c)];
    const double bias = net_.output_bias == nullptr ? 0.0 : net_.output_bias[c];
    const double unit = relative ? top : found.log > kNearEnd ? found.log : 0.0;
    const double own = found.sign == 0.0 ? 0.0 : found.sign * std::exp(found.log - unit);
    const double value = own + (unit == 0.0 ? bias : scaled(bias, -unit));
    F[c] = relative || unit == 0.0 ? value : scaled(value, unit);
  }
}

// sum_c weights_c v_jc without what is beside sigma(z)^p or tanh.
template <class T>
typename LogRow<T>::Signed LogRow<T>::weight(Index j, const double* weights) {
  for (Index c = 0; c < net_.outputs; ++c)
    parts_[static_cast<std::size_t>(c)] = {sign_of(weights[c]) * net_.scalars.sign[j * net_.outputs + c],
                                           log_coefficient(net_, j, c) + log_size(weights[c])};
  return sum_of(parts_);
}

// Of p sigma(z)^(p-1), or of ||w|| sech^2(||w|| z).
template <class T>
double LogRow<T>::log_slope(Index j) const {
  const Signed& z = z_[static_cast<std::size_t>(j)];
  if (net_.scalars.activation == Activation::tanh) {
    const double t = std::exp(net_.scalars.log_norm[j] + z.log);
    return net_.scalars.log_norm[j] + std::log(4.0) - 2.0 * t - 2.0 * std::log1p(std::exp(-2.0 * t));
  }
  if (z.sign <= 0.0) return -kInfinity;
  return std::log(net_.scalars.p) + (net_.scalars.p == 1.0 ? 0.0 : (net_.scalars.p - 1.0) * z.log);
}

template <class T>
double LogRow<T>::slopes(const double* weights, double* g, double* radial) {
  const Index width = net_.scalars.width;
  std::fill_n(g, width, 0.0);
  *radial = 0.0;
  if (silent_) return 0.0;
  Signed along{0.0, -kInfinity};
  if (net_.normalized()) {
    std::vector<Signed> sums(parts_.size());
    for (Index c = 0; c < net_.outputs; ++c) {
      Signed& part = sums[static_cast<std::size_t>(c)] = sum(c);
      part = {part.sign * sign_of(weights[c]), part.log + log_size(weights[c])};
    }
    along = sum_of(sums);
    along = {-along.sign, along.log + std::log(net_.scalars.p - 1.0) - log_length_};
  }
  double top = along.log;
  for (Index j = 0; j < width; ++j) {
    Signed& term = terms_[static_cast<std::size_t>(j)] = weight(j, weights);
    term.log += log_slope(j) + log_kappa_;
    if (term.sign != 0.0) top = std::max(top, term.log);
  }
  if (top == -kInfinity) return 0.0;
  for (Index j = 0; j < width; ++j) {
    const Signed& term = terms_[static_cast<std::size_t>(j)];
    if (term.sign != 0.0) g[j] = term.sign * std::exp(term.log - top);
  }
  if (along.sign != 0.0) *radial = along.sign * std::exp(along.log - top);
  return top;
}

template <class T>
void LogRow<T>::direction(double* unit) const {
  for (std::size_t d = 0; d < x_.size(); ++d) unit[d] = size_ > 0.0 ? x_[d] / size_ : 0.0;
}

template class LogRow<float>;
template class LogRow<double>;

// ---- plain networks

namespace {

// What T still holds of the terms of a sum, as a logarithm relative to the largest coefficient.
template <class T>
constexpr double depth() {
  return sizeof(T) == 4 ? 69.0 : 460.0;
}

// Takes rows of a plain network again where they need it.
template <class T>
class Mender {
 public:
  explicit Mender(const Network<T>& net) : net_{net, 1, nullptr, nullptr, nullptr, false} {
    for (Index j = 0; j < net.width; ++j) most_ = std::max(most_, log_coefficient(net, j));
    // Of a tiny network f itself is about to leave float64's range.
    least_ = most_ > -kMostLog ? most_ - depth<T>() : -kInfinity;
    greatest_ = std::min(most_ + depth<T>(), 640.0);
  }

  // Whether f at x cannot be trusted.
  bool wrong(const T* x, double f) const {
    if (net_.scalars.activation == Activation::tanh || most_ == -kInfinity) return false;
    const double size = log_size(f);
    return !(size >= least_ && size <= greatest_) || (least_ == -kInfinity && beyond(x, size));
  }

  // f at x by logarithms.
  double mended(const T* x, const PanelMatrix<double>& U) const {
    LogRow<T> row(net_, U);
    double f = 0.0;
    row.set(x);
    row.outputs(&f, false);
    return f;
  }

  // The same of many rows of X.
  void mend(const T* X, const Index* rows, Index count, const PanelMatrix<double>& U, double* f) const {
    const Index padded = U.layout().padded();
    std::vector<LogRow<T>> row(static_cast<std::size_t>(count), LogRow<T>(net_, U));
    std::vector<const double*> scaled(row.size());
    RowMatrix<double> Z(count, padded);
    for (std::size_t k = 0; k < row.size(); ++k) scaled[k] = row[k].scale(X + rows[k] * net_.scalars.dim);
    for (Index panel = 0; panel < U.layout().panels; ++panel)
      panel_product(U, panel, scaled.data(), count, Z.data(), padded);
    for (std::size_t k = 0; k < row.size(); ++k) {
      row[k].finish(Z.data() + static_cast<Index>(k) * padded);
      row[k].outputs(f + rows[k], false);
    }
  }

 private:
  // A tiny network's f that is 0 because e^most is, though a large x makes up for it.
  bool beyond(const T* x, double size) const {
    if (size > -700.0) return false;
    double largest = 0.0;
    for (Index d = 0; d < net_.scalars.dim; ++d) largest = std::max(largest, std::abs(static_cast<double>(x[d])));
    const double inputs = static_cast<double>(net_.scalars.dim), neurons = static_cast<double>(net_.scalars.width);
    return most_ + net_.scalars.p * (std::log(largest) + 0.5 * std::log(inputs)) + std::log(neurons) > kLeastLog;
  }

  GeneralNetwork<T> net_;
  double most_ = -kInfinity, least_ = 0.0, greatest_ = 0.0;
};

}  // namespace

template <class T>
void mend_range(const Network<T>& net, const T* X, Index n, int threads, double* f) {
  constexpr Index kRows = 32;  // of a task
  const Mender<T> mender(net);
  std::vector<Index> rows;
  for (Index i = 0; i < n; ++i)
    if (mender.wrong(X + i * net.dim, f[i])) rows.push_back(i);
  if (rows.empty()) return;
  const RowMatrix<double> directions = net.directions().template cast<double>();
  const PanelMatrix<double> U(ConstMatrixMap<double>(directions.data(), net.width, net.dim));
  const Index count = static_cast<Index>(rows.size());
  const double flops = 2.0 * static_cast<double>(count) * static_cast<double>(net.width * net.dim);
  Team::run(threads, flops, [&](Team& team) {
    team.parallel_for((count + kRows - 1) / kRows, [&](Index task) {
      const Index first = task * kRows;
      mender.mend(X, rows.data() + first, std::min(kRows, count - first), U, f);
    });
  });
}

template void mend_range<float>(const Network<float>&, const float*, Index, int, double*);
template void mend_range<double>(const Network<double>&, const double*, Index, int, double*);

// ---- any network

// Rows at work: x', and z and then what becomes of it.
struct Evaluator::Block {
  Block(Index rows, Index padded, Index dim, bool centred)
      : Z(rows, padded), value(1, padded), z(1, padded), x(static_cast<std::size_t>(rows)) {
    if (centred) shifted.resize(rows, dim);
  }
  RowMatrix<double> Z, value, z, shifted;  // (rows, padded h), a row each, (rows, D)
  std::vector<const double*> x;            // (rows,) x'
};

// One of them: phi (h,), its slopes (h,), ||x'|| and kappa; `direct` if all are to be trusted, `active` if any neuron
// has a part in it.
struct Evaluator::Row {
  double *slope, *value;
  double length, kappa;
  bool direct, active;
};

Evaluator::Evaluator(const GeneralNetwork<double>& net) : net_(net), U_(net.scalars.directions()) {
  activation_.set(net.scalars);
  const Index width = net.scalars.width, outputs = net.outputs;
  coefficients_ = RowMatrix<double>::Zero(outputs, U_.layout().padded());
  most_.assign(static_cast<std::size_t>(outputs), -kInfinity);
  for (Index c = 0; c < outputs; ++c) {
    double& most = most_[static_cast<std::size_t>(c)];
    for (Index j = 0; j < width; ++j) most = std::max(most, log_coefficient(net, j, c));
    if (most == -kInfinity) continue;
    direct_ = direct_ && std::abs(most) < kMostLog;
    for (Index j = 0; j < width; ++j)
      coefficients_(c, j) = net.scalars.sign[j * outputs + c] * std::exp(log_coefficient(net, j, c) - most);
  }
  if (net.scalars.activation != Activation::tanh) return;
  norms_.resize(static_cast<std::size_t>(width));
  for (Index j = 0; j < width; ++j) {
    const double log_norm = net.scalars.log_norm[j];
    norms_[static_cast<std::size_t>(j)] = std::exp(log_norm);
    direct_ = direct_ && (log_norm == -kInfinity || std::abs(log_norm) < kMostNormLog);
  }
}

void Evaluator::prepare_gradient() {
  if (Ut_.layout().width > 0) return;
  const RowMatrix<double> transposed = net_.scalars.directions().transpose();
  Ut_ = PanelMatrix<double>(ConstMatrixMap<double>(transposed.data(), transposed.rows(), transposed.cols()));
}

void Evaluator::plain_outputs(const double* X, Index rows, double* F) const {
  const PanelLayout<double>& layout = U_.layout();
  const Mender<double> mender(net_.scalars);
  Block block(rows, layout.padded(), layout.dim, false);
  for (Index i = 0; i < rows; ++i) block.x[static_cast<std::size_t>(i)] = X + i * layout.dim;
  for (Index panel = 0; panel < layout.panels; ++panel)
    panel_product(U_, panel, block.x.data(), rows, block.Z.data(), layout.padded());
  const RowArrayMap<double> value(block.value.data(), layout.width);
  for (Index i = 0; i < rows; ++i) {
    const double f = activation_.apply(RowArrayMap<double>(block.Z.data() + i * layout.padded(), layout.width), value);
    const double* x = X + i * layout.dim;
    F[i] = mender.wrong(x, f) ? mender.mended(x, U_) : f;
  }
}

// z = <x',u_j> + o_j of all rows.
void Evaluator::products(const double* X, Index rows, Block& block) const {
  const PanelLayout<double>& layout = U_.layout();
  for (Index i = 0; i < rows; ++i) {
    const double* x = X + i * layout.dim;
    if (net_.center != nullptr) {
      double* shifted = block.shifted.data() + i * layout.dim;
      for (Index d = 0; d < layout.dim; ++d) shifted[d] = x[d] - net_.center[d];
      x = shifted;
    }
    block.x[static_cast<std::size_t>(i)] = x;
  }
  for (Index panel = 0; panel < layout.panels; ++panel)
    panel_product(U_, panel, block.x.data(), rows, block.Z.data(), layout.padded());
  if (net_.offsets == nullptr) return;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < layout.width; ++j) block.Z(i, j) += net_.offsets[j];
}

// phi and its slopes of row i, in which the slopes replace z; of tanh only if asked for.
PRELUFLOW_NOINLINE Evaluator::Row Evaluator::activate(Block& block, Index i, bool slopes) const {
  const PanelLayout<double>& layout = U_.layout();
  Row row{block.Z.data() + i * layout.padded(), block.value.data(), 0.0, 1.0, direct_, true};
  const double* x = block.x[static_cast<std::size_t>(i)];
  double largest = 0.0;
  for (Index d = 0; d < layout.dim; ++d) largest = std::max(largest, std::abs(x[d]));
  row.direct = row.direct && (largest == 0.0 || (largest >= kLeastEntry && largest <= kMostEntry));
  if (net_.normalized()) {
    row.length = std::sqrt(dot(x, x, layout.dim));
    row.direct = row.direct && std::abs((net_.scalars.p - 1.0) * std::log(row.length)) < kMostKappaLog;
    row.kappa = std::pow(row.length, 1.0 - net_.scalars.p);
  }
  const RowArrayMap<double> z(row.slope, layout.width), value(row.value, layout.width);
  if (net_.scalars.activation != Activation::tanh) {
    row.active = !(z <= 0.0).all() && !(net_.normalized() && largest == 0.0);
    activation_.power(z, value);
    return row;
  }
  for (Index j = 0; j < layout.width; ++j) {
    const double norm = norms_[static_cast<std::size_t>(j)], t = norm * row.slope[j];
    row.value[j] = std::tanh(t);
    if (!slopes) continue;
    const double decay = std::exp(-2.0 * std::abs(t));  // sech^2 with all its digits
    row.slope[j] = norm * 4.0 * decay / ((1.0 + decay) * (1.0 + decay));
  }
  return row;
}

// F (C,) of a row; false where it has to be taken by logarithms.
PRELUFLOW_NOINLINE bool Evaluator::direct_outputs(const Row& row, double* F) const {
  if (!row.direct && !(direct_ && net_.normalized() && !row.active && row.length == 0.0)) return false;
  for (Index c = 0; c < net_.outputs; ++c) {
    const double bias = net_.output_bias == nullptr ? 0.0 : net_.output_bias[c];
    const double most = most_[static_cast<std::size_t>(c)];
    F[c] = bias;
    if (most == -kInfinity || !row.active) continue;
    const double sum = dot(row.value, coefficients_.data() + c * coefficients_.cols(), net_.scalars.width);
    if (!in_sum_range(sum)) return false;
    F[c] = std::exp(most) * row.kappa * sum + bias;
    if (!std::isfinite(F[c])) return false;
  }
  return true;
}

void Evaluator::general_outputs(const double* X, Index rows, double* F) const {
  Block block(rows, U_.layout().padded(), U_.layout().dim, net_.center != nullptr);
  products(X, rows, block);
  LogRow<double> logarithms(net_, U_);
  for (Index i = 0; i < rows; ++i) {
    if (direct_outputs(activate(block, i, false), F + i * net_.outputs)) continue;
    logarithms.set(X + i * net_.scalars.dim);
    logarithms.outputs(F + i * net_.outputs, false);
  }
}

void Evaluator::outputs_here(const double* X, Index n, double* F) const {
  net_.plain() ? plain_outputs(X, n, F) : general_outputs(X, n, F);
}

void Evaluator::outputs(Team& team, const double* X, Index n, double* F) const {
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    const Index first = task * kBlock;
    outputs_here(X + first * net_.scalars.dim, std::min(kBlock, n - first), F + first * net_.outputs);
  });
}

void Evaluator::relative_outputs(Team& team, const double* X, Index n, double* F) const {
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    LogRow<double> row(net_, U_);
    for (Index i = task * kBlock; i < std::min(n, (task + 1) * kBlock); ++i) {
      row.set(X + i * net_.scalars.dim);
      row.outputs(F + i * net_.outputs, true);
    }
  });
}

// The slopes of a row become those of sum_c weights_c F_c, in units of e^scale; V (h,) is room for the weights'
// coefficients. False where logarithms have to do it.
PRELUFLOW_NOINLINE bool Evaluator::direct_slopes(Row& row, const double* weights, double* V, double* radial,
                                                 double* scale) const {
  const Index width = net_.scalars.width;
  RowArrayMap<double> slope(row.slope, width), coefficient(V, width);
  *radial = *scale = 0.0;
  if (!row.direct) return false;
  double top = -kInfinity;
  for (Index c = 0; c < net_.outputs; ++c)
    top = std::max(top, log_size(weights[c]) + most_[static_cast<std::size_t>(c)]);
  if (top == -kInfinity || !row.active) {
    slope.setZero();
    return true;
  }
  coefficient.setZero();
  for (Index c = 0; c < net_.outputs; ++c) {
    const double most = most_[static_cast<std::size_t>(c)];
    if (weights[c] == 0.0 || most == -kInfinity) continue;
    const RowArrayMap<double> own(const_cast<double*>(coefficients_.data()) + c * coefficients_.cols(), width);
    coefficient += sign_of(weights[c]) * std::exp(log_size(weights[c]) + most - top) * own;
  }
  slope *= coefficient;
  if (!in_sum_range(slope.abs().maxCoeff())) return false;
  *scale = top;
  if (!net_.normalized()) return true;
  *radial = -(net_.scalars.p - 1.0) * dot(row.value, V, width) / row.length;
  *scale = top + std::log(row.kappa);
  return true;
}

// F (C,) of row i, before its z become slopes: the bits that outputs() gives.
void Evaluator::plain_row(const double* x, Block& block, Index i, double* F) const {
  const PanelLayout<double>& layout = U_.layout();
  std::copy_n(block.Z.data() + i * layout.padded(), layout.padded(), block.z.data());
  const RowArrayMap<double> z(block.z.data(), layout.width), value(block.value.data(), layout.width);
  const Mender<double> mender(net_.scalars);
  *F = activation_.apply(z, value);
  if (mender.wrong(x, *F)) *F = mender.mended(x, U_);
}

// F (C,) of row i, and its slopes, in units of e^scale, with a multiple `radial` of the direction (D,) beside them.
double Evaluator::row_gradient(const double* x, const double* weights, Block& block, Index i,
                               LogRow<double>& logarithms, double* F, double* radial, double* direction) const {
  if (net_.plain()) plain_row(x, block, i, F);
  Row row = activate(block, i, true);
  const bool direct = net_.plain() || direct_outputs(row, F);
  if (!direct) {
    logarithms.set(x);
    logarithms.outputs(F, false);
  }
  double scale = 0.0;
  if (direct_slopes(row, weights, block.z.data(), radial, &scale)) {
    const double* moved = block.x[static_cast<std::size_t>(i)];
    for (Index d = 0; direction != nullptr && d < net_.scalars.dim; ++d) direction[d] = moved[d] / row.length;
    return scale;
  }
  if (direct) logarithms.set(x);
  scale = logarithms.slopes(weights, row.slope, radial);
  if (direction != nullptr) logarithms.direction(direction);
  return scale;
}

void Evaluator::block_gradient(const double* X, Index rows, const double* weights, double* F, double* gradient) const {
  const Index dim = net_.scalars.dim, padded = U_.layout().padded();
  Block block(rows, padded, dim, net_.center != nullptr);
  products(X, rows, block);
  LogRow<double> logarithms(net_, U_);
  RowMatrix<double> product(rows, Ut_.layout().padded()), unit(net_.normalized() ? rows : 0, dim);
  std::vector<double> radial(block.x.size()), scale(block.x.size());
  std::vector<const double*> slopes(block.x.size());
  for (Index i = 0; i < rows; ++i) {
    const std::size_t k = static_cast<std::size_t>(i);
    slopes[k] = block.Z.data() + i * padded;
    scale[k] = row_gradient(X + i * dim, weights + i * net_.outputs, block, i, logarithms, F + i * net_.outputs,
                            &radial[k], net_.normalized() ? unit.data() + i * dim : nullptr);
  }
  for (Index panel = 0; panel < Ut_.layout().panels; ++panel)
    panel_product(Ut_, panel, slopes.data(), rows, product.data(), Ut_.layout().padded());
  for (Index i = 0; i < rows; ++i) {
    const std::size_t k = static_cast<std::size_t>(i);
    const double factor = std::abs(scale[k]) < 700.0 ? std::exp(scale[k]) : 0.0;
    for (Index d = 0; d < dim; ++d) {
      const double along = radial[k] == 0.0 ? 0.0 : radial[k] * unit(i, d), sum = product(i, d) + along;
      gradient[i * dim + d] = factor > 0.0 ? factor * sum : scaled(sum, scale[k]);
    }
  }
}

void Evaluator::gradient(Team& team, const double* X, Index n, const double* weights, double* F,
                         double* gradient) const {
  const Index dim = net_.scalars.dim, outputs = net_.outputs;
  team.parallel_for((n + kBlock - 1) / kBlock, [&](Index task) {
    const Index first = task * kBlock;
    block_gradient(X + first * dim, std::min(kBlock, n - first), weights + first * outputs, F + first * outputs,
                   gradient + first * dim);
  });
}

}  // namespace preluflow
