// Whether -m < 0 on a ball around a point: quadratic bounds, their largest value, and contacts that move until it is
// below 0.
#pragma once

#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/robustness/ball_maximum.hpp"
#include "preluflow/robustness/contacts.hpp"
#include "preluflow/robustness/majorant.hpp"

namespace preluflow {

// One form of the certificate, a view of the neurons: tries radii.
class Certifier {
 public:
  // x, d in the view's unit: the point, and a witness of which the direction counts.
  Certifier(const Neurons& net, const Span& span, const SpanPoint& point, View view, Eigen::VectorXd x,
            const Eigen::VectorXd& d, const Interrupt& interrupt, CertifierSpaces::Space& space);

  // Whether the ball holds no error, after at most so many rounds of moving contacts.
  bool ball(double radius, int most_rounds);
  // The same by slabs across the direction in which the first ball's bound bends most (docs/mathematics.md#slabs). What
  // of a ball was proved to hold no error does not hold one of smaller balls: it is not looked at again.
  // Halves of a slab begin anew, from the witness, or with the contacts of the whole.
  bool slabs(double radius, int most_rounds, int most_slabs, bool anew);

  // A radius at which the bound may be 0, from the last ball tried; 0: not known.
  double estimate() const;
  bool stopped() const { return stopped_; }
  Index factorisations() const { return maximum_.factorisations() - factorised_before_; }
  Index rounds() const { return rounds_; }

 private:
  // A part of the ball between two planes: low <= <along,d> <= high.
  struct Part {
    double low, high;
    double l, mu;             // where the search for multipliers begins
    double holds_none = 0.0;  // the largest radius for which it was proved to hold no error
    Moments moments{};        // of `mixed` maximisers so far
    int mixed = 0;
  };

  bool move_contacts(double radius, const Slab& slab, int most_rounds, int& mixed, Moments& moments);
  bool from_zero(double radius);
  bool cut(double radius);
  void join(double radius, int few);
  bool part(double radius, Part& here, int most_rounds);
  void slab_ranges(double radius, const Slab& slab);
  double square(const Eigen::VectorXd& d, double across) const;

  const Neurons& net_;
  const SpanPoint& point_;
  const Interrupt& interrupt_;
  View view_;
  Eigen::VectorXd x_, towards_;  // (rank,) the point, and a unit vector towards the witness
  Eigen::VectorXd move_;         // (h,) <column_j, towards>
  Majorant majorant_;
  Quadratic& quadratic_;
  BallMaximum& maximum_;
  Index factorised_before_;
  Contacts contacts_;
  Ranges ranges_;
  Moments moments_;  // of the whole ball, of `mixed_` maximisers so far
  int mixed_ = 0;
  Eigen::VectorXd along_, cosines_;  // of slabs: a unit vector, and <column_j, along>
  std::vector<Part> parts_;          // whose union is everything: the ball's ends are its own
  double radius_ = 0.0, l_ = 0.0, bound_ = 0.0;
  Index rounds_ = 0;
  bool stopped_ = false;
};

}  // namespace preluflow
