#include "preluflow/gradient.hpp"

namespace preluflow {

namespace {

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

double flops(Index rows, Index width, Index dim) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(dim);
}

}  // namespace

template <class T>
GradientKernel<T>::GradientKernel(Index max_rows, const PanelLayout<T>& layout)
    : layout_(layout), G_(layout), s_(layout.width) {
  const Index rows = std::min(max_rows, kStripe), groups = ceil_div(rows, kGroup);
  P_.resize(rows, layout.padded());
  row_.resize(static_cast<std::size_t>(rows));
  values_.resize(groups, layout.padded());
  group_s_.resize(groups, layout.width);
  group_loss_.resize(static_cast<std::size_t>(groups));
  if (max_rows > kStripe * kChunk) total_.resize(static_cast<std::size_t>(layout.size()));
}

template <class T>
void GradientKernel<T>::start(const Rows<T>& rows, const PanelNetwork<T>& net) {
  activation_.set(net.scalars);
  s_.setZero();
  loss_sum_ = 0.0;
  count_ = static_cast<double>(rows.count);
}

// z becomes r phi'(z) in rows first .. last-1 of the stripe that begins at row `begin`; f, and this group's sums of
// r phi(z) and of the loss. Without a loss only f.
template <class T>
void GradientKernel<T>::activate(const Rows<T>& rows, const Loss* loss, double* f, Index begin, Index first, Index last,
                                 Index slot) {
  RowArrayMap<T> value(values_.data() + slot * layout_.padded(), layout_.width);
  auto sums = group_s_.row(slot).array();
  sums.setZero();
  double total = 0.0;
  for (Index i = first; i < last; ++i) {
    RowArrayMap<T> z(P_.data() + i * layout_.padded(), layout_.width);
    const double fi = activation_.apply(z, value);
    if (f != nullptr) f[begin + i] = fi;
    if (loss == nullptr) continue;
    const double yi = rows.y[rows.at(begin + i)];
    const T r = static_cast<T>(loss_residual(*loss, yi, fi) / count_);
    total += loss_value(*loss, yi, fi);
    z *= r;
    sums += (value * r).template cast<double>();
  }
  group_loss_[static_cast<std::size_t>(slot)] = total;
}

// Z = X U^T by tasks of a group of rows and a panel; then the elementwise part by groups of rows.
template <class T>
void GradientKernel<T>::forward_stripe(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss,
                                       double* f, Index begin, Index end) {
  const Index count = end - begin, groups = ceil_div(count, kGroup), padded = layout_.padded();
  for (Index i = 0; i < count; ++i) row_[static_cast<std::size_t>(i)] = rows.row(begin + i);
  team.parallel_for(groups * layout_.panels, [&](Index task) {
    const Index panel = task / groups, first = task % groups * kGroup, last = std::min(first + kGroup, count);
    panel_product(net.U, panel, row_.data() + first, last - first, P_.data() + first * padded, padded);
  });
  team.parallel_for(groups, [&](Index group) {
    const Index first = group * kGroup;
    activate(rows, loss, f, begin, first, std::min(first + kGroup, count), group);
  });
  if (loss == nullptr) return;
  for (Index group = 0; group < groups; ++group) {
    s_ += group_s_.row(group).transpose();
    loss_sum_ += group_loss_[static_cast<std::size_t>(group)];
  }
}

// Adds a stripe to a part of G: in T within a chunk of stripes; chunks are added in double, and rounded to T at the
// end.
template <class T>
void GradientKernel<T>::accumulate(Index panel, Index d0, Index d1, Index rows, Index stripe, Index stripes) {
  panel_outer(G_, panel, d0, d1, row_.data(), rows, P_.data(), layout_.padded(), stripe % kChunk != 0);
  const bool complete = stripe + 1 == stripes;
  if (stripes <= kChunk || (!complete && (stripe + 1) % kChunk != 0)) return;
  const Index lanes = layout_.panel_lanes(panel);
  T* sum = G_.panel(panel) + d0 * lanes;
  double* total = total_.data() + layout_.offset(panel) + d0 * lanes;
  const bool first = stripe < kChunk;
  for (Index k = 0; k < (d1 - d0) * lanes; ++k) total[k] = (first ? 0.0 : total[k]) + static_cast<double>(sum[k]);
  if (complete)
    for (Index k = 0; k < (d1 - d0) * lanes; ++k) sum[k] = static_cast<T>(total[k]);
}

template <class T>
void GradientKernel<T>::forward(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, double* f) {
  start(rows, net);
  for (Index begin = 0; begin < rows.count; begin += kStripe)
    forward_stripe(team, rows, net, nullptr, f, begin, std::min(begin + kStripe, rows.count));
}

template <class T>
void forward(const T* X, Index n, const PanelNetwork<T>& net, int threads, double* f) {
  const PanelLayout<T>& layout = net.U.layout();
  Team::run(threads, flops(n, layout.width, layout.dim), [&](Team& team) {
    GradientKernel<T> kernel(n, layout);
    kernel.forward(team, {X, nullptr, layout.dim, nullptr, n}, net, f);
  });
}

template <class T>
void input_gradient(const T* X, Index n, const PanelNetwork<T>& net, int threads, double* f, T* gradient) {
  constexpr Index kBlock = 128;
  const PanelLayout<T>& layout = net.U.layout();
  const Index width = layout.width, dim = layout.dim, padded = layout.padded();
  RowActivation<T> activation;
  activation.set(net.scalars);
  const Index blocks = ceil_div(n, kBlock);
  Team::run(blocks == 1 ? 1 : threads, 2.0 * flops(n, width, dim), [&](Team& team) {
    team.parallel_for(blocks, [&](Index block) {
      const Index begin = n * block / blocks, rows = n * (block + 1) / blocks - begin;
      RowMatrix<T> Z(rows, padded), value(1, padded), product(rows, dim);
      const T* row[kBlock];
      for (Index i = 0; i < rows; ++i) row[i] = X + (begin + i) * dim;
      for (Index panel = 0; panel < layout.panels; ++panel) panel_product(net.U, panel, row, rows, Z.data(), padded);
      RowArrayMap<T> scratch(value.data(), width);
      for (Index i = 0; i < rows; ++i) {
        RowArrayMap<T> z(Z.data() + i * padded, width);
        f[begin + i] = activation.apply(z, scratch);
        activation.chain(z);
      }
      // Eigen rounds small products differently at differently aligned destinations; its own memory is always aligned.
      product.noalias() = Z.leftCols(width) * net.scalars.directions();
      MatrixMap<T>(gradient + begin * dim, rows, dim) = product;
    });
  });
}

template class GradientKernel<float>;
template class GradientKernel<double>;
template void forward<float>(const float*, Index, const PanelNetwork<float>&, int, double*);
template void forward<double>(const double*, Index, const PanelNetwork<double>&, int, double*);
template void input_gradient<float>(const float*, Index, const PanelNetwork<float>&, int, double*, float*);
template void input_gradient<double>(const double*, Index, const PanelNetwork<double>&, int, double*, double*);

}  // namespace preluflow
