// The threads of one call from Python, loops on them, and the guard for forked children.
//
// Results never depend on the number of threads: callers cut the work into tasks whose boundaries depend on the
// problem alone, each task writes its own output, and every sum runs over tasks in their order.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "preluflow/interrupt.hpp"
#include "preluflow/types.hpp"

#if defined(_MSC_VER)
#define PRELUFLOW_NOINLINE __declspec(noinline)
#elif defined(__clang__)
#define PRELUFLOW_NOINLINE __attribute__((noinline))
#else
#define PRELUFLOW_NOINLINE __attribute__((noinline, noclone))
#endif

namespace preluflow {

namespace detail {

// An OpenMP runtime's worker threads do not survive fork(): a child that enters a parallel region waits for them
// for ever. So a forked child runs serially.
inline std::atomic<bool>& in_forked_child() {
  static std::atomic<bool> flag{false};
  return flag;
}

inline void install_fork_guard() {
#if defined(_OPENMP) && !defined(_WIN32)
  static const int installed = pthread_atfork(nullptr, nullptr, [] { in_forked_child() = true; });
  static_cast<void>(installed);
#endif
}

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#endif
}

// Waits for a moment at full attention, then gives way: on a busy machine the thread waited for needs this core.
template <class Ready>
void wait_until(const Ready& ready) {
  for (int spins = 0; !ready(); ++spins) spins < 2000 ? relax() : std::this_thread::yield();
}

}  // namespace detail

// Threads a call uses when it is not told: OMP_NUM_THREADS or all; 1 without OpenMP and in a forked child.
inline int default_threads() {
#ifdef _OPENMP
  return detail::in_forked_child() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// The threads of one call: an OpenMP region as long as the call, in which the calling thread runs the algorithm and the
// others wait for its loops. A loop costs about a microsecond to start, on a busy machine too, where the barriers of
// OpenMP's own loops spin against the thread they wait for (measured: seven times slower than serial).
class Team {
 public:
  // Calls body(team) on this thread with up to `threads` threads, or 1 if the work (in flops) is too small to share.
  template <class Body>
  static void run(int threads, double flops, const Body& body) {
    constexpr double kLeastFlops = 3e7;  // starting a team takes about 0.15 ms
#ifdef _OPENMP
    if (threads > 1 && flops >= kLeastFlops && !detail::in_forked_child()) {
      Team team;
#pragma omp parallel num_threads(threads)
      {
        if (omp_get_thread_num() == 0) {
          team.lead(body);
        } else {
          team.follow();
        }
      }
#ifdef PRELUFLOW_HAVE_OMP_PAUSE
      // GNU's OpenMP would keep the others spinning for milliseconds after the region, which slows NumPy and torch
      // calls that follow eightfold (bench/bench_threads.py).
      omp_pause_resource_all(omp_pause_soft);
#endif
      if (team.error_) std::rethrow_exception(team.error_);
      return;
    }
#endif
    static_cast<void>(threads);
    static_cast<void>(flops);
    static_cast<void>(kLeastFlops);
    Team alone;
    body(alone);
  }

  // What the calling thread asks while it waits for the others, so that signals are seen then too.
  void watch(const Interrupt* interrupt) { watch_ = interrupt; }

  // Calls body(task) for task = 0 .. tasks-1. The first exception is rethrown here. Not to be nested.
  template <class Body>
  void parallel_for(Index tasks, const Body& body) {
    const int helpers = followers_.load(std::memory_order_acquire);
    if (helpers == 0 || tasks < 2) {
      for (Index task = 0; task < tasks; ++task) invoke<Body>(&body, task);
      return;
    }
    body_ = &body;
    call_ = &invoke<Body>;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(helpers, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    work();
    detail::wait_until([&] {
      if (watch_ != nullptr) (*watch_)();
      return busy_.load(std::memory_order_acquire) == 0;
    });
    if (error_) {
      std::exception_ptr error;
      std::swap(error, error_);
      std::rethrow_exception(error);
    }
  }

 private:
  Team() = default;

  // One copy of the machine code for every number of threads: inlined twice, a compiler may fuse a multiplication and
  // an addition here and not there, and bits would differ.
  template <class Body>
  PRELUFLOW_NOINLINE static void invoke(const void* body, Index task) {
    (*static_cast<const Body*>(body))(task);
  }

#ifdef _OPENMP
  template <class Body>
  void lead(const Body& body) {
    const int others = omp_get_num_threads() - 1;
    detail::wait_until([&] { return arrived_.load(std::memory_order_acquire) == others; });
    followers_.store(others, std::memory_order_release);
    std::exception_ptr error;
    try {
      body(*this);
    } catch (...) {
      error = std::current_exception();
    }
    closed_ = true;
    round_.fetch_add(1, std::memory_order_release);
    error_ = error;
  }

  void follow() {
    std::uint64_t seen = 0;
    arrived_.fetch_add(1, std::memory_order_release);
    for (;;) {
      detail::wait_until([&] { return round_.load(std::memory_order_acquire) != seen; });
      seen = round_.load(std::memory_order_acquire);
      if (closed_) return;
      work();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }
#endif

  void work() {
    for (Index task = next_.fetch_add(1, std::memory_order_relaxed); task < tasks_;
         task = next_.fetch_add(1, std::memory_order_relaxed)) {
      try {
        call_(body_, task);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  // The job, written by the leader before it raises round_.
  const void* body_ = nullptr;
  void (*call_)(const void*, Index) = nullptr;
  Index tasks_ = 0;
  bool closed_ = false;
  const Interrupt* watch_ = nullptr;
  std::exception_ptr error_;
  std::mutex mutex_;
  std::atomic<int> arrived_{0}, followers_{0};
  alignas(64) std::atomic<std::uint64_t> round_{0};
  alignas(64) std::atomic<Index> next_{0};
  alignas(64) std::atomic<int> busy_{0};
};

}  // namespace preluflow
