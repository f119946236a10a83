#include "preluflow/machine.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "preluflow/panels.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow {

namespace {

// Chains of dependent multiply-adds that run side by side: as many accumulators as the products hold.
constexpr int kChains = kBroadcasts * kVectors;
constexpr Index kLinks = 1 << 14;  // multiply-adds of a chain in a round

std::atomic<double> sink{0.0};  // where results go, so that a compiler cannot leave their making out

template <class T>
void chains(Index repeats) {
  using S = Simd<T>;
  typename S::V sum[kBroadcasts][kVectors];
  T start[S::lanes];
  std::fill_n(start, S::lanes, T(0.5));
  const typename S::V half = S::load(start);
  PRELUFLOW_UNROLL
  for (int b = 0; b < kBroadcasts; ++b) {
    PRELUFLOW_UNROLL
    for (int v = 0; v < kVectors; ++v) sum[b][v] = half * static_cast<T>(b * kVectors + v);  // no two alike
  }
  for (Index link = 0; link < repeats * kLinks; ++link) {
    PRELUFLOW_UNROLL
    for (int b = 0; b < kBroadcasts; ++b) {
      PRELUFLOW_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        typename S::V next = half;
        next += sum[b][v] * half;  // goes to 1
        sum[b][v] = next;
      }
    }
  }
  typename S::V total{};
  for (auto& row : sum)
    for (auto& vector : row) total += vector;
  S::store(start, total);
  sink.store(static_cast<double>(start[0]), std::memory_order_relaxed);
}

}  // namespace

template <class T>
double fma_flops(Index repeats, int threads) {
  const double each = 2.0 * static_cast<double>(Simd<T>::lanes) * kChains * static_cast<double>(repeats * kLinks);
  const double all = each * threads;
  Team::run(threads, all, [&](Team& team) { team.parallel_for(threads, [&](Index) { chains<T>(repeats); }); });
  return all;
}

double read_bytes(const double* values, Index n, Index repeats, int threads) {
  using S = Simd<double>;
  constexpr Index kBlock = 8 * S::lanes;  // numbers of eight vectors, each into a sum of its own
  const auto past = reinterpret_cast<std::uintptr_t>(values) % kVectorBytes / sizeof(double);  // of a whole vector
  const Index skipped = past == 0 ? 0 : std::min(n, S::lanes - static_cast<Index>(past));
  values += skipped;  // a load that straddles two cache lines takes two
  const Index share = (n - skipped) / threads / kBlock * kBlock;
  const double bytes = static_cast<double>(share * repeats) * threads * sizeof(double);
  Team::run(threads, std::max(bytes, 1e9), [&](Team& team) {
    team.parallel_for(threads, [&](Index thread) {
      typename S::V sum[8];
      for (auto& lane : sum) lane = typename S::V{};
      for (Index repeat = 0; repeat < repeats; ++repeat) {
        for (Index i = thread * share; i < (thread + 1) * share; i += kBlock) {
          PRELUFLOW_UNROLL
          for (int k = 0; k < 8; ++k) sum[k] += S::load(values + i + k * S::lanes);
        }
      }
      for (int k = 1; k < 8; ++k) sum[0] += sum[k];
      double out[S::lanes];
      S::store(out, sum[0]);
      sink.store(out[0], std::memory_order_relaxed);
    });
  });
  return bytes;
}

template double fma_flops<float>(Index, int);
template double fma_flops<double>(Index, int);

}  // namespace preluflow
