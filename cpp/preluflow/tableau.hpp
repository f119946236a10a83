// Explicit Runge-Kutta methods as data. With K_m the field at stage m and theta in [0, 1] the share of a step h:
//
//   stage i < s        y + h sum_{m<i} a_im K_m
//   new state          y + h sum_{m<s} b_m K_m             K_s is the field there, and K_0 of the next step
//   error estimate     h sum_{m<=s} e_m K_m                (two rows for DOP853, combined as Hairer does)
//   dense output       y + h sum_m (sum_d P_md theta^(d+1)) K_m, over K_0 .. K_s and further stages made for it
#pragma once

#include <string>
#include <vector>

namespace preluflow {

struct Tableau {
  std::string name;
  int order;
  int control_order;  // order of the error estimate in h; 0: none, steps are fixed
  int dense_order;
  std::vector<std::vector<double>> a;      // rows i = 1 .. s-1, i entries each
  std::vector<double> b;                   // (s,)
  std::vector<std::vector<double>> e;      // rows of s + 1 entries
  std::vector<std::vector<double>> more;   // stages s + 1, ... for dense output
  std::vector<std::vector<double>> dense;  // P (stages, degree)
  bool stabilized = false;                 // give way to chebyshev_tableau() where stability holds steps short

  int stages() const { return static_cast<int>(b.size()); }
  int all_stages() const { return static_cast<int>(dense.size()); }
};

const std::vector<Tableau>& tableaus();
// The method of that name; throws std::invalid_argument if there is none.
const Tableau& find_tableau(const std::string& name);

// Hermite's cubic through the ends of a step, as dense output: P of the weights b.
std::vector<std::vector<double>> hermite(const std::vector<double>& b);

// Runge-Kutta-Chebyshev of order 2 (Sommeijer, Shampine, Verwer, 1998, J. Comput. Appl. Math. 88:315-326; damping 2/13)
// with so many stages, from kLeastStages to kMostStages, and dense output by cubic Hermite interpolation. Its stability
// polynomial stays within 1 on [-chebyshev_interval(stages), 0], which grows with the square of the stages.
constexpr int kLeastStages = 3, kMostStages = 40;
const Tableau& chebyshev_tableau(int stages);
double chebyshev_interval(int stages);

}  // namespace preluflow
