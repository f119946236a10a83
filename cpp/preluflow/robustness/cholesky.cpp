#include "preluflow/robustness/cholesky.hpp"

#include <algorithm>
#include <cmath>

namespace preluflow {

namespace {

using S = Simd<double>;
constexpr Index kPiece = kBroadcasts;         // columns of a tile,
constexpr Index kTile = kVectors * S::lanes;  // and its rows at most
constexpr Index kUnit = std::max(S::lanes, kPiece);
constexpr Index kRun = 128;   // terms of a sum for which what a tile reads stays in the nearest caches
constexpr Index kBlock = 32;  // columns that are brought up to date at once
constexpr Index kClash = 64;  // entries: columns so far apart, or a multiple of it, would share few places of a cache

constexpr Index rounded_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// A tile of V vectors of rows and a piece of columns: take(sum) with sum[b][v] = sum_k p_k[v] x_k[b], where p_k are V
// vectors from p + k * p_stride on, and x_k numbers from x + k * x_stride on.
template <int V, class Take>
void tile(const double* p, Index p_stride, const double* x, Index x_stride, Index terms, const Take& take) {
  typename S::V sum[kPiece][V];
  PRELUFLOW_UNROLL
  for (Index b = 0; b < kPiece; ++b) {
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) sum[b][v] = typename S::V{};
  }
  for (Index k = 0; k < terms; ++k, p += p_stride, x += x_stride) {
    typename S::V pv[V];
    PRELUFLOW_UNROLL
    for (int v = 0; v < V; ++v) pv[v] = S::load(p + v * S::lanes);
    PRELUFLOW_UNROLL
    for (Index b = 0; b < kPiece; ++b) {
      const double xb = x[b];
      PRELUFLOW_UNROLL
      for (int v = 0; v < V; ++v) sum[b][v] += pv[v] * xb;
    }
  }
  take(sum);
}

// Calls body(integral_constant<V>, row) over rows [begin, end), a whole number of vectors.
template <class Body>
void in_tiles(Index begin, Index end, const Body& body) {
  for (; begin + kTile <= end; begin += kTile) body(std::integral_constant<int, kVectors>{}, begin);
  if (begin < end) detail::with_vectors((end - begin) / S::lanes, [&](auto V) { body(V, begin); });
}

// B L^-T by columns: those of a block are brought up to date by all before them, then piece by piece. Rows of a matrix
// B beside L, or L's own below its diagonal, where it is made in place of A.
class Substitution {
 public:
  Substitution(ColumnMatrix& B, const ColumnMatrix& L)
      : B_(B.column(0)),
        B_stride_(B.stride()),
        L_(L.column(0)),
        L_stride_(L.stride()),
        cols_(L.padded_cols()),
        end_(rounded_up(B.rows(), S::lanes)),
        own_(&B == &L) {}

  // Whether L exists, where it is B itself.
  bool run() {
    for (Index block = 0; block < cols_; block += kBlock) {
      const Index last = std::min(block + kBlock, cols_);
      for (Index k = 0; k < block; k += kRun) update(block, last, k, std::min(kRun, block - k));
      for (Index j = block; j < last; j += kPiece) {
        if (own_ && !diagonal(j, block)) return false;
        for (Index b = 0; b < kPiece; ++b) inverse_[b] = 1.0 / *of_L(j + b, j + b);
        in_tiles(own_ ? j + kPiece : 0, end_, [&](auto V, Index i) { piece<V.value>(i, j, block); });
      }
    }
    return true;
  }

 private:
  double* of_B(Index i, Index j) const { return B_ + j * B_stride_ + i; }
  const double* of_L(Index i, Index j) const { return L_ + j * L_stride_ + i; }

  // Columns block ... last, less the products of columns k ... k + terms.
  void update(Index block, Index last, Index k, Index terms) {
    in_tiles(own_ ? block : 0, end_, [&](auto V, Index i) {
      const Index end = own_ ? std::min(i + V.value * S::lanes, last) : last;
      for (Index j = block; j < end; j += kPiece)
        tile<V.value>(of_B(i, k), B_stride_, of_L(j, k), L_stride_, terms, [&](auto& sum) {
          PRELUFLOW_UNROLL
          for (Index b = 0; b < kPiece; ++b) {
            PRELUFLOW_UNROLL
            for (int v = 0; v < V.value; ++v) {
              double* out = of_B(i + v * S::lanes, j + b);
              S::store(out, S::load(out) - sum[b][v]);
            }
          }
        });
    });
  }

  // The piece of L on the diagonal: A's less the products of columns from `k` on, factorised; false where a pivot is
  // not above 0.
  bool diagonal(Index j, Index k) {
    constexpr int V = static_cast<int>((kPiece + S::lanes - 1) / S::lanes);
    double t[kPiece][V * S::lanes];
    tile<V>(of_B(j, k), B_stride_, of_L(j, k), L_stride_, j - k, [&](auto& sum) {
      PRELUFLOW_UNROLL
      for (Index b = 0; b < kPiece; ++b) {
        PRELUFLOW_UNROLL
        for (int v = 0; v < V; ++v) S::store(t[b] + v * S::lanes, S::load(of_B(j + v * S::lanes, j + b)) - sum[b][v]);
      }
    });
    for (Index b = 0; b < kPiece; ++b) {
      if (!(t[b][b] > 0.0)) return false;
      t[b][b] = std::sqrt(t[b][b]);
      const double inverse = 1.0 / t[b][b];
      for (Index i = b + 1; i < kPiece; ++i) t[b][i] *= inverse;
      for (Index c = b + 1; c < kPiece; ++c)
        for (Index i = c; i < kPiece; ++i) t[c][i] -= t[b][i] * t[b][c];
    }
    for (Index b = 0; b < kPiece; ++b) std::copy(t[b] + b, t[b] + kPiece, of_B(j + b, j + b));
    return true;
  }

  // Rows from i on of the piece of columns j, less the products of columns from `k` on, times the piece of L^-T.
  template <int V>
  void piece(Index i, Index j, Index k) {
    tile<V>(of_B(i, k), B_stride_, of_L(j, k), L_stride_, j - k, [&](auto& sum) {
      PRELUFLOW_UNROLL
      for (Index b = 0; b < kPiece; ++b) {
        PRELUFLOW_UNROLL
        for (int v = 0; v < V; ++v) sum[b][v] = S::load(of_B(i + v * S::lanes, j + b)) - sum[b][v];
        PRELUFLOW_UNROLL
        for (Index c = 0; c < b; ++c) {
          const double l = *of_L(j + b, j + c);
          PRELUFLOW_UNROLL
          for (int v = 0; v < V; ++v) sum[b][v] -= sum[c][v] * l;
        }
        PRELUFLOW_UNROLL
        for (int v = 0; v < V; ++v) {
          sum[b][v] = sum[b][v] * inverse_[b];
          S::store(of_B(i + v * S::lanes, j + b), sum[b][v]);
        }
      }
    });
  }

  double* B_;
  Index B_stride_;
  const double* L_;
  Index L_stride_, cols_, end_;
  bool own_;
  double inverse_[kPiece];  // of the pivots of a piece
};

}  // namespace

void ColumnMatrix::resize(Index rows, Index cols) {
  rows_ = rows;
  cols_ = cols;
  stride_ = rounded_up(rows, kUnit);
  padded_cols_ = rounded_up(cols, kPiece);
  if (stride_ % kClash == 0) stride_ += kUnit;
  const auto size = static_cast<std::size_t>(stride_ * padded_cols_);
  if (data_.size() < size) data_.resize(size);
}

void lower_product(const ColumnMatrix& A, const ColumnMatrix& B, Index count, ColumnMatrix& Q) {
  const Index n = Q.rows(), stride = Q.stride();
  if (count == 0) Q.view().setZero();
  for (Index k = 0; k < count; k += kRun)
    in_tiles(0, rounded_up(n, S::lanes), [&](auto V, Index i) {
      for (Index j = 0; j < std::min(i + V.value * S::lanes, n); j += kPiece)
        tile<V.value>(A.column(k) + i, A.stride(), B.column(k) + j, B.stride(), std::min(kRun, count - k),
                      [&](auto& sum) {
                        double* out = Q.column(j) + i;
                        PRELUFLOW_UNROLL
                        for (Index b = 0; b < kPiece; ++b) {
                          PRELUFLOW_UNROLL
                          for (int v = 0; v < V.value; ++v) {
                            if (k > 0) sum[b][v] += S::load(out + b * stride + v * S::lanes);
                            S::store(out + b * stride + v * S::lanes, sum[b][v]);
                          }
                        }
                      });
    });
}

// The room holds the identity, whose columns are factorised with the others, and stay. It is written anew: what is no
// number in one matrix is none in the next one's way.
void Cholesky::set(double diagonal, const ColumnMatrix& Q) {
  const Index n = L_.rows(), room = L_.stride() - n;
  for (Index j = 0; j < n; ++j) {
    L_.col(j).tail(n - j) = -Q.col(j).tail(n - j);
    L_.column(j)[j] += diagonal;
    std::fill_n(L_.column(j) + n, room, 0.0);
  }
  for (Index j = n; j < L_.padded_cols(); ++j) {
    std::fill_n(L_.column(j), L_.stride(), 0.0);
    L_.column(j)[j] = 1.0;
  }
}

void Cholesky::add(const Eigen::Ref<const Eigen::MatrixXd>& directions, const double* weight) {
  const Index n = L_.rows();
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < directions.cols(); ++i)
      if (weight[i] > 0.0) L_.col(j).tail(n - j) += (weight[i] * directions(j, i)) * directions.col(i).tail(n - j);
}

bool Cholesky::factorise() { return Substitution(L_, L_).run(); }

void Cholesky::solve_rows(ColumnMatrix& B) const { Substitution(B, L_).run(); }

double Cholesky::squares() const {
  double sum = 0.0;
  for (Index j = 0; j < L_.rows(); ++j) sum += L_.col(j).tail(L_.rows() - j).squaredNorm();
  return sum;
}

}  // namespace preluflow
