// Array types and index type shared by the whole core. All matrices are row-major, as NumPy's are.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <vector>

namespace preluflow {

using Index = Eigen::Index;

template <class T>
using RowMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;

// Views of C-contiguous memory that somebody else owns.
template <class T>
using MatrixMap = Eigen::Map<RowMatrix<T>>;
template <class T>
using ConstMatrixMap = Eigen::Map<const RowMatrix<T>>;
template <class T>
using VectorMap = Eigen::Map<Vector<T>>;
template <class T>
using ConstVectorMap = Eigen::Map<const Vector<T>>;

// Storage for rows that are summed over: Eigen's sums depend in their last bit on where a row begins in memory, and a
// std::vector alone begins anywhere.
template <class T>
using AlignedVector = std::vector<T, Eigen::aligned_allocator<T>>;

// One row (length h or D) seen as an array, for elementwise work.
template <class T>
using RowArrayMap = Eigen::Map<Eigen::Array<T, 1, Eigen::Dynamic>>;

}  // namespace preluflow
