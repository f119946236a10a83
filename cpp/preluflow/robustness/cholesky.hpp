// Symmetric matrices of certificates: their products, Cholesky factors and solutions. Where a bracket is close most of
// its time is spent in these, at orders of 50 to 500, which a library's routines for any order and any strides serve at
// less than half of the processor's rate.
#pragma once

#include "preluflow/panels.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

// A matrix (rows, cols) in columns, with room after its last row and column for whole vectors and tiles. What is in the
// room is not the matrix's.
class ColumnMatrix {
 public:
  using View = Eigen::Map<Eigen::MatrixXd, Eigen::Unaligned, Eigen::OuterStride<>>;
  using ConstView = Eigen::Map<const Eigen::MatrixXd, Eigen::Unaligned, Eigen::OuterStride<>>;

  ColumnMatrix() = default;
  ColumnMatrix(Index rows, Index cols) { resize(rows, cols); }

  // What it holds is lost; its memory is kept where that is enough.
  void resize(Index rows, Index cols);
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index stride() const { return stride_; }  // entries from a column to the next
  Index padded_cols() const { return padded_cols_; }
  double* column(Index j) { return data_.data() + j * stride_; }
  const double* column(Index j) const { return data_.data() + j * stride_; }
  VectorMap<double> col(Index j) { return {column(j), rows_}; }
  ConstVectorMap<double> col(Index j) const { return {column(j), rows_}; }
  View view() { return {data_.data(), rows_, cols_, Eigen::OuterStride<>(stride_)}; }
  ConstView view() const { return {data_.data(), rows_, cols_, Eigen::OuterStride<>(stride_)}; }

 private:
  Index rows_ = 0, cols_ = 0, stride_ = 0, padded_cols_ = 0;
  AlignedVector<double> data_;
};

// The lower triangle of Q (n, n) = A B^T over the first `count` columns of A and B (n, any); what is above it changes.
void lower_product(const ColumnMatrix& A, const ColumnMatrix& B, Index count, ColumnMatrix& Q);

// A = L L^T, by inner products: what rounding does is bounded by Higham, Accuracy and Stability, theorem 10.3.
class Cholesky {
 public:
  explicit Cholesky(Index n) : L_(n, n) {}

  void resize(Index n) { L_.resize(n, n); }
  // A = diagonal - Q, of which the lower triangle is read.
  void set(double diagonal, const ColumnMatrix& Q);
  // A += sum_i weight_i n_i n_i^T over those of the directions (n, count) whose weight is above 0.
  void add(const Eigen::Ref<const Eigen::MatrixXd>& directions, const double* weight);

  // Whether L exists in float64, which replaces A.
  bool factorise();

  // A^-1 x, L^-1 x and L^-T x in place, of a vector or of columns.
  template <class X>
  void solve(X&& x) const {
    solve_lower(x);
    solve_upper(x);
  }
  template <class X>
  void solve_lower(X&& x) const {
    L_.view().template triangularView<Eigen::Lower>().solveInPlace(x);
  }
  template <class X>
  void solve_upper(X&& x) const {
    L_.view().transpose().template triangularView<Eigen::Upper>().solveInPlace(x);
  }

  // B (any, n) becomes B L^-T: L^-1 of every row.
  void solve_rows(ColumnMatrix& B) const;

  double squares() const;  // of L's entries, summed

 private:
  ColumnMatrix L_;
};

}  // namespace preluflow
