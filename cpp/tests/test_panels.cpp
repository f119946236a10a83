// The layout and its two products. Entries are small integers: sums are exact in any order, and results equal.
#include <vector>

#include "check.hpp"
#include "preluflow/panels.hpp"

namespace preluflow::tests {

namespace {

template <class T>
RowMatrix<T> integers(Numbers& numbers, Index rows, Index columns) {
  RowMatrix<T> out(rows, columns);
  for (Index i = 0; i < rows; ++i)
    for (Index k = 0; k < columns; ++k) out(i, k) = static_cast<T>(numbers.integer(-4, 4));
  return out;
}

// Every remainder of neurons in a panel, and of inputs in a broadcast and in a run.
template <class T, class Body>
void for_shapes(const Body& body) {
  for (Index width = 1; width <= 2 * PanelLayout<T>::panel_lanes_max() + 1; ++width) body(width, 5 + width % 7);
  const Index two = PanelLayout<T>::panel_lanes_max() + 1;
  for (Index dim : {1, 2, 3, 7, 8, 9, 15, 16, 17, 255, 256, 257, 515}) body(two, dim);
}

template <class T>
std::vector<const T*> pointers(const RowMatrix<T>& X) {
  std::vector<const T*> out;
  out.reserve(static_cast<std::size_t>(X.rows()));
  for (Index i = 0; i < X.rows(); ++i) out.push_back(X.data() + i * X.cols());
  return out;
}

template <class T>
void check_layout() {
  Numbers numbers(1);
  for_shapes<T>([&](Index width, Index dim) {
    const RowMatrix<T> rows = integers<T>(numbers, width, dim);
    const PanelMatrix<T> panels(ConstMatrixMap<T>(rows.data(), width, dim));
    RowMatrix<T> back(width, dim);
    panels.copy_to(back.data());
    CHECK(back == rows);
    for (Index j = 0; j < width; ++j)
      for (Index d = 0; d < dim; ++d) CHECK(panels.row(j)[d * panels.stride(j)] == rows(j, d));
    const PanelLayout<T>& layout = panels.layout();
    Index lanes = 0;
    for (Index k = 0; k < layout.panels; ++k) {
      CHECK(layout.neuron_begin(k) == lanes);
      lanes += layout.panel_lanes(k);
      for (Index d = 0; d < dim; ++d)
        for (Index lane = 0; lane < layout.panel_lanes(k); ++lane)
          if (layout.neuron_begin(k) + lane >= width) CHECK(panels.panel(k)[d * layout.panel_lanes(k) + lane] == T(0));
    }
    CHECK(lanes == layout.padded() && lanes >= width);
  });
}

template <class T>
void check_product() {
  Numbers numbers(2);
  for_shapes<T>([&](Index width, Index dim) {
    const RowMatrix<T> U = integers<T>(numbers, width, dim);
    const PanelMatrix<T> panels(ConstMatrixMap<T>(U.data(), width, dim));
    const Index padded = panels.layout().padded();
    for (Index rows = 1; rows <= 2 * kBroadcasts + 1; ++rows) {
      const RowMatrix<T> X = integers<T>(numbers, rows, dim);
      RowMatrix<T> Z = RowMatrix<T>::Constant(rows, padded, T(99));
      for (Index k = 0; k < panels.layout().panels; ++k)
        panel_product(panels, k, pointers(X).data(), rows, Z.data(), padded);
      CHECK(Z.leftCols(width) == X.lazyProduct(U.transpose()));
      CHECK(Z.rightCols(padded - width).isZero(T(0)));
    }
  });
}

template <class T>
void check_outer() {
  Numbers numbers(3);
  for_shapes<T>([&](Index width, Index dim) {
    PanelMatrix<T> G{PanelLayout<T>(width, dim)};
    const Index padded = G.layout().padded();
    RowMatrix<T> expected = RowMatrix<T>::Zero(width, dim), found(width, dim);
    bool add = false;
    for (Index rows : {1, 3, 63, 64, 65, 130}) {
      const RowMatrix<T> X = integers<T>(numbers, rows, dim), P = integers<T>(numbers, rows, padded);
      const Index d0 = add ? numbers.integer(0, dim - 1) : 0, d1 = add ? numbers.integer(d0, dim) : dim;
      std::vector<T> packed(static_cast<std::size_t>(rows * dim));
      pack_rows(pointers(X).data(), 0, rows / 2, rows, d0, d1, packed.data());
      pack_rows(pointers(X).data(), rows / 2, rows, rows, d0, d1, packed.data());
      for (Index k = 0; k < G.layout().panels; ++k)
        panel_outer(G, k, d0, d1, packed.data(), rows, P.data(), padded, add);
      expected.middleCols(d0, d1 - d0) += P.leftCols(width).transpose().lazyProduct(X.middleCols(d0, d1 - d0));
      G.copy_to(found.data());
      CHECK(found == expected);
      add = true;
    }
  });
}

TEST(panels_give_back_what_they_took) {
  check_layout<float>();
  check_layout<double>();
}

TEST(panels_multiply_as_naive_sums) {
  check_product<float>();
  check_product<double>();
}

TEST(panels_add_outer_products_as_naive_sums) {
  check_outer<float>();
  check_outer<double>();
}

}  // namespace

}  // namespace preluflow::tests
