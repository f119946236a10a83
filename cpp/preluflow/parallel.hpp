// Thread count, loops that carry exceptions out of a parallel region, and the guard for forked children.
//
// Results never depend on the number of threads: callers cut the work into tasks whose boundaries depend on the
// problem alone, each task writes its own output, and every sum runs over tasks in their order.
#pragma once

#include <atomic>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>
#endif

#include "preluflow/types.hpp"

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

}  // namespace detail

// Threads a call uses when it is not told: OMP_NUM_THREADS or all; 1 without OpenMP and in a forked child.
inline int default_threads() {
#ifdef _OPENMP
  return detail::in_forked_child() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Calls body(task) for task = 0 .. tasks-1 on at most `threads` threads. The first exception is rethrown here.
template <class Body>
void parallel_for(int threads, Index tasks, const Body& body) {
#ifdef _OPENMP
  if (threads > 1 && tasks > 1 && !detail::in_forked_child()) {
    std::exception_ptr error;
    const int team = static_cast<int>(threads < tasks ? threads : tasks);
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (Index task = 0; task < tasks; ++task) {
      try {
        body(task);
      } catch (...) {
#pragma omp critical(preluflow_parallel_for)
        if (!error) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
    return;
  }
#endif
  static_cast<void>(threads);
  for (Index task = 0; task < tasks; ++task) body(task);
}

}  // namespace preluflow
