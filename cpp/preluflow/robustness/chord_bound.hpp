// What branch and bound proves about one node: a range of <u_k, x + d> + o_k for every rival k.
//
// Within it sigma^p, which is convex, lies below its chord, and the own side above its tangents, so errors of the node
// satisfy linear inequalities, one for each tangent of the own side, and those of the ranges
// (docs/mathematics.md#branch-and-bound). Tangents are shared by all nodes of a search.
#pragma once

#include <vector>

#include "preluflow/robustness/half_spaces.hpp"
#include "preluflow/robustness/node.hpp"
#include "preluflow/robustness/sides.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

class ChordBound {
 public:
  ChordBound(const Sides& sides, double p, double span_slack, Index rank);

  Node root(double reach) const;  // all that is within reach

  // Ranges of the other rivals, given that of one and ||d|| <= reach; false if nothing is left
  // (docs/mathematics.md#narrowing).
  bool narrow(Node& node, Index rival, double reach) const;

  // Bounds a node from below, adding tangents until they add nothing; `enough` is all that is asked. Leaves the
  // shortest d that was not excluded behind, and ways to move inside of all inequalities.
  void bound(Node& node, double reach, double enough);
  const Eigen::VectorXd& shortest() const { return d_; }
  Eigen::VectorXd inside(double margin, double reach) const;

  // Chooses where to cut a node: at the shortest d, along the rival whose chord is farthest from its sigma^p there; one
  // that may dominate at its kink first. False if it cannot be cut.
  bool choose_cut(Node& node, double reach) const;

  double own(const Eigen::VectorXd& d) const { return sides_.own.value(d, p_); }
  double rivals(const Eigen::VectorXd& d) const { return sides_.rival.value(d, p_); }
  double start() const { return start_; }  // the own side at x

 private:
  // Two planes below the own side at x + d, everywhere: <gradient, d> + value <= sum a sigma^p, and
  // <root_gradient, d> + root_value <= (sum a sigma^p)^(1/p) (docs/mathematics.md#any-values).
  struct Plane {
    Eigen::VectorXd gradient, root_gradient;
    double value = 0.0, size = 0.0, root_value = 0.0, root_size = 0.0;  // size: sum of absolute terms within reach
  };

  // What the rivals add up to in a node, at most: of each base + slant t, of all <gradient, d> + value.
  struct Chords {
    Eigen::VectorXd gradient, slant, base;
    double value = 0.0, size = 0.0;
    double most = 0.0;    // the sum's largest value
    bool active = false;  // some rival may be
    bool bounded = true;  // none of those that may be is huge: only then the above means anything
  };

  Index add_tangent(const Eigen::VectorXd& d, double reach);
  void set_chords(const Node& node, double reach);
  void add_ranges(const Node& node, double reach);
  bool add(const Eigen::VectorXd& c, double e, double size, double reach);
  bool add_cut(const Cut& cut, double reach);
  void keep_cuts(Node& node, const std::vector<Cut>& used, Index ranges);

  const Sides& sides_;
  double p_;
  Index rank_;
  double unit_;  // what float64 may have done to a value, relative to its terms
  double start_;
  Eigen::MatrixXd cosines_;  // (rivals, rivals)
  std::vector<Plane> tangents_;
  Chords chords_;
  HalfSpaces spaces_;
  Eigen::VectorXd d_, weights_;
};

}  // namespace preluflow
