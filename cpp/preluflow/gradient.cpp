#include "preluflow/gradient.hpp"

namespace preluflow {

namespace {

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

double flops(Index rows, Index width, Index dim) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(dim);
}

}  // namespace

template <class T>
GradientKernel<T>::GradientKernel(Index max_rows, const PanelLayout<T>& layout, Index outputs)
    : layout_(layout), outputs_(outputs), G_(layout), s_(layout.width * outputs), b_(outputs) {
  const Index rows = std::min(max_rows, kStripe), groups = ceil_div(rows, kGroup);
  P_.resize(rows, layout.padded());
  row_.resize(static_cast<std::size_t>(rows));
  values_.resize(groups, layout.padded());
  group_s_.resize(groups, layout.width);
  group_loss_.resize(static_cast<std::size_t>(groups));
  if (max_rows > kStripe * kChunk) total_.resize(static_cast<std::size_t>(layout.size()));
}

template <class T>
void GradientKernel<T>::start(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net) {
  plain_ = net.plain() && rows.weight == nullptr;
  s_.setZero();
  b_.setZero();
  if (plain_) {
    activation_.set(net.scalars);
  } else {
    activation_.set_activation(net.scalars);
    outer_.set(team, net.scalars, outputs_, layout_.padded());
    const Index groups = static_cast<Index>(group_loss_.size());
    group_values_.resize(static_cast<std::size_t>(groups * OuterLayer<T>::kRows * layout_.padded()));
    group_S_.resize(static_cast<std::size_t>(groups * outputs_ * layout_.padded()));
    group_b_.resize(groups, outputs_);
    kappa_.resize(row_.size(), 1.0);
    if (!net.inputs.as_they_are()) seen_.resize(P_.rows(), layout_.dim);
  }
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

// What the network sees of the rows of a stripe.
template <class T>
void GradientKernel<T>::see(Team& team, const Rows<T>& rows, const Inputs& inputs, Index begin, Index count) {
  team.parallel_for(ceil_div(count, kGroup), [&](Index group) {
    for (Index i = group * kGroup; i < std::min((group + 1) * kGroup, count); ++i) {
      T* seen = seen_.data() + i * layout_.dim;
      kappa_[static_cast<std::size_t>(i)] = inputs.see(rows.row(begin + i), rows.dim, seen);
      row_[static_cast<std::size_t>(i)] = seen;
    }
  });
}

// As activate(), for any network: z becomes kappa <R,v_.j> phi'(z).
template <class T>
void GradientKernel<T>::activate_general(const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss, double* f,
                                         Index begin, Index first, Index last, Index slot) {
  constexpr Index kRows = OuterLayer<T>::kRows;
  const Index padded = layout_.padded(), C = outputs_;
  T* values = group_values_.data() + slot * kRows * padded;
  T* S = group_S_.data() + slot * C * padded;
  std::fill_n(S, C * padded, T(0));
  group_b_.row(slot).setZero();
  std::vector<double> F(static_cast<std::size_t>(kRows * C)), residual(static_cast<std::size_t>(C));
  std::vector<T> R(static_cast<std::size_t>(kRows * C));
  double total = 0.0;
  for (Index i0 = first; i0 < last; i0 += kRows) {
    const Index count = std::min(kRows, last - i0);
    for (Index i = 0; i < count; ++i)
      activation_.transform(RowArrayMap<T>(P_.data() + (i0 + i) * padded, layout_.width),
                            RowArrayMap<T>(values + i * padded, layout_.width));
    outer_.outputs(values, count, F.data());
    for (Index i = 0; i < count; ++i) {
      const Index row = rows.at(begin + i0 + i);
      const double kappa = kappa_[static_cast<std::size_t>(i0 + i)];
      double* Fi = F.data() + i * C;
      for (Index c = 0; c < C; ++c) Fi[c] = kappa * Fi[c] + (net.output_bias == nullptr ? 0.0 : net.output_bias[c]);
      if (f != nullptr) std::copy_n(Fi, C, f + (begin + i0 + i) * C);
      if (loss == nullptr) continue;
      const double weight = rows.weight == nullptr ? 1.0 : rows.weight[row];
      total += weight * row_loss(*loss, rows.y + row * C, Fi, C, residual.data());
      for (Index c = 0; c < C; ++c) {
        const double r = weight * residual[static_cast<std::size_t>(c)] / count_;
        group_b_(slot, c) += r;
        R[static_cast<std::size_t>(i * C + c)] = static_cast<T>(kappa * r);
      }
    }
    if (loss != nullptr) outer_.back(values, R.data(), count, P_.data() + i0 * padded, S);
  }
  group_loss_[static_cast<std::size_t>(slot)] = total;
}

// Z = X U^T by tasks of a group of rows and a panel, block of rows by block, so that a block's inputs stay in cache for
// all panels, and two threads have rows of their own; then the elementwise part by groups of rows.
template <class T>
void GradientKernel<T>::forward_stripe(Team& team, const Rows<T>& rows, const PanelNetwork<T>& net, const Loss* loss,
                                       double* f, Index begin, Index end) {
  const Index count = end - begin, groups = ceil_div(count, kGroup), padded = layout_.padded();
  const auto packed = static_cast<std::size_t>(count * layout_.dim);
  if (loss != nullptr && want_G_ && packed_.size() < packed) packed_.resize(packed);
  if (net.inputs.as_they_are()) {
    for (Index i = 0; i < count; ++i) row_[static_cast<std::size_t>(i)] = rows.row(begin + i);
  } else {
    see(team, rows, net.inputs, begin, count);
  }
  const Index blocks = block_count(count, groups);
  team.parallel_for(groups * layout_.panels, [&](Index task) {
    const Index block = ((task / layout_.panels + 1) * blocks - 1) / groups, start = groups * block / blocks;
    const Index size = groups * (block + 1) / blocks - start, rest = task - start * layout_.panels;
    const Index panel = rest / size, first = (start + rest % size) * kGroup, last = std::min(first + kGroup, count);
    panel_product(net.U, panel, row_.data() + first, last - first, P_.data() + first * padded, padded);
  });
  team.parallel_for(groups, [&](Index group) {
    const Index first = group * kGroup, last = std::min(first + kGroup, count);
    if (plain_) {
      activate(rows, loss, f, begin, first, last, group);
    } else {
      activate_general(rows, net, loss, f, begin, first, last, group);
    }
    if (loss != nullptr && want_G_) pack(first, last, count);
  });
  if (loss == nullptr) return;
  for (Index group = 0; group < groups; ++group) {
    loss_sum_ += group_loss_[static_cast<std::size_t>(group)];
    if (plain_) {
      s_ += group_s_.row(group).transpose();
      continue;
    }
    b_ += group_b_.row(group).transpose();
    const T* S = group_S_.data() + group * outputs_ * padded;
    for (Index c = 0; c < outputs_; ++c)
      for (Index j = 0; j < layout_.width; ++j) s_(j * outputs_ + c) += static_cast<double>(S[c * padded + j]);
  }
}

// Into how many blocks the groups of a stripe of `count` rows are cut.
template <class T>
Index GradientKernel<T>::block_count(Index count, Index groups) const {
  constexpr Index kBytes = 1 << 19;  // of a block's inputs: half of L2, where there is as much as is usual
  const Index bytes = count * layout_.dim * static_cast<Index>(sizeof(T));
  return std::min(groups, std::max<Index>(2, ceil_div(bytes, kBytes)));
}

// Packs rows first .. last-1 of a stripe of `count`, which have just been read.
template <class T>
void GradientKernel<T>::pack(Index first, Index last, Index count) {
  for (Index run = 0; run < input_runs(); ++run)
    pack_rows(row_.data(), first, last, count, input_begin(run), input_begin(run + 1), packed_.data());
}

// Adds a stripe to a part of G: in T within a chunk of stripes; chunks are added in double, and rounded to T at the
// end.
template <class T>
void GradientKernel<T>::accumulate(Index panel, Index d0, Index d1, Index rows, Index stripe, Index stripes) {
  panel_outer(G_, panel, d0, d1, packed_.data(), rows, P_.data(), layout_.padded(), stripe % kChunk != 0);
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
  start(team, rows, net);
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
