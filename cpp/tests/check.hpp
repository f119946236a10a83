// What the tests need and no more: TEST(group_what_holds) { CHECK(...); } registers a test, whose name says what holds.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "preluflow/types.hpp"

namespace preluflow::tests {

struct Test {
  std::string name;
  void (*run)();
};

std::vector<Test>& registry();

// Notes a failure of the running test. On the main thread only, as all CHECKs are.
void fail(const char* file, int line, const std::string& what);

struct Registration {
  Registration(const char* name, void (*run)()) { registry().push_back({name, run}); }
};

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // several times slower
#else
constexpr bool kSanitized = false;
#endif

// The same numbers everywhere: the standard fixes this engine, but not its distributions.
class Numbers {
 public:
  explicit Numbers(std::uint32_t seed) : engine_(seed) {}
  double uniform(double low = 0.0, double high = 1.0) {
    return low + (high - low) * (static_cast<double>(engine_()) + 0.5) / 4294967296.0;
  }
  Index integer(Index low, Index high) {  // both included
    return low + static_cast<Index>(engine_() % static_cast<std::uint32_t>(high - low + 1));
  }
  double normal() {  // nearly
    double sum = -6.0;
    for (int k = 0; k < 12; ++k) sum += uniform();
    return sum;
  }
  // (rows, columns) of unit rows.
  RowMatrix<double> directions(Index rows, Index columns) {
    RowMatrix<double> out(rows, columns);
    for (Index i = 0; i < rows; ++i)
      for (Index k = 0; k < columns; ++k) out(i, k) = normal();
    out.rowwise().normalize();
    return out;
  }

 private:
  std::mt19937 engine_;
};

}  // namespace preluflow::tests

#define TEST(name)                                                                 \
  static void name();                                                              \
  static const ::preluflow::tests::Registration registration_##name(#name, &name); \
  static void name()

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) ::preluflow::tests::fail(__FILE__, __LINE__, #condition); \
  } while (false)

// a <= b, with both in the message.
#define CHECK_AT_MOST(a, b)                                                                         \
  do {                                                                                              \
    const double a_ = (a), b_ = (b);                                                                \
    if (!(a_ <= b_))                                                                                \
      ::preluflow::tests::fail(__FILE__, __LINE__,                                                  \
                               #a " <= " #b ": " + std::to_string(a_) + ", " + std::to_string(b_)); \
  } while (false)
