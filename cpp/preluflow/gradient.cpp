#include "preluflow/gradient.hpp"

#include <algorithm>

namespace preluflow {

namespace {

constexpr Index kRowBlock = 128;
constexpr Index kTile = 64;

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
    : rows(n), width(h), row_blocks(ceil_div(n, kRowBlock)), tiles(ceil_div(h, kTile)) {}

template <class T>
GradientKernel<T>::GradientKernel(Index max_rows, Index width, Index dim, int threads)
    : dim_(dim), threads_(threads), block_loss_(Blocking::kStripe), G_(width, dim), s_(width) {
  P_.resize(std::min(max_rows, kRowBlock * Blocking::kStripe), width);
  values_.resize(Blocking::kStripe, width);
  chunk_.resize(width, dim);
  block_s_.resize(Blocking::kStripe, width);
}

template <class T>
void GradientKernel<T>::forward_block(const T* X, const double* y, Index n, const Network<T>& net, Loss loss,
                                      const Blocking& blocks, Index block, double* f) {
  const Index slot = block % Blocking::kStripe;
  const Index stripe_begin = blocks.row_begin(block - slot);
  const Index begin = blocks.row_begin(block), rows = blocks.row_begin(block + 1) - begin;
  MatrixMap<T> P(P_.data() + (begin - stripe_begin) * net.width, rows, net.width);
  P.noalias() = ConstMatrixMap<T>(X + begin * dim_, rows, dim_) * net.directions().transpose();

  RowArrayMap<T> value(values_.data() + slot * net.width, net.width);
  auto sums = block_s_.row(slot).array();
  sums.setZero();
  double total = 0.0;
  for (Index i = 0; i < rows; ++i) {
    RowArrayMap<T> row(P.data() + i * net.width, net.width);
    const double fi = activation_.apply(row, value);
    const double yi = y[begin + i];
    const double r = loss_residual(loss, yi, fi) / static_cast<double>(n);
    total += loss_value(loss, yi, fi);
    row *= static_cast<T>(r);
    sums += (value * static_cast<T>(r)).template cast<double>();
    if (f != nullptr) f[begin + i] = fi;
  }
  block_loss_[static_cast<std::size_t>(slot)] = total;
}

template <class T>
void GradientKernel<T>::accumulate_tile(const T* X, const Blocking& blocks, Index tile, Index first_block,
                                        Index last_block, bool start_chunk, bool end_chunk, bool start_total) {
  const Index begin = blocks.tile_begin(tile), neurons = blocks.tile_begin(tile + 1) - begin;
  const Index row = blocks.row_begin(first_block), rows = blocks.row_begin(last_block) - row;
  const ConstMatrixMap<T> P(P_.data(), rows, blocks.width);
  const ConstMatrixMap<T> stripe(X + row * dim_, rows, dim_);
  auto sum = chunk_.middleRows(begin, neurons);
  if (start_chunk) sum.setZero();
  sum.noalias() += P.middleCols(begin, neurons).transpose() * stripe;
  if (!end_chunk) return;
  auto total = G_.middleRows(begin, neurons);
  if (start_total)
    total = sum.template cast<double>();
  else
    total += sum.template cast<double>();
}

template <class T>
double GradientKernel<T>::evaluate(const T* X, const double* y, Index n, const Network<T>& net, Loss loss, double* f) {
  const Blocking blocks(n, net.width);
  activation_ = RowActivation<T>(net);
  s_.setZero();
  double total = 0.0;
  const Index stripes = ceil_div(blocks.row_blocks, Blocking::kStripe);
  for (Index stripe = 0; stripe < stripes; ++stripe) {
    const Index first = stripe * Blocking::kStripe;
    const Index last = std::min(first + Blocking::kStripe, blocks.row_blocks);
    parallel_for(threads_, last - first,
                 [&](Index slot) { forward_block(X, y, n, net, loss, blocks, first + slot, f); });
    const bool start_chunk = stripe % Blocking::kChunk == 0;
    const bool end_chunk = (stripe + 1) % Blocking::kChunk == 0 || stripe + 1 == stripes;
    parallel_for(threads_, blocks.tiles, [&](Index tile) {
      accumulate_tile(X, blocks, tile, first, last, start_chunk, end_chunk, stripe < Blocking::kChunk);
    });
    for (Index slot = 0; slot < last - first; ++slot) {
      s_ += block_s_.row(slot).transpose();
      total += block_loss_[static_cast<std::size_t>(slot)];
    }
  }
  return total / static_cast<double>(n);
}

template <class T>
void forward(const T* X, Index n, const Network<T>& net, int threads, double* f) {
  const RowActivation<T> activation(net);
  for_row_blocks(X, n, net, threads, [&](Index begin, RowMatrix<T>& Z) {
    Eigen::Array<T, 1, Eigen::Dynamic> value(net.width);
    RowArrayMap<T> scratch(value.data(), net.width);
    for (Index i = 0; i < Z.rows(); ++i)
      f[begin + i] = activation.apply(RowArrayMap<T>(Z.row(i).data(), net.width), scratch);
  });
}

template <class T>
void input_gradient(const T* X, Index n, const Network<T>& net, int threads, double* f, T* gradient) {
  const RowActivation<T> activation(net);
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
