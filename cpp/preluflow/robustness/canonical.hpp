// The canonical form of a two-layer network: the margin of class y against class c is
//
//   m(x) = sum_j side_j a_j phi(<x',u_j> + o_j) + norm_side w ||x'||^(p-1),      x' = x - center
//
// with directions that all pairs of classes share (docs/mathematics.md#canonical). What is done to get there: constants
// out of output biases; coordinates that an adversary cannot touch moved from u_j into o_j; neurons of one direction
// and offset merged; directions of powers made unit vectors. A network of one output is one of two classes, 0 where f <
// 0 and 1 where f > 0.
#pragma once

#include <memory>
#include <vector>

#include "preluflow/evaluate.hpp"
#include "preluflow/robustness/groups.hpp"
#include "preluflow/robustness/pair.hpp"
#include "preluflow/robustness/trust_region.hpp"

namespace preluflow {

// A number as sign e^log, known within a factor 1 +- doubt. One that is a weight as it was given says of which size of
// neurons (`origin`) and what its logarithm was (`given`): two of these cancel exactly.
struct SignedLog {
  double sign = 0.0, log = 0.0, doubt = 0.0;
  Index origin = -1;  // of a sum
  double given = 0.0;

  bool opposes(const SignedLog& other) const {
    return sign == -other.sign && origin >= 0 && origin == other.origin && given == other.given;
  }
};
SignedLog operator-(const SignedLog& a);
SignedLog operator+(const SignedLog& a, const SignedLog& b);

// A pair and what it points at.
// A contribution that is known badly, since others cancelled in it, is as small as it may be for the first class in
// `pair`, which certificates and the attack see, and as large in `generous`, which witnesses must hold against.
struct PairData {
  std::vector<double> log_a, side, doubt;
  std::vector<double> generous_log_a, generous_side;
  Pair pair{}, generous{};
  std::unique_ptr<Groups> groups;
};

class Canonical {
 public:
  // `fixed` (D,): 1 where the adversary cannot touch a coordinate; null: nowhere. The view's arrays must outlive this.
  Canonical(Team& team, const GeneralNetwork<double>& net, const std::uint8_t* fixed);

  Index dim() const { return dim_; }
  Index width() const { return neurons_.width; }
  Index classes() const { return classes_; }
  const GeneralNetwork<double>& network() const { return net_; }
  const Neurons& neurons() const { return neurons_; }
  const double* directions() const { return U_.data(); }  // (h, D)
  const double* center() const { return net_.center; }
  // Whether the centre itself, x' = 0, is an error of a point of class y against c, or of any: by homogeneity; or, with
  // normalised input, where the sum is 0 by definition, by the output biases.
  bool errs_at_centre(Index y, Index c) const;
  bool errs_at_centre(Index y) const;
  bool jumps_at_centre() const { return net_.normalized(); }
  bool has_norm_term() const { return !biases_.empty(); }

  // Values: <x',value row_j> + offset_j.
  const PanelMatrix<double>& value_panels() const { return value_panels_; }
  // Perturbations: sum_j c_j u_j.
  const PanelMatrix<double>& input_panels() const { return input_panels_; }
  const std::vector<double>& offsets() const { return offsets_; }  // (h,)
  const std::vector<double>& value_lengths() const { return value_lengths_; }
  double largest_offset() const { return largest_offset_; }  // but for constants
  double slack() const { return slack_; }                    // of <x,u> for unit vectors

  // Makes what brackets of points of these classes need; before pair() and by one thread at a time.
  void prepare(Team& team, const std::vector<Index>& labels);
  const PairData& pair(Index y, Index c) const { return *pairs_[static_cast<std::size_t>(y * classes_ + c)]; }

  // An orthonormal basis of the directions' span (rank, D), and the neurons in it; made when first asked for.
  void prepare_span(Team& team);
  const Span& span() const { return span_; }
  const std::vector<double>& basis() const { return basis_; }

 private:
  void gather(const std::uint8_t* fixed);
  void merge_equal();
  void add_up(const std::vector<std::size_t>& which);
  void tell_equal_sums(const std::vector<std::size_t>& which, std::vector<SignedLog>& sum) const;
  void merge_near();
  void add_constant();
  void keep(const std::vector<Index>& which);
  void finish(Team& team);
  std::unique_ptr<PairData> make_pair(Index y, Index c) const;
  double log_lipschitz(const PairData& data) const;

  GeneralNetwork<double> net_;
  Index dim_, classes_;
  bool any_fixed_ = false, merged_near_ = false;
  std::vector<double> U_, values_;  // (h, D); values_ is empty where it is U_
  std::vector<double> offsets_, value_lengths_, lengths_;
  std::vector<std::vector<SignedLog>> coefficients_;  // (h) (C)
  std::vector<double> gram_;
  std::vector<double> basis_, coordinates_;
  PanelMatrix<double> value_panels_, input_panels_;
  Neurons neurons_{};
  Span span_{};
  double slack_ = 0.0, doubt_ = 0.0, largest_offset_ = 0.0;
  std::vector<SignedLog> biases_;  // (C,) of ||x'||^(p-1), normalised input
  std::vector<std::unique_ptr<PairData>> pairs_;
};

}  // namespace preluflow
