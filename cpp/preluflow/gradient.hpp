// The one hot kernel everything trains with: loss, outputs and gradient over (X, y), streamed over row blocks so
// that no n x h array exists.
//
//   z_ij = <x_i,u_j>     f_i = sum_j c_j phi(z_ij)     r_i = -(1/n) d loss / d f_i
//   G_j = sum_i r_i phi'(z_ij) x_i   (h, D)            s_j = sum_i r_i phi(z_ij)   (h,)
//
// (G, s) is free of the scale of theta; gradients in w, v or in log-polar coordinates are sums of the two (update.hpp).
#pragma once

#include <algorithm>
#include <vector>

#include "preluflow/loss.hpp"
#include "preluflow/network.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

// How a problem is cut into tasks: functions of n and h alone, so that bits do not depend on threads.
//   rows     blocks of about 128, sixteen to a stripe; a stripe's P = r phi' is all that is ever kept of n x h
//   neurons  tiles of about 64: one task each in G += P^T X
// With few rows (a mini-batch) the blocks are too few to share out: then Z = X U^T is cut by tiles too, and the
// elementwise part by groups of rows.
struct Blocking {
  Blocking(Index n, Index h);

  Index row_begin(Index block) const { return rows * block / row_blocks; }
  Index tile_begin(Index tile) const { return width * tile / tiles; }
  Index group_begin(Index group) const { return rows * group / groups; }

  static constexpr Index kRows = 128;   // rows of a block
  static constexpr Index kStripe = 16;  // blocks of a stripe
  static constexpr Index kChunk = 4;    // stripes summed in T before they are added in double

  Index rows, width;
  Index row_blocks, tiles, groups;
  bool few_rows;
};

template <class T>
class GradientKernel {
 public:
  GradientKernel(Index max_rows, Index width, Index dim, int threads);

  // Mean loss over n <= max_rows rows; f (n,) may be null. Writes G() and s().
  double evaluate(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, double* f) {
    return evaluate(X, y, n, net, loss, f, [](Index, Index) {});
  }

  // The same; ready(begin, end) is called as soon as G and s of neurons begin .. end-1 are complete, on several
  // threads.
  template <class Ready>
  double evaluate(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, double* f,
                  const Ready& ready);

  const RowMatrix<T>& G() const { return G_; }
  const Vector<double>& s() const { return s_; }

 private:
  struct Batch {
    const T* X;
    const double* y;
    Index n;
    const Network<T>& net;
    Loss loss;
    double* f;
    Blocking blocks;
  };

  void forward_stripe(const Batch& batch, Index first_block, Index last_block);
  void product(const Batch& batch, Index stripe_row, Index row, Index rows, Index neuron, Index neurons);
  void activate(const Batch& batch, Index stripe_row, Index row, Index rows, Index slot);
  void accumulate_tile(const Batch& batch, Index tile, Index first_block, Index last_block);

  Index dim_;
  int threads_;
  RowMatrix<T> P_;            // (rows of one stripe, h): z, then r phi'(z)
  RowMatrix<T> values_;       // (kStripe, h): phi of the row at hand, one row per task
  RowMatrix<double> slot_s_;  // (kStripe, h)
  std::vector<double> slot_loss_;
  RowActivation<T> activation_;
  RowMatrix<T> G_;           // (h, D)
  RowMatrix<double> total_;  // (h, D) if there is more than one chunk
  Vector<double> s_;         // (h,)
  double loss_sum_ = 0.0;
};

template <class T>
template <class Ready>
double GradientKernel<T>::evaluate(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, double* f,
                                   const Ready& ready) {
  const Batch batch{X, y, n, net, loss, f, Blocking(n, net.width)};
  const Blocking& blocks = batch.blocks;
  activation_.set(net);
  s_.setZero();
  loss_sum_ = 0.0;
  for (Index first = 0; first < blocks.row_blocks; first += Blocking::kStripe) {
    const Index last = std::min(first + Blocking::kStripe, blocks.row_blocks);
    forward_stripe(batch, first, last);
    parallel_for(threads_, blocks.tiles, [&](Index tile) {
      accumulate_tile(batch, tile, first, last);
      if (last == blocks.row_blocks) ready(blocks.tile_begin(tile), blocks.tile_begin(tile + 1));
    });
  }
  return loss_sum_ / static_cast<double>(n);
}

// f (n,) of X (n, D).
template <class T>
void forward(const T* X, Index n, const Network<T>& net, int threads, double* f);

// f (n,) and its gradient in x (n, D): sum_j c_j phi'(z_j) u_j (times ||w_j|| for tanh).
template <class T>
void input_gradient(const T* X, Index n, const Network<T>& net, int threads, double* f, T* gradient);

}  // namespace preluflow
