#include "preluflow/robustness/min_norm_qp.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <vector>

namespace preluflow {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kRidge = 1e-13;  // on the diagonal: vectors of the active set may depend on each other
constexpr double kMet = 1e-12;    // an inequality is met within this share of the scale

class ActiveSet {
 public:
  ActiveSet(const Eigen::Ref<const MatrixXd>& M, const Eigen::Ref<const VectorXd>& e, double scale)
      : M_(M), e_(e), scale_(scale), w_(VectorXd::Zero(e.size())), barred_(static_cast<std::size_t>(e.size()), false) {}

  VectorXd solve(const VectorXd& start) {
    const Index count = e_.size();
    for (Index i = 0; i < std::min(count, start.size()); ++i) {
      if (!(start(i) > 0.0)) continue;
      w_(i) = start(i);
      active_.push_back(i);
    }
    if (!descend()) {
      w_.setZero();
      active_.clear();
    }
    multiply();
    for (Index step = 0; step < 3 * count + 8; ++step) {
      const Index next = most_violated();
      if (next < 0) break;
      active_.push_back(next);
      if (!descend() || !(w_(next) > 0.0)) barred_[static_cast<std::size_t>(next)] = true;
      multiply();
      if (w_.dot(Mw_) > 4.0 * scale_ * scale_) break;  // ||d||^2
    }
    return w_;
  }

 private:
  void multiply() {
    Mw_.setZero(e_.size());
    for (Index i : active_) Mw_ += w_(i) * M_.col(i);
  }

  Index most_violated() const {
    Index next = -1;
    double most = kMet * scale_;
    for (Index i = 0; i < e_.size(); ++i) {
      if (w_(i) > 0.0 || barred_[static_cast<std::size_t>(i)]) continue;
      const double short_by = e_(i) - Mw_(i);
      if (short_by > most) {
        most = short_by;
        next = i;
      }
    }
    return next;
  }

  // Solves for the active multipliers; those that would turn negative leave, one at a time at least. False if the
  // system has no solution in numbers.
  bool descend() {
    while (!active_.empty()) {
      const auto m = static_cast<Index>(active_.size());
      system_.resize(m, m);
      right_.resize(m);
      for (Index i = 0; i < m; ++i) {
        right_(i) = e_(at(i));
        for (Index j = 0; j <= i; ++j) system_(i, j) = M_(at(i), at(j));
        system_(i, i) += kRidge;
      }
      factors_.compute(system_);
      if (factors_.info() != Eigen::Success) return false;
      const VectorXd solution = factors_.solve(right_);
      if (!solution.allFinite()) return false;
      if (solution.minCoeff() > 0.0) {
        for (Index i = 0; i < m; ++i) w_(at(i)) = solution(i);
        return true;
      }
      double share = 1.0;
      for (Index i = 0; i < m; ++i)
        if (solution(i) <= 0.0) share = std::min(share, w_(at(i)) / std::max(w_(at(i)) - solution(i), 1e-300));
      std::vector<Index> kept;
      for (Index i = 0; i < m; ++i) {
        double& weight = w_(at(i));
        weight += share * (solution(i) - weight);
        if (weight > 1e-14 * scale_) {
          kept.push_back(at(i));
        } else {
          weight = 0.0;
        }
      }
      if (kept.size() == active_.size()) {  // rounding: never for ever
        w_(kept.back()) = 0.0;
        kept.pop_back();
      }
      active_ = std::move(kept);
    }
    return false;
  }

  Index at(Index i) const { return active_[static_cast<std::size_t>(i)]; }

  const Eigen::Ref<const MatrixXd>& M_;
  const Eigen::Ref<const VectorXd>& e_;
  double scale_;
  VectorXd w_, Mw_, right_;
  MatrixXd system_;
  Eigen::LLT<MatrixXd> factors_;
  std::vector<Index> active_;
  std::vector<bool> barred_;
};

}  // namespace

VectorXd min_norm_weights(const Eigen::Ref<const MatrixXd>& M, const Eigen::Ref<const VectorXd>& e, double scale,
                          const VectorXd& start) {
  return ActiveSet(M, e, scale).solve(start);
}

}  // namespace preluflow
