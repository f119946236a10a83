// The margin along rays from a point, m(x + t d), t > 0: its sign, where that changes, its gradient. Everything is in
// inner products (pair.hpp), and up to a positive factor (docs/mathematics.md#attack).
#pragma once

#include "preluflow/robustness/linear_algebra.hpp"
#include "preluflow/robustness/pair.hpp"

namespace preluflow {

// A perturbation d = (what the frame holds) + share x, and what it does to the values.
struct Ray {
  using Row = Scaled::Row;

  Ray(Index frame, Index width) : d(frame), dz(width) {}

  Row d;               // (frame_size,)
  Row dz;              // (h,) <d, u_j>
  double share = 0.0;  // of x; 0 where m has no norm's term
  double onto = 0.0;   // <d, x>, likewise

  Ray& operator*=(double factor) {
    d *= factor;
    dz *= factor;
    share *= factor;
    onto *= factor;
    return *this;
  }
  Ray& operator/=(double factor) {
    d /= factor;
    dz /= factor;
    share /= factor;
    onto /= factor;
    return *this;
  }
};

Index frame_size(const Neurons& net);  // rank or h: of a perturbation in the network's coordinates, or over its neurons

// Perturbations as numbers: their coordinates where the network has them, else their coefficients over the neurons,
// whose Gram matrix knows small differences of neurons by their squares only.
class Frame {
 public:
  explicit Frame(const Neurons& net)
      : rows_(net.rows, net.rank > 0 ? net.width : 0, net.rank), gram_(net.gram, net.width, net.width) {}

  Index size() const { return rows_.rows() > 0 ? rows_.cols() : gram_.rows(); }

  // The point's x, for a margin with a norm's term; without one, null.
  void at(const Point* point) { point_ = point; }

  // ray = sum_j c_j u_j + share x
  void of_neurons(const Ray::Row& c, double share, Ray& ray) const {
    if (rows_.rows() > 0) {
      combine(rows_, c, ray.d);
    } else {
      ray.d = c;
    }
    ray.share = share;
    follow(ray);
  }

  // dz and onto of d and share.
  void follow(Ray& ray) const {
    if (rows_.rows() > 0) {
      ray.dz = (ray.d.matrix() * rows_.transpose()).array();
    } else {
      combine(gram_, ray.d, ray.dz);
    }
    if (point_ == nullptr) return;
    const Eigen::Map<const Ray::Row> products(point_->products, gram_.rows());
    ray.onto = onto_x(ray) + ray.share * point_->length * point_->length;
    ray.dz += ray.share * products;
  }

  // ||d||^2, of a ray that is followed
  double square(const Ray& ray) const {
    if (point_ == nullptr) return rows_.rows() > 0 ? ray.d.square().sum() : (ray.d * ray.dz).sum();
    // ||part + share x||^2, part being what the frame holds; 0 where they cancel and rounding is all that is left
    constexpr double kCancelled = 1e-4;
    const double share = ray.share, length = point_->length;
    double part = ray.d.square().sum();
    if (rows_.rows() == 0) {
      const Eigen::Map<const Ray::Row> products(point_->products, gram_.rows());
      part = (ray.d * (ray.dz - share * products)).sum();
    }
    const double total = part + share * (2.0 * ray.onto - share * length * length);
    return total > kCancelled * (part + share * share * length * length) ? total : 0.0;
  }

 private:
  // out = sum_j c_j (row j of M), over the c_j that are not 0: at a point most neurons are silent.
  static void combine(const ConstMatrixMap<double>& M, const Ray::Row& c, Ray::Row& out) {
    constexpr Index kRows = 8;  // at a time
    Index row[kRows], count = 0;
    double weight[kRows];
    out.setZero();
    for (Index j = 0; j < M.rows(); ++j) {
      if (c(j) == 0.0) continue;
      row[count] = j;
      weight[count++] = c(j);
      if (count < kRows) continue;
      add_rows(M, row, weight, count, out);
      count = 0;
    }
    add_rows(M, row, weight, count, out);
  }

  double onto_x(const Ray& ray) const {  // <part, x>
    const double* x = rows_.rows() > 0 ? point_->x : point_->products;
    return (ray.d * Eigen::Map<const Ray::Row>(x, ray.d.size())).sum();
  }

  ConstMatrixMap<double> rows_, gram_;
  const Point* point_ = nullptr;
};

// The margin seen from one point after another.
class RayMargin {
 public:
  using Row = Scaled::Row;

  // Multiples of the limit at which a ray is looked at.
  static constexpr int kMultiples = 12;

  explicit RayMargin(const Neurons& net) : net_(net), scaled_(net.width), z_(net.width), slack_(net.width) {}

  // False where nothing speaks for the point's class: m <= 0 there.
  bool set(const Pair& pair, const Point& point);

  const Scaled& scaled() const { return scaled_; }
  const Row& z() const { return z_; }

  // The norm's term where it is a constant, p = 1; whether it is, or there is none.
  double constant() const { return norm_.side == 0.0 ? 0.0 : norm_.side * std::exp(norm_.log); }
  bool norm_is_constant() const { return norm_.side == 0.0 || norm_.power == 0.0; }

  // m(x + t d) up to a positive factor, raised by what rounding may take off it; d of length 1.
  double value(const Ray& ray, double t) const;

  // A small t in (0, limit] at which m changes sign, from the far side; infinite if none is found.
  double crossing(const Ray& ray, double limit, int multiples) const;

  // The same at any distance, of which `near` is a first guess.
  double far_crossing(const Ray& ray, double near) const;

  // The coefficients over the neurons of -grad m / p at x + t d, up to a positive factor, and that of x + d itself.
  // `blur` averages slopes over +-blur t: over a kink.
  void gradient(const Ray& ray, double t, double blur, Row& c, double& share) const;

  // Coefficients likewise, of the gradient at x of tanh(flat z), for which saturated neurons count as well.
  void flat_gradient(double flat, Row& c) const;

  // Whether m <= 0 at x + t d with own values lowered by so many units of slack: a corner, if own neurons die there.
  bool silent(const Ray& ray, double t, double units) const;

  // ||grad m|| t for a t at which m would be 0 if it were linear, given the gradient's length: a first guess of the
  // radius, at least `least`.
  double guess(double gradient, double least) const;

 private:
  struct NormTerm {
    double log;    // of its weight, relative to the scaled contributions; meaningless where side is 0
    double side;   // +-1, or 0: there is none
    double power;  // p - 1
  };

  // ||x + t d||^2, at least what rounding leaves of it: m is no error in the centre for want of digits.
  double square(const Ray& ray, double t) const {
    constexpr double kDigits = 1e-15;
    const double x2 = length_ * length_;
    return std::max(x2 + t * (2.0 * ray.onto + t), kDigits * (x2 + t * t));
  }
  double norm_term(const Ray& ray, double t) const {
    return norm_.side == 0.0 ? 0.0 : norm_.side * std::exp(norm_log(square(ray, t)));
  }
  double norm_log(double square) const {
    return norm_.power > 0.0 ? norm_.log + 0.5 * norm_.power * std::log(square) : norm_.log;
  }
  void set_scale(bool any_own, const Point& point);
  double by_logs(const Ray& ray, double t) const;
  double general_by_logs(const Ray& ray, double t) const;
  double of_tanh(const Ray& ray, double t) const;
  void gradient_by_logs(const Ray& ray, double t, Row& c, double& share) const;
  int deaths(const Ray& ray, double limit, double* probes) const;
  double between_signs(const Ray& ray, double low, double at_low, double high, double at_high) const;

  const Neurons& net_;
  const Pair* pair_ = nullptr;
  Scaled scaled_;
  Row z_, slack_;
  NormTerm norm_{};
  double length_ = 1.0;  // ||x||
  double noise_ = 0.0;   // share of the terms' sizes that a sum of them may be wrong by
};

}  // namespace preluflow
