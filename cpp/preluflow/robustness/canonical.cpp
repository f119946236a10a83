#include "preluflow/robustness/canonical.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <tuple>

#include "preluflow/robustness/linear_algebra.hpp"

namespace preluflow {

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSame = 4.0 * kEpsilon;  // largest difference of directions that are one neuron, but for rounding
constexpr double kFolded = 1e-12;         // a doubt beyond it is folded into the contribution, against the first class
constexpr Index kFewInputs = 32;          // up to so many the attack works in coordinates, which keep small differences
constexpr double kCertainTanh = 40.0;     // tanh of it is 1 within 4e-35

// What the rounding of a sum over D inputs in runs of 256 may do to it, in units of the terms' sizes
// (docs/mathematics.md#rounding-products).
double dot_error(Index D) {
  const double inputs = static_cast<double>(D);
  return (std::min(inputs, 256.0) + inputs / 256.0) * kEpsilon / 2.0;
}

double norm(const double* row, Index n) { return ConstVectorMap<double>(row, n).norm(); }

}  // namespace

SignedLog operator-(const SignedLog& a) { return {-a.sign, a.log, a.doubt, a.origin, a.given}; }

SignedLog operator+(const SignedLog& a, const SignedLog& b) {
  if (a.sign == 0.0) return b;
  if (b.sign == 0.0) return a;
  const SignedLog& large = a.log >= b.log ? a : b;
  const SignedLog& small = a.log >= b.log ? b : a;
  const double share = std::exp(small.log - large.log);  // in (0, 1]
  const double unit = kEpsilon * (4.0 + std::abs(large.log) + std::abs(small.log));
  if (a.sign == b.sign) {
    const double log = large.log + std::log1p(share);
    return {a.sign, log, (large.doubt + small.doubt * share) / (1.0 + share) + unit};
  }
  if (a.opposes(b)) return {};
  const double rest = -std::expm1(small.log - large.log), lost = large.doubt + small.doubt * share + unit;
  if (!(rest > lost)) return {1.0, large.log + std::log(lost), 2.0};  // between -lost and lost, about
  return {large.sign, large.log + std::log(rest), lost / rest};
}

Canonical::Canonical(Team& team, const GeneralNetwork<double>& net, const std::uint8_t* fixed)
    : net_(net), dim_(net.scalars.dim), classes_(std::max<Index>(net.outputs, 2)) {
  gather(fixed);
  merge_equal();
  add_constant();
  const bool any_offset = std::any_of(offsets_.begin(), offsets_.end(), [](double o) { return o != 0.0; });
  if (net_.outputs == 1 && !any_offset && !any_fixed_ && biases_.empty() && net.scalars.activation != Activation::tanh)
    merge_near();
  pairs_.resize(static_cast<std::size_t>(classes_ * classes_));
  finish(team);
}

// Directions, offsets and coefficients of the neurons that contribute (docs/mathematics.md#canonical).
void Canonical::gather(const std::uint8_t* fixed) {
  const Network<double>& net = net_.scalars;
  const bool tanh = net.activation == Activation::tanh;
  const Index D = dim_, C = net_.outputs;
  any_fixed_ = fixed != nullptr && std::any_of(fixed, fixed + D, [](std::uint8_t f) { return f != 0; });
  double largest = 0.0;                              // of all logarithms
  std::map<std::pair<double, double>, Index> sizes;  // of neurons: equal ones have one origin
  std::vector<double> row(static_cast<std::size_t>(D));
  for (Index j = 0; j < net.width; ++j) {
    const double length = norm(net.U + j * D, D);  // rows are units within the network's dtype only
    if (!std::isfinite(net.log_norm[j]) || !(length > 0.0)) continue;
    std::vector<SignedLog> coefficient(static_cast<std::size_t>(C));
    bool any = false;
    const Index origin = sizes.emplace(std::make_pair(net.log_norm[j], length), j).first->second;
    for (Index c = 0; c < C; ++c) {
      const Index at = j * C + c;
      if (net.sign[at] == 0.0) continue;
      any = true;
      const double log = log_coefficient(net_, j, c) + (tanh ? 0.0 : net.p * std::log(length));
      const double doubt = 2.0 * kEpsilon * (std::abs(log) + std::abs(net.log_abs_v[at]) + 2.0);
      coefficient[static_cast<std::size_t>(c)] = {net.sign[at], log, doubt, origin, net.log_abs_v[at]};
      largest =
          std::max({largest, std::abs(log_power(net.p, net.log_norm[j])), std::abs(net.log_abs_v[at]), std::abs(log)});
    }
    if (!any) continue;
    // Powers: z = <x',u> + o of unit vectors; tanh: <x',w> + b.
    const double scale = tanh ? std::exp(net.log_norm[j]) : 1.0 / length;
    for (Index d = 0; d < D; ++d) row[static_cast<std::size_t>(d)] = net.U[j * D + d] * scale;
    U_.insert(U_.end(), row.begin(), row.end());
    offsets_.push_back(net_.offsets == nullptr ? 0.0 : net_.offsets[j] * scale);
    coefficients_.push_back(std::move(coefficient));
  }
  doubt_ = 8.0 * kEpsilon * (largest + net.p + 4.0);
  if (!any_fixed_) return;
  // What cannot be touched stays in the values; what can is made a unit vector again.
  values_ = U_;
  for (std::size_t j = 0; j < offsets_.size(); ++j) {
    double* u = U_.data() + static_cast<Index>(j) * D;
    double* value = values_.data() + static_cast<Index>(j) * D;
    for (Index d = 0; d < D; ++d)
      if (fixed[d]) u[d] = 0.0;
    const double length = norm(u, D);
    if (tanh || !(length > 0.0)) continue;
    for (Index d = 0; d < D; ++d) {
      u[d] /= length;
      value[d] /= length;
    }
    offsets_[j] /= length;
    for (SignedLog& a : coefficients_[j])
      if (a.sign != 0.0) a.log += net.p * std::log(length);
  }
}

// Neurons whose direction and offset are the same bit for bit are one: no rounding is involved but that of their sum.
void Canonical::merge_equal() {
  std::map<std::string, std::vector<std::size_t>> places;
  const std::vector<double>& rows = values_.empty() ? U_ : values_;
  std::vector<double> key(static_cast<std::size_t>(dim_) + 1);
  for (std::size_t j = 0; j < offsets_.size(); ++j) {
    const auto first = rows.begin() + static_cast<std::ptrdiff_t>(j) * dim_;
    std::transform(first, first + dim_, key.begin(), [](double u) { return u + 0.0; });  // no -0
    key.back() = offsets_[j] + 0.0;
    places[std::string(reinterpret_cast<const char*>(key.data()), key.size() * sizeof(double))].push_back(j);
  }
  std::vector<Index> kept;
  for (const auto& place : places) {
    add_up(place.second);
    kept.push_back(static_cast<Index>(place.second.front()));
  }
  std::sort(kept.begin(), kept.end());
  keep(kept);
}

// The coefficients of these neurons into the first one's: what cancels exactly before what does not.
void Canonical::add_up(const std::vector<std::size_t>& which) {
  std::vector<std::size_t> left;
  for (std::size_t j : which) {
    const auto partner = std::find_if(left.begin(), left.end(), [&](std::size_t k) {
      return net_.outputs == 1 && coefficients_[k][0].opposes(coefficients_[j][0]);
    });
    if (partner == left.end()) {
      left.push_back(j);
    } else {
      left.erase(partner);
    }
  }
  std::vector<SignedLog> sum(static_cast<std::size_t>(net_.outputs));
  for (std::size_t j : left)
    for (std::size_t c = 0; c < sum.size(); ++c) {
      SignedLog a = coefficients_[j][c];
      if (left.size() > 1) a.doubt += doubt_;  // what neurons of one size have in common, others have not
      sum[c] = sum[c] + a;
    }
  if (left.size() > 1) tell_equal_sums(left, sum);
  coefficients_[which.front()] = std::move(sum);
}

// Outputs whose sums are of the same numbers are equal, and cancel exactly.
void Canonical::tell_equal_sums(const std::vector<std::size_t>& which, std::vector<SignedLog>& sum) const {
  constexpr Index kSums = Index{1} << 40;  // beyond all sizes of single neurons
  for (std::size_t c = 0; c < sum.size(); ++c) {
    if (std::any_of(which.begin(), which.end(),
                    [&](std::size_t j) { return coefficients_[j][c].sign != 0.0 && coefficients_[j][c].origin < 0; }))
      continue;
    std::size_t first = 0;
    while (!std::all_of(which.begin(), which.end(), [&](std::size_t j) {
      const SignedLog &a = coefficients_[j][first], &b = coefficients_[j][c];
      return a.sign == b.sign && (a.sign == 0.0 || (a.origin == b.origin && a.given == b.given));
    }))
      ++first;  // c is equal to itself
    sum[c].origin = kSums + static_cast<Index>(which.front() * sum.size() + first);
    sum[c].given = sum[c].log;
  }
}

// docs/mathematics.md#rounding-products. Neurons of one output, one sign and one offset whose directions differ by
// rounding alone are one.
void Canonical::merge_near() {
  const auto count = static_cast<Index>(offsets_.size());
  // Along a direction that is no axis: candidates lie together there, and others seldom.
  std::vector<double> along(static_cast<std::size_t>(dim_)), place(static_cast<std::size_t>(count));
  double size = 0.0;
  for (Index d = 0; d < dim_; ++d) {
    const double angle = 0.7548776662466927 * static_cast<double>(d + 1);  // the plastic number's inverse: no pattern
    along[static_cast<std::size_t>(d)] = 0.5 + (angle - std::floor(angle)) - (d % 2 ? 1.3 : 0.0);
    size += std::abs(along[static_cast<std::size_t>(d)]);
  }
  const std::vector<double>& rows = values_.empty() ? U_ : values_;
  for (Index j = 0; j < count; ++j)
    place[static_cast<std::size_t>(j)] =
        ConstVectorMap<double>(rows.data() + j * dim_, dim_).dot(ConstVectorMap<double>(along.data(), dim_));
  const double reach = (kSame + static_cast<double>(dim_) * kEpsilon) * size;
  std::vector<Index> order(static_cast<std::size_t>(count)), into(static_cast<std::size_t>(count), -1), kept;
  std::iota(order.begin(), order.end(), Index{0});
  const auto at = [](Index j) { return static_cast<std::size_t>(j); };
  const auto sign = [&](Index j) { return coefficients_[at(j)][0].sign; };
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    return std::make_tuple(sign(a), place[at(a)], a) < std::make_tuple(sign(b), place[at(b)], b);
  });
  for (Index i = 0; i < count; ++i) {
    const Index j = order[at(i)];
    if (into[at(j)] >= 0) continue;
    into[at(j)] = j;
    kept.push_back(j);
    for (Index k = i + 1; k < count; ++k) {
      const Index other = order[at(k)];
      if (sign(other) != sign(j) || place[at(other)] - place[at(j)] > reach) break;
      if (into[at(other)] >= 0 || offsets_[at(other)] != offsets_[at(j)]) continue;
      double apart = 0.0;
      for (Index d = 0; d < dim_; ++d)
        apart = std::max(apart, std::abs(rows[at(other * dim_ + d)] - rows[at(j * dim_ + d)]));
      if (apart > kSame) continue;
      into[at(other)] = j;
      merged_near_ = true;
      coefficients_[at(j)][0] = coefficients_[at(j)][0] + coefficients_[at(other)][0];
    }
  }
  keep(kept);
}

void Canonical::keep(const std::vector<Index>& which) {
  std::vector<double> U, values, offsets;
  std::vector<std::vector<SignedLog>> coefficients;
  for (Index j : which) {
    const auto at = static_cast<std::size_t>(j);
    const bool any = std::any_of(coefficients_[at].begin(), coefficients_[at].end(),
                                 [](const SignedLog& a) { return a.sign != 0.0; });
    if (!any) continue;  // cancelled
    U.insert(U.end(), U_.begin() + j * dim_, U_.begin() + (j + 1) * dim_);
    if (!values_.empty()) values.insert(values.end(), values_.begin() + j * dim_, values_.begin() + (j + 1) * dim_);
    offsets.push_back(offsets_[at]);
    coefficients.push_back(std::move(coefficients_[at]));
  }
  U_.swap(U);
  values_.swap(values);
  offsets_.swap(offsets);
  coefficients_.swap(coefficients);
}

// Output biases: a neuron that always says 1, or with normalised input the weights of ||x'||^(p-1).
void Canonical::add_constant() {
  if (net_.output_bias == nullptr) return;
  std::vector<SignedLog> bias(static_cast<std::size_t>(net_.outputs));
  bool any = false;
  for (std::size_t c = 0; c < bias.size(); ++c) {
    const double value = net_.output_bias[c];
    if (value == 0.0) continue;
    any = true;
    bias[c] = {value > 0.0 ? 1.0 : -1.0, std::log(std::abs(value)),
               0.5 * kEpsilon * (std::abs(std::log(std::abs(value))) + 2.0)};
  }
  if (!any) return;
  if (net_.normalized()) {
    biases_ = std::move(bias);
    return;
  }
  U_.insert(U_.end(), static_cast<std::size_t>(dim_), 0.0);
  if (!values_.empty()) values_.insert(values_.end(), static_cast<std::size_t>(dim_), 0.0);
  offsets_.push_back(net_.scalars.activation == Activation::tanh ? kCertainTanh : 1.0);
  coefficients_.push_back(std::move(bias));
}

// What all points share.
void Canonical::finish(Team& team) {
  const auto h = static_cast<Index>(offsets_.size());
  const bool tanh = net_.scalars.activation == Activation::tanh;
  const std::vector<double>& rows = values_.empty() ? U_ : values_;
  lengths_.resize(static_cast<std::size_t>(h));
  value_lengths_.resize(static_cast<std::size_t>(h));
  bool any_offset = false;
  for (Index j = 0; j < h; ++j) {
    const auto at = static_cast<std::size_t>(j);
    lengths_[at] = norm(U_.data() + j * dim_, dim_);
    value_lengths_[at] = norm(rows.data() + j * dim_, dim_);
    any_offset = any_offset || offsets_[at] != 0.0 || any_fixed_;
    if (value_lengths_[at] > 0.0) largest_offset_ = std::max(largest_offset_, std::abs(offsets_[at]));
  }
  const double inputs = static_cast<double>(dim_);
  slack_ = dot_error(dim_) + 8.0 * kEpsilon + (merged_near_ ? 2.0 * kSame * std::sqrt(inputs) : 0.0);
  if (net_.center != nullptr) slack_ += kEpsilon;  // of x - center
  gram_.resize(static_cast<std::size_t>(h * h));
  if (h > 0) products(team, U_.data(), h, U_.data(), h, dim_, gram_.data());
  const double most = lengths_.empty() ? 0.0 : *std::max_element(lengths_.begin(), lengths_.end());
  const bool coordinates = dim_ <= std::max(kFewInputs, h / 2);
  neurons_ = {tanh ? Curve::tanh : Curve::power,
              gram_.data(),
              h,
              net_.scalars.p,
              slack_ * std::max(most * most, 1.0),
              coordinates ? U_.data() : nullptr,
              coordinates ? dim_ : 0,
              !tanh && !any_offset && biases_.empty(),
              tanh ? lengths_.data() : nullptr};
  if (h == 0) return;
  value_panels_ = PanelMatrix<double>(ConstMatrixMap<double>(rows.data(), h, dim_));
  if (!coordinates) {
    const RowMatrix<double> transposed = ConstMatrixMap<double>(U_.data(), h, dim_).transpose();
    input_panels_ = PanelMatrix<double>(ConstMatrixMap<double>(transposed.data(), dim_, h));
  }
}

bool Canonical::errs_at_centre(Index y, Index c) const {
  if (!net_.normalized()) return neurons_.homogeneous;
  if (net_.output_bias == nullptr) return true;
  const double* B = net_.output_bias;
  return net_.outputs == 1 ? (y == 1 ? B[0] <= 0.0 : B[0] >= 0.0) : B[y] <= B[c];
}

bool Canonical::errs_at_centre(Index y) const {
  for (Index c = 0; c < classes_; ++c)
    if (c != y && errs_at_centre(y, c)) return true;
  return false;
}

void Canonical::prepare(Team& team, const std::vector<Index>& labels) {
  std::vector<std::pair<Index, Index>> missing;
  for (Index y : labels)
    for (Index c = 0; c < classes_; ++c)
      if (c != y && !pairs_[static_cast<std::size_t>(y * classes_ + c)]) missing.emplace_back(y, c);
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());
  team.parallel_for(static_cast<Index>(missing.size()), [&](Index k) {
    const auto [y, c] = missing[static_cast<std::size_t>(k)];
    pairs_[static_cast<std::size_t>(y * classes_ + c)] = make_pair(y, c);
  });
}

// A number of that doubt as small (way -1) or as large (+1) as it may be, its sign in doubt where that is above 1/2.
static SignedLog folded(const SignedLog& a, double way) {
  if (a.doubt < 0.5) return {a.sign, a.log + std::log1p(a.sign * way * a.doubt), 0.0};
  return {way, a.log + std::log1p(a.doubt), 0.0};
}

// docs/mathematics.md#rounding-contributions
std::unique_ptr<PairData> Canonical::make_pair(Index y, Index c) const {
  const auto h = static_cast<std::size_t>(neurons_.width);
  const bool tanh = neurons_.curve == Curve::tanh;  // of either sign: no contribution is the worst one everywhere
  auto data = std::make_unique<PairData>();
  const auto difference = [&](const std::vector<SignedLog>& a) {
    if (net_.outputs == 1) return y == 1 ? a[0] : -a[0];
    return a[static_cast<std::size_t>(y)] + -a[static_cast<std::size_t>(c)];
  };
  double most = -kInfinity;
  for (std::size_t j = 0; j < h; ++j) {
    const SignedLog a = difference(coefficients_[j]);
    SignedLog least = a, generous = a;
    if (!tanh && a.sign != 0.0 && a.doubt > kFolded) {
      least = folded(a, -1.0);
      generous = folded(a, 1.0);
    }
    data->log_a.push_back(least.sign == 0.0 ? -kInfinity : least.log);
    data->side.push_back(least.sign > 0.0 ? 1.0 : -1.0);
    data->doubt.push_back(least.sign == 0.0 ? 0.0 : (tanh ? a.doubt : std::min(a.doubt, kFolded)) + doubt_);
    data->generous_log_a.push_back(generous.sign == 0.0 ? -kInfinity : generous.log);
    data->generous_side.push_back(generous.sign > 0.0 ? 1.0 : -1.0);
    most = std::max(most, data->log_a.back());
  }
  Pair &pair = data->pair, &generous = data->generous;
  if (!biases_.empty()) {
    const SignedLog weight = difference(biases_);
    if (weight.sign != 0.0) {
      const SignedLog least = folded(weight, -1.0), largest = folded(weight, 1.0);
      pair.norm_side = least.sign;
      pair.log_norm_weight = least.log;
      generous.norm_side = largest.sign;
      generous.log_norm_weight = largest.log;
      most = std::max(most, pair.log_norm_weight);
    }
  }
  if (std::isfinite(most)) {
    for (std::vector<double>* logs : {&data->log_a, &data->generous_log_a})
      for (double& log : *logs) log -= most;
    pair.log_norm_weight -= most;
    generous.log_norm_weight -= most;
    for (double& doubt : data->doubt) doubt += kEpsilon * std::abs(most);
  }
  generous.log_a = data->generous_log_a.data();
  generous.side = data->generous_side.data();
  generous.doubt = data->doubt.data();
  pair.log_a = data->log_a.data();
  pair.side = data->side.data();
  pair.doubt = data->doubt.data();
  for (std::size_t j = 0; j < h; ++j)  // of the largest contribution, where a small one's sign may be in doubt
    pair.most_doubt = std::max(pair.most_doubt, data->doubt[j] * (tanh ? std::exp(data->log_a[j]) : 1.0));
  pair.log_lipschitz = tanh ? 0.0 : log_lipschitz(*data);
  data->groups = std::make_unique<Groups>(neurons_, pair);
  return data;
}

// Of the rivals' g on the unit sphere: lambda_max(sum a u u^T)^(1/p), or by Hoelder for p < 2; rounded up
// (docs/mathematics.md#lipschitz).
double Canonical::log_lipschitz(const PairData& data) const {
  const Index h = neurons_.width;
  const double p = neurons_.p;
  std::vector<Index> rivals;
  double most = -kInfinity;
  for (Index j = 0; j < h; ++j) {
    const auto at = static_cast<std::size_t>(j);
    if (data.side[at] > 0.0 || !std::isfinite(data.log_a[at]) || !(lengths_[at] > 0.0)) continue;
    rivals.push_back(j);
    most = std::max(most, data.log_a[at]);
  }
  const auto m = static_cast<Index>(rivals.size());
  if (m == 0) return -kInfinity;
  Eigen::VectorXd root(m);
  double total = 0.0;
  for (Index i = 0; i < m; ++i) {
    const double a = std::exp(data.log_a[static_cast<std::size_t>(rivals[static_cast<std::size_t>(i)])] - most);
    root(i) = std::sqrt(a);  // what underflows is made up for below
    total += a;
  }
  Eigen::MatrixXd weighted(m, m);
  for (Index i = 0; i < m; ++i)
    for (Index k = 0; k < m; ++k)
      weighted(i, k) = gram_[static_cast<std::size_t>(rivals[static_cast<std::size_t>(i)] * h +
                                                      rivals[static_cast<std::size_t>(k)])] *
                       root(i) * root(k);
  // Entries of the Gram matrix err by at most slack, the matrix by slack times the sum of a.
  const double largest = std::log(largest_eigenvalue(weighted) + neurons_.slack * total + 1e-300) + 1e-12;
  if (p >= 2.0) return (largest + most) / p;
  return (1.0 / p - 0.5) * (std::log(total) + 1e-12) + 0.5 * largest + most / p;
}

// docs/mathematics.md#span; the slack of values there: docs/mathematics.md#rounding-span.
void Canonical::prepare_span(Team& team) {
  if (span_.rank > 0 || neurons_.width == 0) return;
  const Index h = neurons_.width, D = dim_;
  const double tolerance = 4.0 * kEpsilon * std::sqrt(static_cast<double>(D)), dot = dot_error(D) + kEpsilon;
  std::vector<double> rows = U_;  // of unit length, for the tolerance
  for (Index j = 0; j < h; ++j)
    if (lengths_[static_cast<std::size_t>(j)] > 0.0)
      for (Index d = 0; d < D; ++d)
        rows[static_cast<std::size_t>(j * D + d)] /=
            neurons_.curve == Curve::tanh ? lengths_[static_cast<std::size_t>(j)] : 1.0;
  basis_ = orthonormal_basis(rows.data(), h, D, tolerance);
  const auto rank = static_cast<Index>(basis_.size()) / D;
  if (rank == 0) return;
  coordinates_.resize(static_cast<std::size_t>(h * rank));
  products(team, U_.data(), h, basis_.data(), rank, D, coordinates_.data());
  double gap = 0.0;
  if (h < D) {
    // How far the basis is from orthonormal, as measured; inputs themselves (h >= D) are so exactly.
    RowMatrix<double> gram(rank, rank);
    products(team, basis_.data(), rank, basis_.data(), rank, D, gram.data());
    gram.diagonal().array() -= 1.0;
    gap = gram.cwiseAbs().rowwise().sum().maxCoeff() + static_cast<double>(rank) * dot + tolerance;
  }
  const double ranks = static_cast<double>(rank);
  // Coordinates of x and of u_j err by dot in every entry, their product by rank units more.
  const double slack = slack_ + 2.0 * std::sqrt(ranks) * dot + gap + (ranks + 8.0) * kEpsilon;
  span_ = {coordinates_.data(), rank, slack};
}

}  // namespace preluflow
