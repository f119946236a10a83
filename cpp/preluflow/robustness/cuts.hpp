// A descent that kinks do not stop. sigma^p lies above its tangents, so with every rival's term replaced by a tangent
// of it, wherever that touches, m can only grow: M >= m, and M is convex. The shortest d with M(x + d) <= 0 is an error
// of m, and it is found by cutting planes: M is at least its own linear parts at the points looked at, and the shortest
// d for which all of these are <= 0 is that of a small quadratic program (docs/mathematics.md#attack).
#pragma once

#include <Eigen/Core>
#include <vector>

#include "preluflow/robustness/pair.hpp"
#include "preluflow/robustness/ray.hpp"

namespace preluflow {

class CutSearch {
 public:
  using Row = Scaled::Row;

  CutSearch(const Neurons& net, const Frame& frame)
      : net_(net), frame_(frame), c_(net.width), slope_(net.width), at_(frame.size(), net.width) {}

  // The shortest d with M(x + d) <= 0, nearly; false if it is not shorter than `limit`. `contact` (h,) are the values
  // at which rivals' tangents touch, `start` is a first d. The result may not quite be an error: m is looked at along
  // it again.
  bool run(const RayMargin& margin, const Row& contact, const Ray& start, double limit, Ray& result);

 private:
  struct Cut {
    Ray normal;     // of length 1
    double excess;  // <normal, d> <= -excess
  };

  void set_tangents(const RayMargin& margin, const Row& contact);
  bool cut(const RayMargin& margin);
  void solve(double limit);
  double product(const Ray& a, const Ray& b) const;

  const Neurons& net_;
  const Frame& frame_;
  Row c_;                  // (h,) of the gradient of M at at_
  Row slope_;              // (h,) of rivals' tangents, negative
  double constant_ = 0.0;  // of the tangents
  Ray at_;                 // d
  std::vector<Cut> cuts_;
  std::size_t used_ = 0;  // of cuts_
  Eigen::MatrixXd M_;     // (cuts, cuts) products of normals
  Eigen::VectorXd excess_, weights_;
};

}  // namespace preluflow
