// The one hot kernel everything trains with: loss, outputs and gradient over (X, y), streamed over row blocks so
// that no n x h array exists.
//
//   z_ij = <x_i,u_j>     f_i = sum_j c_j phi(z_ij)     r_i = -(1/n) d loss / d f_i
//   G_j = sum_i r_i phi'(z_ij) x_i   (h, D)            s_j = sum_i r_i phi(z_ij)   (h,)
//
// (G, s) is free of the scale of theta; gradients in w, v or in log-polar coordinates are sums of the two
// (descent.cpp).
#pragma once

#include <vector>

#include "preluflow/loss.hpp"
#include "preluflow/network.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

// Boundaries of the blocks: functions of the problem alone, so that bits do not depend on threads.
struct Blocking {
  Blocking(Index n, Index h);

  Index row_begin(Index block) const { return rows * block / row_blocks; }
  Index tile_begin(Index tile) const { return width * tile / tiles; }

  Index rows, width;
  Index row_blocks;                     // blocks of about 128 rows
  Index tiles;                          // tiles of about 64 neurons
  static constexpr Index kStripe = 16;  // row blocks between two rounds of G += P^T X
  static constexpr Index kChunk = 4;    // stripes summed in T before they are added in double
};

template <class T>
class GradientKernel {
 public:
  GradientKernel(Index max_rows, Index width, Index dim, int threads);

  // Mean loss; f (n,) may be null. Writes gradient() and activation_sums().
  double evaluate(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, double* f);

  const RowMatrix<double>& G() const { return G_; }
  const Vector<double>& s() const { return s_; }

 private:
  // Z = X U^T on one block of rows, activations, residuals; leaves P = r phi' in P_.
  void forward_block(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, const Blocking& blocks,
                     Index block, double* f);
  void accumulate_tile(const T* X, const Blocking& blocks, Index tile, Index first_block, Index last_block,
                       bool start_chunk, bool end_chunk, bool start_total);

  Index dim_;
  int threads_;
  RowMatrix<T> P_;             // (rows of one stripe, h)
  RowMatrix<T> values_;        // (kStripe, h): phi of the row at hand, one row per block
  RowMatrix<T> chunk_;         // (h, D)
  RowMatrix<double> block_s_;  // (kStripe, h)
  std::vector<double> block_loss_;
  RowActivation<T> activation_;
  RowMatrix<double> G_;  // (h, D)
  Vector<double> s_;     // (h,)
};

// f (n,) of X (n, D).
template <class T>
void forward(const T* X, Index n, const Network<T>& net, int threads, double* f);

// f (n,) and its gradient in x (n, D): sum_j c_j phi'(z_j) u_j (times ||w_j|| for tanh).
template <class T>
void input_gradient(const T* X, Index n, const Network<T>& net, int threads, double* f, T* gradient);

}  // namespace preluflow
