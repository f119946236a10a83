// The threads of one call from Python, and loops on them.
//
// Results never depend on the number of threads: callers cut the work into tasks whose boundaries depend on the
// problem alone, each task writes its own output, and every sum runs over tasks in their order.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "preluflow/interrupt.hpp"
#include "preluflow/thread.hpp"
#include "preluflow/types.hpp"

namespace preluflow {

namespace detail {

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

// The threads of one call: as long as it lasts, the calling thread runs the algorithm and its helpers wait for its
// loops. A loop costs about a microsecond to start, on a busy machine too. Helpers are started by the call and joined
// at its end: nothing spins or sleeps between calls, in the way of NumPy or of fork(), and nothing is to be shut down.
// (OpenMP's regions are dearer to start, barriers of its loops spin against the thread they wait for, a forked child
// hangs in them, and GNU's ends the process when a thread cannot be started.)
class Team {
 public:
  // Calls body(team) on this thread with up to `threads` threads, or 1 if the work (in flops) is too small to share.
  // Where the system gives fewer there are fewer.
  template <class Body>
  static void run(int threads, double flops, const Body& body) {
    constexpr double kLeastFlops = 3e7;  // starting a helper and joining it takes about 0.05 ms
    Team team;
    if (threads > 1 && flops >= kLeastFlops) team.hire(std::min(threads, kMostThreads) - 1);
    body(team);
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() { dismiss(); }

  // What the calling thread asks while it waits for the others, so that signals are seen then too.
  void watch(const Interrupt* interrupt) { watch_ = interrupt; }

  // Calls body(task) for task = 0 .. tasks-1. The first exception is rethrown here. Not to be nested.
  template <class Body>
  void parallel_for(Index tasks, const Body& body) {
    const int helpers = detail::forks() == forks_ ? hired_ : 0;
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
      look();
      // In a child forked meanwhile, by a signal's handler, the helpers' tasks would never be done.
      return busy_.load(std::memory_order_acquire) == 0 || detail::forks() != forks_;
    });
    if (detail::forks() != forks_)
      throw std::runtime_error("preluflow core: a forked child cannot go on with this call");
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

  // Helpers, up to `count` or as many as there are to be had. They need not have begun when this returns: one that
  // comes late finds the round that is under way, in which its leader waits for it.
  void hire(int count) {
    helpers_.reset(new (std::nothrow) detail::Thread[static_cast<std::size_t>(count)]);
    if (!helpers_) return;
    const detail::SignalsBlocked blocked;
    while (hired_ < count && helpers_[static_cast<std::size_t>(hired_)].start<Team, &Team::follow>(*this)) ++hired_;
  }

  // Outside of a round, on the leader's thread.
  void dismiss() {
    if (detail::forks() != forks_) return;  // there is nobody
    closed_ = true;
    round_.fetch_add(1, std::memory_order_release);
    for (int k = 0; k < hired_; ++k) helpers_[static_cast<std::size_t>(k)].join();
  }

  // A helper: one turn of work() for each round. What the leader wrote before it raised round_ (release) is seen after
  // round_ is read (acquire); what this thread wrote in its tasks, after busy_ has come down.
  void follow() {
    const bool able = detail::can_throw();  // else the others do the work
    std::uint64_t seen = 0;
    for (;;) {
      detail::wait_until([&] { return round_.load(std::memory_order_acquire) != seen; });
      seen = round_.load(std::memory_order_acquire);
      if (closed_) return;
      if (able) work();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void work() {
    for (Index task = next_.fetch_add(1, std::memory_order_relaxed); task < tasks_;
         task = next_.fetch_add(1, std::memory_order_relaxed)) {
      try {
        call_(body_, task);
      } catch (...) {
        keep_error();
      }
    }
  }

  // Helpers are at work on what the caller's frame holds: nothing may leave parallel_for before they are done.
  void look() {
    if (watch_ == nullptr) return;
    try {
      (*watch_)();
    } catch (...) {
      keep_error();
    }
  }

  // The first exception, to be thrown again when the round is over; what is left of the round need not be done.
  void keep_error() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
    next_.store(tasks_, std::memory_order_relaxed);
  }

  static constexpr int kMostThreads = 1024;  // where a caller has not asked what there is

  const decltype(detail::forks()) forks_ = detail::forks();
  std::unique_ptr<detail::Thread[]> helpers_;
  int hired_ = 0;
  // The job, written by the leader before it raises round_.
  const void* body_ = nullptr;
  void (*call_)(const void*, Index) = nullptr;
  Index tasks_ = 0;
  bool closed_ = false;
  const Interrupt* watch_ = nullptr;
  std::exception_ptr error_;
  std::mutex mutex_;
  alignas(64) std::atomic<std::uint64_t> round_{0};
  alignas(64) std::atomic<Index> next_{0};
  alignas(64) std::atomic<int> busy_{0};
};

}  // namespace preluflow
