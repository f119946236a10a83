// The one hot kernel everything trains with: loss, outputs and gradient over (X, y), streamed over stripes of rows so
// that no n x h array exists.
//
//   z_ij = <x_i,u_j>     f_i = sum_j c_j phi(z_ij)     r_i = -(1/n) d loss / d f_i
//   G_j = sum_i r_i phi'(z_ij) x_i   (h, D)            s_j = sum_i r_i phi(z_ij)   (h,)
//
// (G, s) is free of the scale of theta; gradients in w, v or in log-polar coordinates are sums of the two (update.hpp).
//
// Of several outputs, or with biases, a centre, the normalised input, or weights of points
// (docs/mathematics.md#training-outputs), with R_i = -(weight_i/n) d loss / d F_i (C,), V_.j the output weights of
// neuron j and v_.j = V_.j / |V_.j| (1 for one output),
//
//   G_j = sum_i kappa_i <R_i,v_.j> phi'(z_ij) x'_i    s_jc = sum_i kappa_i R_ic phi(z_ij)    b_c = sum_i R_ic
//
// where x'_i is what the network sees of x_i (inputs.hpp), made anew for each stripe.
//
// Work is cut into tasks by n, h and D alone - groups of rows, panels of neurons, runs of inputs - each sum has a fixed
// order, and so bits do not depend on threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "preluflow/inputs.hpp"
#include "preluflow/loss.hpp"
#include "preluflow/network.hpp"
#include "preluflow/outer_layer.hpp"
#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

// Rows x_i of X, all of them or those an index names; with labels.
template <class T>
struct Rows {
  const T* X;       // (n, D)
  const double* y;  // (n, C), or null where no loss is asked for
  Index dim;
  const Index* index;  // (count,), or null for 0 .. count-1
  Index count;
  const double* weight = nullptr;  // (n,), whose mean over the data is 1; or null for 1

  Index at(Index i) const { return index == nullptr ? i : index[i]; }
  const T* row(Index i) const { return X + at(i) * dim; }
};

// A network whose directions are in panels; the scalars belong to whoever made it.
template <class T>
struct PanelNetwork {
  const PanelMatrix<T>& U;
  Network<T> scalars;                   // its U is used by input_gradient only; sign and log_abs_v are (h, C)
  Index outputs = 1;                    // C
  const double* output_bias = nullptr;  // (C,), or null
  Inputs inputs = {};

  // One output and none of the parts.
  bool plain() const { return outputs == 1 && output_bias == nullptr && inputs.as_they_are(); }
};

template <class T>
class GradientKernel {
 public:
  // The layout is that of what the network sees, D or D + 1 inputs.
  GradientKernel(Index max_rows, const PanelLayout<T>& layout, Index outputs = 1);

  // Mean loss; f (count, C) may be null. Writes G(), s() and b().
  double evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f) {
    return evaluate(team, rows, net, loss, f, [] { return true; }, [](Index, Index, Index, Index) {});
  }

  // The same. Before the last stripe goes into G, begin() is asked whether to go on: loss() and s() are complete then.
  // ready(part, panel, d0, d1) follows as soon as that part of G is complete, while it is in cache, on several threads.
  template <class Begin, class Ready>
  double evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f, const Begin& begin,
                  const Ready& ready);

  // Outputs only, f (count, C).
  void forward(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, double* f);

  // Calls body(part, panel, d0, d1) in parallel over all of (h, D).
  template <class Body>
  void for_parts(Team& team, const Body& body) const {
    const Index runs = input_runs();
    team.parallel_for(part_count(), [&](Index task) {  // all panels of a run, while its inputs are in cache
      const Index panel = task % layout_.panels, run = task / layout_.panels;
      body(panel * runs + run, panel, input_begin(run), input_begin(run + 1));
    });
  }
  Index part_count() const { return layout_.panels * input_runs(); }
  // Parts of a panel are panel * input_runs() .. + input_runs() - 1.
  Index input_runs() const { return (layout_.dim + kInputs - 1) / kInputs; }

  const PanelLayout<T>& layout() const { return layout_; }
  double loss() const { return loss_sum_ / count_; }
  PanelMatrix<T>& G() { return G_; }
  const Vector<double>& s() const { return s_; }  // (h, C)
  const Vector<double>& b() const { return b_; }  // (C,), of networks that are not plain or rows that have weights
  const OuterLayer<T>& outer() const { return outer_; }  // of the same, as it was evaluated
  // Whether G is wanted: without it only loss, s and b are made.
  void want_G(bool want) { want_G_ = want; }

  static constexpr Index kStripe = 256;  // rows whose P is kept

 private:
  static constexpr Index kGroup = 24;    // rows of a task
  static constexpr Index kInputs = 256;  // inputs of a task
  static constexpr Index kChunk = 32;    // stripes summed in T before they are added in double

  Index input_begin(Index run) const { return layout_.dim * run / input_runs(); }
  void start(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net);
  void forward_stripe(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss, double* f,
                      Index begin, Index end);
  Index block_count(Index count, Index groups) const;
  void see(Team& team, const Rows<T>& rows, const Inputs& inputs, Index begin, Index count);
  void activate(const Rows<T>& rows, const Loss* loss, double* f, Index begin, Index first, Index last, Index slot);
  void activate_general(const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss, double* f, Index begin,
                        Index first, Index last, Index slot);
  void pack(Index first, Index last, Index count);
  void accumulate(Index panel, Index d0, Index d1, Index rows, Index stripe, Index stripes);

  PanelLayout<T> layout_;
  Index outputs_;
  bool plain_ = true, want_G_ = true;
  RowMatrix<T> P_;             // (rows of a stripe, padded h): z, then r phi'(z)
  std::vector<const T*> row_;  // (rows of a stripe,)
  AlignedVector<T> packed_;    // the rows' inputs, in pieces of input runs
  RowMatrix<T> values_;        // (groups of a stripe, padded h): phi of the row at hand
  RowMatrix<double> group_s_;  // (groups of a stripe, h)
  std::vector<double> group_loss_;
  RowActivation<T> activation_;
  PanelMatrix<T> G_;
  std::vector<double> total_;  // laid out as G_, if there is more than one chunk
  Vector<double> s_;           // (h, C)
  Vector<double> b_;           // (C,)
  // Of networks that are not plain:
  OuterLayer<T> outer_;
  RowMatrix<T> seen_;              // (rows of a stripe, inputs seen)
  std::vector<double> kappa_;      // (rows of a stripe,)
  AlignedVector<T> group_values_;  // (groups of a stripe, rows at a time, padded h)
  AlignedVector<T> group_S_;       // (groups of a stripe, C, padded h)
  RowMatrix<double> group_b_;      // (groups of a stripe, C)
  double loss_sum_ = 0.0, count_ = 1.0;
};

template <class T>
template <class Begin, class Ready>
double GradientKernel<T>::evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f,
                                   const Begin& begin, const Ready& ready) {
  start(team, rows, net);
  const Index stripes = (rows.count + kStripe - 1) / kStripe;
  for (Index stripe = 0; stripe < stripes; ++stripe) {
    const Index first = stripe * kStripe, last = std::min(first + kStripe, rows.count);
    forward_stripe(team, rows, net, &loss, f, first, last);
    const bool complete = stripe + 1 == stripes;
    if (complete && !begin()) break;
    if (!want_G_) continue;
    for_parts(team, [&](Index part, Index panel, Index d0, Index d1) {
      accumulate(panel, d0, d1, last - first, stripe, stripes);
      if (complete) ready(part, panel, d0, d1);
    });
  }
  return this->loss();
}

// f (n,) of X (n, D).
template <class T>
void forward(const T* X, Index n, const PanelNetwork<T>& net, int threads, double* f);

// f (n,) and its gradient in x (n, D): sum_j c_j phi'(z_j) u_j (times ||w_j|| for tanh).
template <class T>
void input_gradient(const T* X, Index n, const PanelNetwork<T>& net, int threads, double* f, T* gradient);

}  // namespace preluflow
