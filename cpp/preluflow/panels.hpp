// The layout and the two small products everything hot is made of.
//
// A matrix over (neuron, input) is kept in panels: vectors of `lanes` neurons, up to kVectors of them side by side, and
// within a panel the inputs one after another, so that a SIMD lane is a neuron:
//
//   Z = X U^T    rows of X are broadcast, panels of U are loaded     (no packing, rows may lie anywhere in memory)
//   G = P^T X    rows of P are loaded, entries of X are broadcast    (a stripe of X is packed once for all panels)
//
// Both hold kBroadcasts x kVectors accumulators in registers. Lanes beyond the last neuron are zero.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "preluflow/types.hpp"

namespace preluflow {

#if defined(__AVX512F__)
constexpr Index kVectorBytes = 64;
#elif defined(__AVX__)
constexpr Index kVectorBytes = 32;
#else
constexpr Index kVectorBytes = 16;
#endif

// Accumulators must fit the register file: 32 registers with AVX-512 and on ARM, 16 otherwise.
#if defined(__AVX512F__) || defined(__aarch64__) || defined(_M_ARM64)
constexpr int kBroadcasts = 8;
#else
constexpr int kBroadcasts = 4;
#endif
#if defined(__AVX__) || defined(__aarch64__) || defined(_M_ARM64)
constexpr int kVectors = 3;
#else
constexpr int kVectors = 2;
#endif

#if defined(__GNUC__)
template <class T>
struct Simd {
  static constexpr Index lanes = kVectorBytes / static_cast<Index>(sizeof(T));
  typedef T V __attribute__((vector_size(kVectorBytes)));
  static V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static void store(T* p, const V& v) { std::memcpy(p, &v, sizeof v); }
};
#else
// Without vector extensions: an array the compiler may vectorise.
template <class T>
struct Simd {
  static constexpr Index lanes = kVectorBytes / static_cast<Index>(sizeof(T));
  struct V {
    T lane[lanes];
    V& operator+=(const V& o) {
      for (Index k = 0; k < lanes; ++k) lane[k] += o.lane[k];
      return *this;
    }
    V& operator-=(const V& o) {
      for (Index k = 0; k < lanes; ++k) lane[k] -= o.lane[k];
      return *this;
    }
    friend V operator-(V a, const V& b) { return a -= b; }
    friend V operator*(const V& a, T b) {
      V c;
      for (Index k = 0; k < lanes; ++k) c.lane[k] = a.lane[k] * b;
      return c;
    }
    friend V operator*(const V& a, const V& b) {
      V c;
      for (Index k = 0; k < lanes; ++k) c.lane[k] = a.lane[k] * b.lane[k];
      return c;
    }
  };
  static V load(const T* p) {
    V v;
    std::memcpy(v.lane, p, sizeof v.lane);
    return v;
  }
  static void store(T* p, const V& v) { std::memcpy(p, v.lane, sizeof v.lane); }
};
#endif

// How h neurons are cut into panels: a function of h and the instruction set alone.
template <class T>
struct PanelLayout {
  static constexpr Index lanes = Simd<T>::lanes;

  PanelLayout() = default;
  PanelLayout(Index width_, Index dim_)
      : width(width_), dim(dim_), vectors((width_ + lanes - 1) / lanes), panels((vectors + kVectors - 1) / kVectors) {}

  Index padded() const { return vectors * lanes; }  // h rounded up to whole vectors
  Index vector_begin(Index panel) const { return vectors * panel / panels; }
  Index panel_vectors(Index panel) const { return vector_begin(panel + 1) - vector_begin(panel); }
  Index neuron_begin(Index panel) const { return vector_begin(panel) * lanes; }
  Index panel_lanes(Index panel) const { return panel_vectors(panel) * lanes; }
  static constexpr Index panel_lanes_max() { return kVectors * lanes; }
  Index panel_of(Index j) const { return ((j / lanes + 1) * panels - 1) / vectors; }
  Index offset(Index panel) const { return neuron_begin(panel) * dim; }  // of entry (first neuron, first input)
  Index size() const { return padded() * dim; }

  Index width = 0, dim = 0, vectors = 0, panels = 0;
};

// A (h, D) matrix in panels.
template <class T>
class PanelMatrix {
 public:
  PanelMatrix() = default;
  explicit PanelMatrix(const PanelLayout<T>& layout)
      : layout_(layout), data_(static_cast<std::size_t>(layout.size())) {}
  explicit PanelMatrix(const ConstMatrixMap<T>& rows) : PanelMatrix(PanelLayout<T>(rows.rows(), rows.cols())) {
    each([&](Index j, Index d, T& entry) { entry = rows(j, d); });
  }

  // Entry (j, d) lies at row(j)[d * stride(j)]; the neurons of one vector lie side by side.
  T* row(Index j) { return data_.data() + row_offset(j); }
  const T* row(Index j) const { return data_.data() + row_offset(j); }
  Index stride(Index j) const { return layout_.panel_lanes(layout_.panel_of(j)); }

  const PanelLayout<T>& layout() const { return layout_; }
  T* panel(Index k) { return data_.data() + layout_.offset(k); }
  const T* panel(Index k) const { return data_.data() + layout_.offset(k); }
  void swap(PanelMatrix& other) noexcept { data_.swap(other.data_); }

  // Row-major copy, (h, D).
  void copy_to(T* out) const {
    const Index dim = layout_.dim;
    const_cast<PanelMatrix*>(this)->each([&](Index j, Index d, T& entry) { out[j * dim + d] = entry; });
  }

 private:
  Index row_offset(Index j) const {
    const Index k = layout_.panel_of(j);
    return layout_.offset(k) + j - layout_.neuron_begin(k);
  }

  template <class F>
  void each(const F& f) {
    for (Index k = 0; k < layout_.panels; ++k) {
      const Index begin = layout_.neuron_begin(k), lanes = layout_.panel_lanes(k);
      const Index end = std::min(begin + lanes, layout_.width);
      constexpr Index kLine = 16;  // inputs at a time, so that what is read of a row is read at once
      for (Index d0 = 0; d0 < layout_.dim; d0 += kLine)
        for (Index j = begin; j < end; ++j)
          for (Index d = d0; d < std::min(d0 + kLine, layout_.dim); ++d) f(j, d, panel(k)[d * lanes + j - begin]);
    }
  }

  PanelLayout<T> layout_;
  AlignedVector<T> data_;  // so that no vector straddles two cache lines
};

// The accumulators stay in registers only if the compiler unrolls every loop over them.
#if defined(__clang__)
#define PRELUFLOW_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define PRELUFLOW_UNROLL _Pragma("GCC unroll 8")
#else
#define PRELUFLOW_UNROLL
#endif

namespace detail {

// z[i * stride ...] (+)= sum_{d in [d0, d1)} x_i[d] u[d] for B rows x_i and V vectors of neurons.
template <class T, int B, int V>
void product_tile(const T* const* x, Index d0, Index d1, const T* u, T* z, Index stride, bool add) {
  using S = Simd<T>;
  typename S::V sum[B][V];
  const T* row[B];
  PRELUFLOW_UNROLL
  for (int b = 0; b < B; ++b) {
    row[b] = x[b];
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) sum[b][v] = typename S::V{};
  }
  for (Index d = d0; d < d1; ++d) {
    typename S::V uv[V];
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) uv[v] = S::load(u + (d * V + v) * S::lanes);
    PRELUFLOW_UNROLL
    for (int b = 0; b < B; ++b) {
      const T xb = row[b][d];
      PRELUFLOW_UNROLL
      for (int v = 0; v < V; ++v) sum[b][v] += uv[v] * xb;
    }
  }
  if (add) {
    PRELUFLOW_UNROLL
    for (int b = 0; b < B; ++b) {
      PRELUFLOW_UNROLL
      for (int v = 0; v < V; ++v) sum[b][v] += S::load(z + b * stride + v * S::lanes);
    }
  }
  PRELUFLOW_UNROLL
  for (int b = 0; b < B; ++b) {
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) S::store(z + b * stride + v * S::lanes, sum[b][v]);
  }
}

// g[b * V * lanes ...] (+)= sum_i x[i * B + b] p_i for the B inputs of a piece; p has `stride` entries a row.
template <class T, int B, int V>
void outer_tile(const T* x, Index rows, const T* p, Index stride, T* g, bool add) {
  using S = Simd<T>;
  typename S::V sum[B][V];
  PRELUFLOW_UNROLL
  for (int b = 0; b < B; ++b) {
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) sum[b][v] = typename S::V{};
  }
  for (Index i = 0; i < rows; ++i) {
    typename S::V pv[V];
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) pv[v] = S::load(p + i * stride + v * S::lanes);
    const T* xi = x + i * B;
    PRELUFLOW_UNROLL
    for (int b = 0; b < B; ++b) {
      const T xb = xi[b];
      PRELUFLOW_UNROLL
      for (int v = 0; v < V; ++v) sum[b][v] += pv[v] * xb;
    }
  }
  if (add) {
    PRELUFLOW_UNROLL
    for (int b = 0; b < B; ++b) {
      PRELUFLOW_UNROLL
      for (int v = 0; v < V; ++v) sum[b][v] += S::load(g + (b * V + v) * S::lanes);
    }
  }
  PRELUFLOW_UNROLL
  for (int b = 0; b < B; ++b) {
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) S::store(g + (b * V + v) * S::lanes, sum[b][v]);
  }
}

// Calls body(integral_constant<B>, begin) over [begin, end) in pieces of kBroadcasts, then of halves of it down to 1.
template <int B, class Body>
Index in_pieces(Index begin, Index end, const Body& body) {
  for (; begin + B <= end; begin += B) body(std::integral_constant<int, B>{}, begin);
  if constexpr (B > 1) begin = in_pieces<B / 2>(begin, end, body);
  return begin;
}

template <class Body>
void with_vectors(Index vectors, const Body& body) {
  if constexpr (kVectors >= 3)
    if (vectors == 3) return body(std::integral_constant<int, 3>{});
  if (vectors == 2) return body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 1>{});
}

}  // namespace detail

// Z[:, panel] of `rows` rows x_i (pointers to D entries) into z (rows, stride). Inputs go in runs of kRun, which keeps
// a run of the panel in the nearest cache and the sums short.
template <class T>
void panel_product(const PanelMatrix<T>& U, Index panel, const T* const* x, Index rows, T* z, Index stride) {
  constexpr Index kRun = 256;
  const Index dim = U.layout().dim;
  T* out = z + U.layout().neuron_begin(panel);
  detail::with_vectors(U.layout().panel_vectors(panel), [&](auto V) {
    for (Index d = 0; d < dim; d += kRun)
      detail::in_pieces<kBroadcasts>(0, rows, [&](auto B, Index i) {
        detail::product_tile<T, B.value, V.value>(x + i, d, std::min(d + kRun, dim), U.panel(panel), out + i * stride,
                                                  stride, d > 0);
      });
  });
}

// Where pieces of inputs of `rows` rows lie when they are packed for panel_outer: piece [d, d + B) from entry d * rows
// on, row after row. From rows of X itself each would begin a page of its own, where no processor fetches ahead.
template <class T>
void pack_rows(const T* const* x, Index first, Index last, Index rows, Index d0, Index d1, T* packed) {
  detail::in_pieces<kBroadcasts>(d0, d1, [&](auto B, Index d) {
    T* out = packed + d * rows + first * B.value;
    for (Index i = first; i < last; ++i, out += B.value) std::memcpy(out, x[i] + d, B.value * sizeof(T));
  });
}

// G[panel, d0 .. d1) (+)= P^T X over `rows` rows packed in pieces of [d0, d1), with P (rows, stride).
template <class T>
void panel_outer(PanelMatrix<T>& G, Index panel, Index d0, Index d1, const T* packed, Index rows, const T* P,
                 Index stride, bool add) {
  constexpr Index kRun = 64;  // rows whose entries of one run of inputs stay in the nearest cache
  const Index lanes = G.layout().panel_lanes(panel);
  const T* p = P + G.layout().neuron_begin(panel);
  detail::with_vectors(G.layout().panel_vectors(panel), [&](auto V) {
    for (Index i = 0; i < rows; i += kRun)
      detail::in_pieces<kBroadcasts>(d0, d1, [&](auto B, Index d) {
        detail::outer_tile<T, B.value, V.value>(packed + d * rows + i * B.value, std::min(kRun, rows - i),
                                                p + i * stride, stride, G.panel(panel) + d * lanes, add || i > 0);
      });
  });
}

// Whether all of v (n,) are finite, at the speed of reading them: 0 times what is not is NaN, and stays in a sum.
template <class T>
bool all_finite(const T* v, Index n) {
  using S = Simd<T>;
  constexpr int kSums = 8;
  typename S::V sum[kSums]{};
  Index i = 0;
  for (; i + kSums * S::lanes <= n; i += kSums * S::lanes) {
    PRELUFLOW_UNROLL
    for (int k = 0; k < kSums; ++k) sum[k] += S::load(v + i + k * S::lanes) * T(0);
  }
  T zeros[S::lanes];
  for (int k = 1; k < kSums; ++k) sum[0] += sum[k];
  S::store(zeros, sum[0]);
  T zero = T(0);
  for (const T z : zeros) zero += z;
  for (; i < n; ++i) zero += v[i] * T(0);
  return zero == T(0);
}

}  // namespace preluflow
