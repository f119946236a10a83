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

  // Calls body(task) for task = 0 .. tasks-1. The calling thread takes them from the first on and helpers from the last
  // on, so that in one loop after the other a thread finds about the same rows in its cache. The first exception is
  // rethrown here. Not to be nested.
  template <class Body>
  void parallel_for(Index tasks, const Body& body) {
    const int helpers = detail::forks() == forks_ ? hired_ : 0;
    if (helpers == 0 || tasks < 2) {
      for (Index task = 0; task < tasks; ++task) invoke<Body>(&body, task);
      return;
    }
    job_.body = &body;
    job_.call = &invoke<Body>;
    for (job_.begin = 0; job_.begin < tasks; job_.begin += kMostTasks) round(std::min(kMostTasks, tasks - job_.begin));
  }

 private:
  Team() = default;

  // One copy of the machine code for every number of threads: inlined twice, a compiler may fuse a multiplication and
  // an addition here and not there, and bits would differ.
  template <class Body>
  PRELUFLOW_NOINLINE static void invoke(const void* body, Index task) {
    (*static_cast<const Body*>(body))(task);
  }

  // Does tasks job_.begin .. job_.begin + count - 1.
  void round(Index count) {
    done_.store(0, std::memory_order_relaxed);
    job_.left.store(Range{0, static_cast<std::uint32_t>(count)}.word(), std::memory_order_release);
    Index mine = work(true);
    detail::wait_until([&] {
      mine += look();
      // In a child forked meanwhile, by a signal's handler, the helpers' tasks would never be done.
      return mine + done_.load(std::memory_order_acquire) == count || detail::forks() != forks_;
    });
    if (detail::forks() != forks_)
      throw std::runtime_error("preluflow core: a forked child cannot go on with this call");
    if (error_) {
      std::exception_ptr error;
      std::swap(error, error_);
      std::rethrow_exception(error);
    }
  }

  // Helpers, up to `count` or as many as there are to be had. They need not have begun when this returns: one that
  // comes late finds what is left of the round that is under way, if anything is.
  void hire(int count) {
    helpers_.reset(new (std::nothrow) detail::Thread[static_cast<std::size_t>(count)]);
    if (!helpers_) return;
    const detail::SignalsBlocked blocked;
    while (hired_ < count && helpers_[static_cast<std::size_t>(hired_)].start<Team, &Team::follow>(*this)) ++hired_;
  }

  // Outside of a round, on the leader's thread.
  void dismiss() {
    if (detail::forks() != forks_) return;  // there is nobody
    job_.left.store(kClosed.word(), std::memory_order_relaxed);
    for (int k = 0; k < hired_; ++k) helpers_[static_cast<std::size_t>(k)].join();
  }

  // Tasks of a round that nobody has claimed, first .. last-1, as one word.
  struct Range {
    std::uint32_t first, last;
    static Range of(std::uint64_t word) {
      return {static_cast<std::uint32_t>(word), static_cast<std::uint32_t>(word >> 32)};
    }
    std::uint64_t word() const { return std::uint64_t{last} << 32 | first; }
    Index count() const { return first < last ? static_cast<Index>(last - first) : 0; }
  };

  // How the threads agree, in full. One word, job_.left, says which tasks of the round nobody has claimed: none between
  // rounds, kClosed at the end. A task is claimed by a compare-and-swap of the word that takes away its first task, by
  // the leader, or its last, by a helper. Every claimed task is counted once when it is done, by its helper in done_,
  // by the leader on its own, and the leader leaves the round when the counts make up all tasks. So it never waits for
  // a helper that has claimed nothing, be it asleep, late, or not yet begun.
  //
  // - What the leader wrote before a round, the rest of job_ among it, is seen in that round's tasks. The leader stores
  //   the word with release, the other changes of the word in a round are read-modify-write operations, which continue
  //   that release sequence, and a claim is one with acquire.
  // - No helper touches a round that is over, or its body, whose frame may be gone. It reads job_ after its claim and
  //   only then; a task that is claimed and not yet counted keeps the leader in the round, so job_ is that round's.
  //   What a helper knew of the word before does not matter: if it went to sleep between its look at the word and its
  //   compare-and-swap, and the word has gone on to a later round, the swap fails, or it finds the very range it
  //   expects and claims a task of the later round like any other. The word needs no number of the round for that.
  // - What helpers wrote in tasks is seen after the round, and by tasks of the next: counts are added with release and
  //   read by the leader with acquire, which then starts the next round. So is job_ rewritten after it has been read,
  //   and done_ set to 0 when nobody is left to add to it.

  void follow() {
    if (!detail::can_throw()) return;  // the others do the work
    for (;;) {
      std::uint64_t word = 0;
      detail::wait_until([&] {
        word = job_.left.load(std::memory_order_relaxed);
        return word == kClosed.word() || Range::of(word).count() > 0;
      });
      if (word == kClosed.word()) return;
      const Index done = work(false);
      if (done > 0) done_.fetch_add(done, std::memory_order_release);
    }
  }

  // Does tasks while there are some to claim; how many of them need no longer be waited for.
  Index work(bool leader) {
    Index done = 0;
    std::uint64_t word = job_.left.load(std::memory_order_relaxed);
    for (;;) {
      Range left = Range::of(word);
      if (left.count() == 0) return done;
      const Index task = leader ? left.first++ : --left.last;
      if (!job_.left.compare_exchange_weak(word, left.word(), std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      ++done;
      try {
        job_.call(job_.body, job_.begin + task);
      } catch (...) {
        done += keep_error();
      }
      word = job_.left.load(std::memory_order_relaxed);
    }
  }

  // Helpers are at work on what the caller's frame holds: nothing may leave parallel_for before they are done. How many
  // tasks need no longer be waited for.
  Index look() {
    if (watch_ == nullptr) return 0;
    try {
      (*watch_)();
    } catch (...) {
      return keep_error();
    }
    return 0;
  }

  // Keeps the first exception, to be thrown again when the round is over. What is left of the round need not be done:
  // claims all of it and says how many tasks that were.
  Index keep_error() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
    return Range::of(job_.left.exchange(0, std::memory_order_relaxed)).count();
  }

  static constexpr int kMostThreads = 1024;            // where a caller has not asked what there is
  static constexpr Index kMostTasks = Index{1} << 31;  // of a round
  static constexpr Range kClosed{1, 0};                // no range of tasks

  // A round, on one cache line: who has claimed a task has it at hand.
  struct alignas(64) Job {
    std::atomic<std::uint64_t> left{0};
    Index begin = 0;
    const void* body = nullptr;
    void (*call)(const void*, Index) = nullptr;
  };

  const decltype(detail::forks()) forks_ = detail::forks();
  std::unique_ptr<detail::Thread[]> helpers_;
  int hired_ = 0;
  const Interrupt* watch_ = nullptr;
  std::exception_ptr error_;
  std::mutex mutex_;
  Job job_;
  alignas(64) std::atomic<Index> done_{0};  // tasks of the round that helpers have done or found needless
};

// Calls body(j) for neurons j = 0 .. width-1, each of which has so many scalars to see to, with exponentials.
template <class Body>
void for_neurons(Team& team, Index width, Index scalars, const Body& body) {
  constexpr Index kScalars = 256;  // of a task: some microseconds
  const Index neurons = std::max<Index>(1, kScalars / scalars);
  team.parallel_for((width + neurons - 1) / neurons, [&](Index task) {
    for (Index j = task * neurons; j < std::min((task + 1) * neurons, width); ++j) body(j);
  });
}

}  // namespace preluflow
