// A thread that may fail to start. std::thread throws where there is none to be had, has the default stack, which is a
// system's (8 MB of address space here, 128 kB there), and takes signals that the caller waits for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <exception>

#if defined(_WIN32)
#include <new>
#include <system_error>
#include <thread>
#else
#include <pthread.h>
#include <csignal>
#endif

#if defined(_MSC_VER)
#define PRELUFLOW_NOINLINE __declspec(noinline)
#elif defined(__clang__)
#define PRELUFLOW_NOINLINE __attribute__((noinline))
#else
#define PRELUFLOW_NOINLINE __attribute__((noinline, noclone))
#endif

namespace preluflow {

namespace detail {

#if defined(_WIN32)

class Thread {
 public:
  template <class Object, void (Object::*call)()>
  bool start(Object& object) {
    try {
      thread_ = std::thread([&object] { (object.*call)(); });
    } catch (const std::system_error&) {
      return false;
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  }
  void join() { thread_.join(); }

 private:
  std::thread thread_;
};

// Signals reach the main thread only.
struct SignalsBlocked {
  SignalsBlocked() {}
};

inline std::uint64_t forks() { return 0; }
inline void count_forks() {}

#else

class Thread {
 public:
  // Calls (object.*call)(), which must not throw, on a thread of its own; false if the system gives none.
  template <class Object, void (Object::*call)()>
  bool start(Object& object) {
    constexpr std::size_t kStack = std::size_t{2} << 20;  // bytes; Eigen takes up to 128 kB at once
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setstacksize(&attributes, kStack);
    const int failed = pthread_create(
        &thread_, &attributes,
        [](void* self) -> void* {
          (static_cast<Object*>(self)->*call)();
          return nullptr;
        },
        &object);
    pthread_attr_destroy(&attributes);
    return failed == 0;
  }
  void join() { pthread_join(thread_, nullptr); }

 private:
  pthread_t thread_{};
};

// While one of these lives, threads that are started take no signals: Ctrl-C is for the thread Python runs on. Those a
// thread sends itself by a fault stay, so that they end the process with their own name.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t blocked;
    sigfillset(&blocked);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// How many forks lie between this process and the one that loaded the module: threads of before the last are gone.
inline std::atomic<unsigned>& fork_count() {
  static std::atomic<unsigned> count{0};
  return count;
}
inline unsigned forks() { return fork_count().load(std::memory_order_relaxed); }

inline void count_forks() {
  static const int installed =
      pthread_atfork(nullptr, nullptr, [] { fork_count().fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(installed);
}

#endif

// Makes what the C++ runtime allocates for a thread's first exception, which it cannot do without: where memory is
// short then, it ends the process. False if it is short now; the thread must not throw.
inline bool can_throw() {
  void* const room = std::malloc(std::size_t{1} << 14);  // many times what is needed
  if (room == nullptr) return false;
  std::free(room);
  static std::atomic<int> made{0};  // written, so that the call stays
  made.store(std::uncaught_exceptions(), std::memory_order_relaxed);
  return true;
}

}  // namespace detail

}  // namespace preluflow
