// The one hot kernel everything trains with: loss, outputs and gradient over (X, y), streamed over stripes of rows so
// that no n x h array exists.
//
//   z_ij = <x_i,u_j>     f_i = sum_j c_j phi(z_ij)     r_i = -(1/n) d loss / d f_i
//   G_j = sum_i r_i phi'(z_ij) x_i   (h, D)            s_j = sum_i r_i phi(z_ij)   (h,)
//
// (G, s) is free of the scale of theta; gradients in w, v or in log-polar coordinates are sums of the two (update.hpp).
//
// Work is cut into tasks by n, h and D alone - groups of rows, panels of neurons, runs of inputs - each sum has a fixed
// order, and so bits do not depend on threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "preluflow/loss.hpp"
#include "preluflow/network.hpp"
#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

// Rows x_i of X, all of them or those an index names; with labels.
template <class T>
struct Rows {
  const T* X;       // (n, D)
  const double* y;  // (n,), or null where no loss is asked for
  Index dim;
  const Index* index;  // (count,), or null for 0 .. count-1
  Index count;

  Index at(Index i) const { return index == nullptr ? i : index[i]; }
  const T* row(Index i) const { return X + at(i) * dim; }
};

// A network whose directions are in panels; the scalars belong to whoever made it.
template <class T>
struct PanelNetwork {
  const PanelMatrix<T>& U;
  Network<T> scalars;  // its U is used by input_gradient only
};

template <class T>
class GradientKernel {
 public:
  GradientKernel(Index max_rows, const PanelLayout<T>& layout);

  // Mean loss; f (count,) may be null. Writes G() and s().
  double evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f) {
    return evaluate(team, rows, net, loss, f, [] { return true; }, [](Index, Index, Index, Index) {});
  }

  // The same. Before the last stripe goes into G, begin() is asked whether to go on: loss() and s() are complete then.
  // ready(task, panel, d0, d1) follows as soon as that part of G is complete, while it is in cache, on several threads.
  template <class Begin, class Ready>
  double evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f, const Begin& begin,
                  const Ready& ready);

  // Outputs only, f (count,).
  void forward(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, double* f);

  // Calls body(task, panel, d0, d1) in parallel over all of (h, D).
  template <class Body>
  void for_parts(Team& team, const Body& body) const {
    const Index runs = input_runs();
    team.parallel_for(part_count(), [&](Index task) {
      const Index panel = task / runs, run = task % runs;
      body(task, panel, layout_.dim * run / runs, layout_.dim * (run + 1) / runs);
    });
  }
  Index part_count() const { return layout_.panels * input_runs(); }
  // Parts of a panel are tasks panel * input_runs() .. + input_runs() - 1.
  Index input_runs() const { return (layout_.dim + kInputs - 1) / kInputs; }

  const PanelLayout<T>& layout() const { return layout_; }
  double loss() const { return loss_sum_ / count_; }
  PanelMatrix<T>& G() { return G_; }
  const Vector<double>& s() const { return s_; }

  static constexpr Index kStripe = 256;  // rows whose P is kept

 private:
  static constexpr Index kGroup = 24;    // rows of a task
  static constexpr Index kInputs = 256;  // inputs of a task
  static constexpr Index kChunk = 32;    // stripes summed in T before they are added in double

  void start(const Rows<T>& rows, const PanelNetwork<T>& net);
  void forward_stripe(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss, double* f,
                      Index begin, Index end);
  void activate(const Rows<T>& rows, const Loss* loss, double* f, Index begin, Index first, Index last, Index slot);
  void accumulate(Index panel, Index d0, Index d1, Index rows, Index stripe, Index stripes);

  PanelLayout<T> layout_;
  RowMatrix<T> P_;             // (rows of a stripe, padded h): z, then r phi'(z)
  std::vector<const T*> row_;  // (rows of a stripe,)
  RowMatrix<T> values_;        // (groups of a stripe, padded h): phi of the row at hand
  RowMatrix<double> group_s_;  // (groups of a stripe, h)
  std::vector<double> group_loss_;
  RowActivation<T> activation_;
  PanelMatrix<T> G_;
  std::vector<double> total_;  // laid out as G_, if there is more than one chunk
  Vector<double> s_;           // (h,)
  double loss_sum_ = 0.0, count_ = 1.0;
};

template <class T>
template <class Begin, class Ready>
double GradientKernel<T>::evaluate(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, Loss loss, double* f,
                                   const Begin& begin, const Ready& ready) {
  start(rows, net);
  const Index stripes = (rows.count + kStripe - 1) / kStripe;
  for (Index stripe = 0; stripe < stripes; ++stripe) {
    const Index first = stripe * kStripe, last = std::min(first + kStripe, rows.count);
    forward_stripe(team, rows, net, &loss, f, first, last);
    const bool complete = stripe + 1 == stripes;
    if (complete && !begin()) break;
    for_parts(team, [&](Index task, Index panel, Index d0, Index d1) {
      accumulate(panel, d0, d1, last - first, stripe, stripes);
      if (complete) ready(task, panel, d0, d1);
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
