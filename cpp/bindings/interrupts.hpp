// Ctrl-C while the core computes with the GIL released.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "preluflow/interrupt.hpp"

namespace preluflow::bindings {

// Made on the thread that calls from Python. Asked by any thread; that thread lets Python run its signal handlers a few
// times a second, and what they raise is kept until rethrow().
class Signals {
 public:
  Interrupt interrupt() {
    return [this] { return look(); };
  }

  // With the GIL held: raises what a handler raised.
  void rethrow() {
    if (error_) throw *error_;
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool look() {
    if (stop_.load(std::memory_order_relaxed)) return true;
    if (std::this_thread::get_id() != caller_) return false;
    const auto now = Clock::now();
    if (now - last_ < std::chrono::milliseconds(30)) return false;
    last_ = now;
    const pybind11::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() == 0) return false;
    error_.emplace();  // fetches what was raised
    stop_.store(true, std::memory_order_relaxed);
    return true;
  }

  std::thread::id caller_ = std::this_thread::get_id();
  Clock::time_point last_ = Clock::now();
  std::atomic<bool> stop_{false};
  std::optional<pybind11::error_already_set> error_;
};

}  // namespace preluflow::bindings
