// A perturbation that the attack found becomes a witness: a float64 vector w for which x + w is an error as the network
// itself evaluates it, and with room for rounding if possible (docs/mathematics.md#rounding-witness).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "preluflow/types.hpp"

namespace preluflow {

// Whether `moved` (D,), the float64 sum x + w, is an error: as the public evaluation has it, and besides, with `room`,
// in real numbers, or, without it, because no own neuron is active there. The centre of a homogeneous network is one
// either way.
using Judge = std::function<bool(const double* moved, bool room)>;

// m, up to rounding, and its gradient (D,) at `moved` (D,), in one unit.
using Slope = std::function<double(const double* moved, double* gradient)>;

// Where a witness is looked for. A view.
struct Place {
  const double* x;  // (D,) the point, as it was given
  Index dim;        // D
  // The point's unit of length is size 2^exponent, so that no square leaves float64; e = (x - centre) in that unit.
  const double* e;  // (D,)
  double size;
  int exponent;
  double slack;                         // how far off a value may be, in the unit
  bool homogeneous;                     // the centre is an error, at this distance
  double length;                        // in the unit
  const double* directions;             // (h, D) rows u_j
  Index width;                          // h
  const double* offsets = nullptr;      // (h,) o_j in the unit; null: 0
  const double* centre = nullptr;       // (D,) null: 0
  const double* low = nullptr;          // (D,) the box that x + w must stay in, which x is in; null: none
  const double* high = nullptr;         // (D,)
  const std::uint8_t* fixed = nullptr;  // (D,) coordinates of w that must be 0; null: none
};

class Confirmation {
 public:
  // With `slope`, a witness that the box has cut off is shortened along the box's sides.
  Confirmation(const Place& place, const Judge& judge, const Slope& slope = {});

  // A witness (D,) near d (D,), which is in the point's unit; its length in that unit, infinite if there is none.
  // It is lengthened by as little as it takes. If that is more than a tenth it becomes the way to the centre, or where
  // that is no error, up to four times as long.
  double run(const double* d, double* witness);

 private:
  bool stretch(const double* amounts, int count, double unit, bool relative, bool room);
  bool push_off_corners(bool room);
  bool along(const double* d, double most);
  bool slide();
  bool cut_short(const std::vector<double>& gradient, double need);
  bool attempt(const double* d, bool room);
  bool stay_inside(Index k);
  double to_centre();
  double length(const double* w) const;
  double centre(Index k) const { return place_.centre == nullptr ? 0.0 : place_.centre[k]; }

  const Place& place_;
  const Judge& judge_;
  const Slope slope_;
  const double* d_ = nullptr;
  bool cut_ = false;                                       // whether the box changed the last trial
  std::vector<double> stretched_, trial_, moved_, found_;  // (D,)
  std::vector<double> direction_;                          // (D,) along the box, in the point's unit
};

}  // namespace preluflow
