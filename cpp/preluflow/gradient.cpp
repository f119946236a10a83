#include "preluflow/gradient.hpp"

#include <algorithm>

namespace preluflow {

namespace {

constexpr Index kTile = 64;  // neurons of a tile

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// Calls row(i, z, value) for the rows of X, with z = U x_i and value scratch of the same length, in parallel blocks.
template <class T, class Block>
void for_row_blocks(const T* X, Index n, const Network<T>& net, int threads, const Block& block) {
  const Blocking blocks(n, net.width);
  parallel_for(threads, blocks.row_blocks, [&](Index b) {
    const Index begin = blocks.row_begin(b), rows = blocks.row_begin(b + 1) - begin;
    RowMatrix<T> Z(rows, net.width);
    Z.noalias() = ConstMatrixMap<T>(X + begin * net.dim, rows, net.dim) * net.directions().transpose();
    block(begin, Z);
  });
}

}  // namespace

Blocking::Blocking(Index n, Index h)
    : rows(n),
      width(h),
      row_blocks(ceil_div(n, kRows)),
      tiles(ceil_div(h, kTile)),
      groups(std::min(kStripe, ceil_div(n, 16))),
      few_rows(row_blocks < 4) {}

template <class T>
GradientKernel<T>::GradientKernel(Index max_rows, Index width, Index dim, int threads)
    : dim_(dim), threads_(threads), slot_loss_(Blocking::kStripe), G_(width, dim), s_(width) {
  P_.resize(std::min(max_rows, Blocking::kRows * Blocking::kStripe), width);
  values_.resize(Blocking::kStripe, width);
  slot_s_.resize(Blocking::kStripe, width);
  if (max_rows > Blocking::kRows * Blocking::kStripe * Blocking::kChunk) total_.resize(width, dim);
}

// z of `rows` rows from `row` on and `neurons` neurons from `neuron` on, into P_.
template <class T>
void GradientKernel<T>::product(const Batch& batch, Index stripe_row, Index row, Index rows, Index neuron,
                                Index neurons) {
  const ConstMatrixMap<T> X(batch.X + row * dim_, rows, dim_);
  P_.block(row - stripe_row, neuron, rows, neurons).noalias() =
      X * batch.net.directions().middleRows(neuron, neurons).transpose();
}

// z becomes r phi'(z) on `rows` rows from `row` on; f, and this slot's sums of r phi(z) and of the loss.
template <class T>
void GradientKernel<T>::activate(const Batch& batch, Index stripe_row, Index row, Index rows, Index slot) {
  const Index width = batch.net.width;
  RowArrayMap<T> value(values_.data() + slot * width, width);
  auto sums = slot_s_.row(slot).array();
  sums.setZero();
  double total = 0.0;
  for (Index i = row; i < row + rows; ++i) {
    RowArrayMap<T> z(P_.data() + (i - stripe_row) * width, width);
    const double fi = activation_.apply(z, value);
    const double r = loss_residual(batch.loss, batch.y[i], fi) / static_cast<double>(batch.n);
    total += loss_value(batch.loss, batch.y[i], fi);
    z *= static_cast<T>(r);
    sums += (value * static_cast<T>(r)).template cast<double>();
    if (batch.f != nullptr) batch.f[i] = fi;
  }
  slot_loss_[static_cast<std::size_t>(slot)] = total;
}

template <class T>
void GradientKernel<T>::forward_stripe(const Batch& batch, Index first_block, Index last_block) {
  const Blocking& blocks = batch.blocks;
  const Index stripe_row = blocks.row_begin(first_block);
  Index slots = last_block - first_block;
  if (!blocks.few_rows) {
    parallel_for(threads_, slots, [&](Index slot) {
      const Index row = blocks.row_begin(first_block + slot), rows = blocks.row_begin(first_block + slot + 1) - row;
      product(batch, stripe_row, row, rows, 0, blocks.width);
      activate(batch, stripe_row, row, rows, slot);
    });
  } else {
    parallel_for(threads_, blocks.tiles, [&](Index tile) {
      const Index neuron = blocks.tile_begin(tile);
      product(batch, stripe_row, 0, blocks.rows, neuron, blocks.tile_begin(tile + 1) - neuron);
    });
    slots = blocks.groups;
    parallel_for(threads_, slots, [&](Index slot) {
      const Index row = blocks.group_begin(slot);
      activate(batch, stripe_row, row, blocks.group_begin(slot + 1) - row, slot);
    });
  }
  for (Index slot = 0; slot < slots; ++slot) {
    s_ += slot_s_.row(slot).transpose();
    loss_sum_ += slot_loss_[static_cast<std::size_t>(slot)];
  }
}

// Adds a stripe to G of one tile. In T within a chunk; chunks are added in double, and the sum is rounded to T at the
// end.
template <class T>
void GradientKernel<T>::accumulate_tile(const Batch& batch, Index tile, Index first_block, Index last_block) {
  const Blocking& blocks = batch.blocks;
  const Index neuron = blocks.tile_begin(tile), neurons = blocks.tile_begin(tile + 1) - neuron;
  const Index row = blocks.row_begin(first_block), rows = blocks.row_begin(last_block) - row;
  const ConstMatrixMap<T> X(batch.X + row * dim_, rows, dim_);
  const auto P = P_.block(0, neuron, rows, neurons);
  auto G = G_.middleRows(neuron, neurons);
  constexpr Index kChunkBlocks = Blocking::kStripe * Blocking::kChunk;
  if (first_block % kChunkBlocks == 0)
    G.noalias() = P.transpose() * X;
  else
    G.noalias() += P.transpose() * X;

  const bool last = last_block == blocks.row_blocks;
  if (blocks.row_blocks <= kChunkBlocks || (!last && last_block % kChunkBlocks != 0)) return;
  auto total = total_.middleRows(neuron, neurons);
  if (last_block <= kChunkBlocks)
    total = G.template cast<double>();
  else
    total += G.template cast<double>();
  if (last) G = total.template cast<T>();
}

template <class T>
void forward(const T* X, Index n, const Network<T>& net, int threads, double* f) {
  RowActivation<T> activation;
  activation.set(net);
  for_row_blocks(X, n, net, threads, [&](Index begin, RowMatrix<T>& Z) {
    Eigen::Array<T, 1, Eigen::Dynamic> value(net.width);
    RowArrayMap<T> scratch(value.data(), net.width);
    for (Index i = 0; i < Z.rows(); ++i)
      f[begin + i] = activation.apply(RowArrayMap<T>(Z.row(i).data(), net.width), scratch);
  });
}

template <class T>
void input_gradient(const T* X, Index n, const Network<T>& net, int threads, double* f, T* gradient) {
  RowActivation<T> activation;
  activation.set(net);
  for_row_blocks(X, n, net, threads, [&](Index begin, RowMatrix<T>& Z) {
    Eigen::Array<T, 1, Eigen::Dynamic> value(net.width);
    RowArrayMap<T> scratch(value.data(), net.width);
    for (Index i = 0; i < Z.rows(); ++i) {
      RowArrayMap<T> row(Z.row(i).data(), net.width);
      f[begin + i] = activation.apply(row, scratch);
      activation.chain(row);
    }
    MatrixMap<T>(gradient + begin * net.dim, Z.rows(), net.dim).noalias() = Z * net.directions();
  });
}

template class GradientKernel<float>;
template class GradientKernel<double>;
template void forward<float>(const float*, Index, const Network<float>&, int, double*);
template void forward<double>(const double*, Index, const Network<double>&, int, double*);
template void input_gradient<float>(const float*, Index, const Network<float>&, int, double*, float*);
template void input_gradient<double>(const double*, Index, const Network<double>&, int, double*, double*);

}  // namespace preluflow
