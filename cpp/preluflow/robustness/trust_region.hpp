// A tighter certified radius of m(x) = sum_j side_j a_j phi(<x,u_j> + o_j) where the tangent form of tangent.hpp is
// loose.
//
// On a ball of radius r, -m(x + d) = sum_j -side_j a_j phi(z_j + <u_j,d>) is bounded above by a quadratic: each term is
// by one in <u_j,d>, on its range [z_j - r ||u_j||, z_j + r ||u_j||]. It touches phi at a contact c; above a rival it
// has the largest curvature found on the range, below an own neuron the least. The maximum over the ball of the sum, c0
// + <b,d> + d^T Q d, is below 0, and r certified, if for some l > max(lambda_max(Q), 0)
//
//   c0 + l r^2 + b^T (l - Q)^-1 b / 4 < 0                              (S-lemma; nothing is lost in this step)
//
// Contacts are searched for: from the values at the witness, where the bound is exact if that is the nearest error, to
// the best for the mixture of the maximisers so far. Where one direction bends too much the ball is cut into slabs
// across it. If m is homogeneous the same may be said on the slice <y,x> = ||x||^2 of the cone over the ball, a ball of
// radius tan(asin(r/||x||)) ||x|| in which neurons aligned with x do not move: exact for orthogonal neurons. A
// radius counts once its bound, rounding added, is below 0. (docs/mathematics.md#trust-region and what follows it.)
#pragma once

#include <memory>
#include <vector>

#include "preluflow/interrupt.hpp"
#include "preluflow/robustness/ball_maximum.hpp"
#include "preluflow/robustness/pair.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// The neurons in coordinates of an orthonormal basis of their span. A view.
struct Span {
  const double* directions;  // (h, rank)
  Index rank;
  double slack;  // of <u_j,d> for a unit vector d, where ||u_j|| <= 1; times ||u_j|| where it is longer
};

// A point in the span, in its own unit (Point), and a pair of classes as it sees it: contributions relative to the
// largest term that speaks for the first class at the point; values and contributions already moved against that class
// by what float64 may have done.
struct SpanPoint {
  // x (rank,) the part of the point that lies in the span; `reach`: no perturbation is longer. False if nothing speaks
  // for the first class there.
  bool set(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
           double reach = 1.0);

  Eigen::VectorXd x;      // (rank,)
  Eigen::VectorXd z;      // (h,) values of own neurons lowered, of rivals raised
  Eigen::VectorXd a;      // (h,) 0 for an own neuron that is left out, infinite for what is beyond float64
  Eigen::VectorXd doubt;  // (h,) of a tanh's a, absolute; 0 for powers, whose a is moved already
  std::vector<bool> own;  // (h,)
  double extent = 0.0;    // max |z_j|
  // The norm's term norm_weight ||x + d||^(2 norm_power) of m, and how long x is across the span, at most.
  double length = 0.0, norm_weight = 0.0, norm_power = 0.0, across = 0.0;

 private:
  double level(const Neurons& net, const Pair& pair, const Point& point) const;
  void set_norm(const Neurons& net, const Span& span, const Pair& pair, const Point& point, double most);
};

// How a certificate was found.
struct Trace {
  enum class Form { none, slice, flat };
  Form form = Form::none;  // which one the radius is of
  Index radii = 0;         // tried
  Index rounds = 0;        // of moving contacts
  Index factorisations = 0;
};

// The memory of the certificate's two forms, which searches for radii of one network use one after the other.
class CertifierSpaces {
 public:
  struct Space {
    Space(Index rank, Index width) : quadratic(rank, width), maximum(rank) {}
    Quadratic quadratic;
    BallMaximum maximum;
  };
  Space& of(Trace::Form form, Index rank, Index width) {
    std::unique_ptr<Space>& space = form == Trace::Form::slice ? slice_ : flat_;
    if (!space || space->quadratic.b.size() != rank || space->quadratic.bend.size() != width)
      space = std::make_unique<Space>(rank, width);
    return *space;
  }

 private:
  std::unique_ptr<Space> slice_, flat_;
};

// x (rank,): the part of the point that lies in the span. d (rank,): a witness of this pair, or of another: only its
// direction matters, and it may be 0. Raises `lower`, in the point's unit, towards `limit`, beyond which no radius is
// asked for; ends at (1 - tolerance) limit. False if it was asked to stop.
bool tighten(const Neurons& net, const Span& span, const Pair& pair, const Point& point, const double* x,
             const double* d, double limit, double tolerance, const Interrupt& interrupt, CertifierSpaces& spaces,
             double& lower, Trace* trace = nullptr);

}  // namespace preluflow
