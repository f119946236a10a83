#include "preluflow/robustness/confirm.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "preluflow/shift.hpp"

namespace preluflow {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// By how much witnesses are lengthened until they hold: in units of slack, which room asks for; in the point's unit; by
// shares of themselves.
constexpr double kRoom[] = {8.0, 32.0, 128.0, 1024.0, 8192.0};
constexpr double kHairs[] = {0.0, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9};
constexpr double kShares[] = {3.1622776601683795e-09, 1e-08,  3.162277660168379e-08,  1e-07,
                              3.162277660168379e-07,  1e-06,  3.162277660168379e-06,  9.999999999999999e-06,
                              3.1622776601683795e-05, 0.0001, 0.00031622776601683794, 0.001,
                              0.0031622776601683794,  0.01,   0.03162277660168379,    0.1};
constexpr double kMoreShares[] = {0.2, 0.4, 0.8, 1.5, 3.0};     // where the centre is no way out
constexpr double kPushes[] = {0.0, 1e-14, 1e-12, 1e-10, 1e-8};  // in the point's unit, beyond an edge
constexpr double kEdge = 1e-9;                                  // values within it are on an edge
constexpr double kZero = 1e-11;    // a coordinate of a boundary point below it, in that unit, may be meant to be 0
constexpr double kRank = 1e-15;    // what is smaller than this share of the largest is rounding
constexpr Index kMostEdges = 128;  // neurons on their edges; more meet in the centre only
constexpr int kBisections = 30;    // of a way along the box
constexpr double kLonger = 1.1;    // step of it
constexpr int kSlides = 16;        // along the box's sides
constexpr double kLongest = 1e4;   // factor beyond which the box holds no error on the way

template <class T, std::size_t N>
constexpr int size_of(const T (&)[N]) {
  return static_cast<int>(N);
}

// The shortest v (D, right sides) with <normal_i, v> nearest to right_i, by one-sided Jacobi rotations (Hestenes 1958),
// which make the normals (D, count) orthogonal.
Eigen::MatrixXd shortest_solutions(Eigen::MatrixXd& normals, Eigen::MatrixXd& right) {
  constexpr int kSweeps = 30;
  const Index count = normals.cols();
  bool turned = count > 1;
  for (int sweep = 0; turned && sweep < kSweeps; ++sweep) {
    turned = false;
    for (Index i = 0; i < count; ++i)
      for (Index j = i + 1; j < count; ++j) {
        const double a = normals.col(i).squaredNorm(), b = normals.col(j).squaredNorm();
        const double c = normals.col(i).dot(normals.col(j));
        if (!(std::abs(c) > kRank * std::sqrt(a * b))) continue;
        const double tau = (b - a) / (2.0 * c);
        const double t = (tau < 0.0 ? -1.0 : 1.0) / (std::abs(tau) + std::sqrt(1.0 + tau * tau));
        const double cosine = 1.0 / std::sqrt(1.0 + t * t), sine = t * cosine;
        const Eigen::VectorXd column = normals.col(i);
        normals.col(i) = cosine * column - sine * normals.col(j);
        normals.col(j) = sine * column + cosine * normals.col(j);
        const Eigen::RowVectorXd row = right.row(i);
        right.row(i) = cosine * row - sine * right.row(j);
        right.row(j) = sine * row + cosine * right.row(j);
        turned = true;
      }
  }
  const Eigen::VectorXd lengths = normals.colwise().norm();
  for (Index i = 0; i < count; ++i) {
    const bool rounding = !(lengths(i) > kRank * lengths.maxCoeff());
    right.row(i) *= rounding ? 0.0 : 1.0 / (lengths(i) * lengths(i));
  }
  return normals * right;
}

}  // namespace

Confirmation::Confirmation(const Place& place, const Judge& judge, const Slope& slope)
    : place_(place),
      judge_(judge),
      slope_(slope),
      stretched_(static_cast<std::size_t>(place.dim)),
      trial_(stretched_),
      moved_(stretched_),
      found_(stretched_),
      direction_(stretched_) {}

double Confirmation::run(const double* d, double* witness) {
  d_ = d;
  const bool any = std::any_of(d, d + place_.dim, [](double v) { return v != 0.0; });
  const double slack = place_.slack;
  const bool boxed = place_.low != nullptr;
  const bool won = any && (stretch(kRoom, size_of(kRoom), slack, false, true) || push_off_corners(true) ||
                           stretch(kHairs, size_of(kHairs), 1.0, false, false) || push_off_corners(false) ||
                           stretch(kShares, size_of(kShares), 1.0, true, true) || (boxed && along(d, kInfinity)) ||
                           (!place_.homogeneous && stretch(kMoreShares, size_of(kMoreShares), 1.0, true, true)));
  for (int k = 0; k < kSlides && won && boxed && cut_ && slope_; ++k)
    if (!slide()) break;
  double shortest = won ? length(found_.data()) : kInfinity;
  if (place_.homogeneous && !(shortest <= place_.length)) {
    const double back = to_centre();
    if (back < shortest) shortest = back;
  }
  if (std::isfinite(shortest)) std::copy(found_.begin(), found_.end(), witness);
  return shortest;
}

// Lengths longer by these amounts, in units of `unit`, or of their own.
bool Confirmation::stretch(const double* amounts, int count, double unit, bool relative, bool room) {
  double square = 0.0;
  for (Index k = 0; k < place_.dim; ++k) square += d_[k] * d_[k];
  const double own = relative ? 1.0 : std::max(std::sqrt(square), 1e-300);
  for (int i = 0; i < count; ++i) {
    const double factor = 1.0 + amounts[i] * unit / own;
    for (Index k = 0; k < place_.dim; ++k) stretched_[static_cast<std::size_t>(k)] = d_[k] * factor;
    if (attempt(stretched_.data(), room)) return true;
  }
  return false;
}

// Neurons that a witness only just silences are pushed below 0: an error that is met in a corner only.
bool Confirmation::push_off_corners(bool room) {
  const Index D = place_.dim;
  const ConstMatrixMap<double> U(place_.directions, place_.width, D);
  const Vector<double> at = ConstVectorMap<double>(place_.e, D) + ConstVectorMap<double>(d_, D);
  std::vector<Index> edge;
  std::vector<double> values;
  for (Index j = 0; j < place_.width; ++j) {
    const double value = U.row(j).dot(at) + (place_.offsets == nullptr ? 0.0 : place_.offsets[j]);
    if (!(std::abs(value) <= kEdge) || U.row(j).isZero(0.0)) continue;
    edge.push_back(j);
    values.push_back(value);
  }
  const auto count = static_cast<Index>(edge.size());
  if (count == 0 || count > kMostEdges) return false;
  Eigen::MatrixXd normals(D, count), right(count, 2);  // the values to take off, and a push on each
  for (Index i = 0; i < count; ++i) {
    normals.col(i) = U.row(edge[static_cast<std::size_t>(i)]);
    right(i, 0) = values[static_cast<std::size_t>(i)];
    right(i, 1) = 1.0;
  }
  const Eigen::MatrixXd shifts = shortest_solutions(normals, right);
  for (const double shift : kPushes) {
    for (Index k = 0; k < D; ++k) stretched_[static_cast<std::size_t>(k)] = d_[k] - shifts(k, 0) - shift * shifts(k, 1);
    if (attempt(stretched_.data(), room)) return true;
  }
  return false;
}

// Where the box cuts off what made d (D,) an error: longer ones, cut off likewise, and the shortest of them; in found_
// if it is shorter than `most`, in the point's unit.
bool Confirmation::along(const double* d, double most) {
  const auto at = [&](double factor) {
    for (Index k = 0; k < place_.dim; ++k) stretched_[static_cast<std::size_t>(k)] = d[k] * factor;
    return attempt(stretched_.data(), true);
  };
  double low = 0.0, high = 1.0;
  while (high < kLongest && !at(high)) {
    if (!(length(trial_.data()) < most)) return false;
    low = high;
    high *= kLonger;
  }
  if (!(high < kLongest)) return false;
  for (int k = 0; k < kBisections && high - low > 1e-9 * high; ++k) {
    const double middle = 0.5 * (low + high);
    (at(middle) ? high : low) = middle;
  }
  return length(found_.data()) < most;
}

// From an error, in found_, to the shortest one in the box if m were linear, and back to an error from there; whether
// that is shorter.
bool Confirmation::slide() {
  const std::vector<double> before(found_);
  std::vector<double> gradient(found_.size());
  for (std::size_t k = 0; k < found_.size(); ++k) moved_[k] = place_.x[k] + found_[k];
  double need = slope_(moved_.data(), gradient.data());
  for (std::size_t k = 0; k < found_.size(); ++k) need -= gradient[k] * found_[k];
  const double most = length(found_.data()) * (1.0 - 1e-6);
  if (cut_short(gradient, need) && along(direction_.data(), most)) return true;
  found_ = before;
  return false;
}

// direction_ = the shortest w in the box with <gradient, w> <= -need, which is -l gradient, cut off, for some l.
bool Confirmation::cut_short(const std::vector<double>& gradient, double need) {
  double square = 0.0;
  for (const double g : gradient) square += g * g;
  if (!(square > 0.0) || !(need > 0.0)) return false;
  const auto meets = [&](double l) {
    double sum = 0.0;
    for (Index k = 0; k < place_.dim; ++k) {
      const auto i = static_cast<std::size_t>(k);
      const bool still = place_.fixed != nullptr && place_.fixed[k] != 0;
      const double w = still ? 0.0 : -l * gradient[i], x = place_.x[k];
      direction_[i] = std::min(std::max(w, std::min(place_.low[k] - x, 0.0)), std::max(place_.high[k] - x, 0.0));
      sum += gradient[i] * direction_[i];
    }
    return sum <= -need;
  };
  double low = 0.0, high = need / square;
  for (; high < kLongest * need / square && !meets(high); high *= 2.0) low = high;
  for (int k = 0; k < kBisections; ++k) {
    const double middle = 0.5 * (low + high);
    (meets(middle) ? high : low) = middle;
  }
  if (!meets(high)) return false;
  const Shift shift(-place_.exponent);
  for (double& w : direction_) w = shift(w) / place_.size;
  return true;
}

// Whether d (D,), in the point's unit, is an error within the box; it is in found_ then.
bool Confirmation::attempt(const double* d, bool room) {
  bool any = false;
  cut_ = false;
  const Shift shift(place_.exponent);
  for (Index k = 0; k < place_.dim; ++k) {
    const auto i = static_cast<std::size_t>(k);
    trial_[i] = shift(d[k] * place_.size);
    // Own neurons are to be silent: on an axis that takes zeros, not numbers close to it.
    if (!room && std::abs(place_.e[k] + d[k]) <= kZero)
      trial_[i] = place_.centre == nullptr ? -place_.x[k] : centre(k) - place_.x[k];
    if (place_.fixed != nullptr && place_.fixed[k] != 0) trial_[i] = 0.0;
    if (place_.low != nullptr && !stay_inside(k)) return false;
    moved_[i] = place_.x[k] + trial_[i];
    any = any || trial_[i] != 0.0;
  }
  if (!any || !judge_(moved_.data(), room)) return false;
  found_ = trial_;
  return true;
}

// Brings a coordinate of trial_ to the box's side if it lies beyond; false if float64 cannot meet it.
bool Confirmation::stay_inside(Index k) {
  constexpr int kSteps = 4;  // of one unit in the last place; two are enough
  double& t = trial_[static_cast<std::size_t>(k)];
  const double x = place_.x[k], low = place_.low[k], high = place_.high[k];
  if (x + t < low || x + t > high) cut_ = true;
  if (x + t < low) t = low - x;
  if (x + t > high) t = high - x;
  for (int step = 0; step < kSteps && x + t < low; ++step) t = std::nextafter(t, kInfinity);
  for (int step = 0; step < kSteps && x + t > high; ++step) t = std::nextafter(t, -kInfinity);
  return x + t >= low && x + t <= high;
}

// The way to the centre, in found_ if it is an error within the box; its length.
double Confirmation::to_centre() {
  for (Index k = 0; k < place_.dim; ++k) {
    const auto i = static_cast<std::size_t>(k);
    trial_[i] = place_.centre == nullptr ? -place_.x[k] : centre(k) - place_.x[k];
    moved_[i] = place_.x[k] + trial_[i];
    if (place_.fixed != nullptr && place_.fixed[k] != 0 && trial_[i] != 0.0) return kInfinity;
    if (place_.low != nullptr && !(moved_[i] >= place_.low[k] && moved_[i] <= place_.high[k])) return kInfinity;
  }
  if (place_.centre != nullptr && !judge_(moved_.data(), false)) return kInfinity;  // x + (centre - x) is rounded
  found_ = trial_;
  return length(found_.data());
}

// In the point's unit; no square leaves float64.
double Confirmation::length(const double* w) const {
  const Shift shift(-place_.exponent);
  double square = 0.0;
  for (Index k = 0; k < place_.dim; ++k) {
    const double scaled = shift(w[k]);
    square += scaled * scaled;
  }
  return std::sqrt(square) / place_.size;
}

}  // namespace preluflow
