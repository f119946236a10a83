// The threads of one call.
#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#include <time.h>
#include <csignal>
#endif

#include "check.hpp"
#include "preluflow/parallel.hpp"

namespace preluflow::tests {

namespace {

constexpr double kWork = 1e9;  // flops: enough to be shared

// Waits for it, but not for ever: a system may give no thread at all.
bool comes_true(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// What parallel_for says when body throws; "" if it does not.
template <class Body>
std::string thrown(Team& team, Index tasks, const Body& body) {
  try {
    team.parallel_for(tasks, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

Index sum_of_tasks(Team& team, Index tasks) {
  std::atomic<Index> sum{0};
  team.parallel_for(tasks, [&](Index task) { sum.fetch_add(task + 1, std::memory_order_relaxed); });
  return sum.load();
}

TEST(team_does_every_task_once) {
  for (int threads : {1, 2, 3, 8})
    for (Index tasks : {0, 1, 2, 3, 7, 100, 3000})
      Team::run(threads, kWork, [&](Team& team) {
        std::vector<std::atomic<int>> done(static_cast<std::size_t>(tasks));
        team.parallel_for(tasks, [&](Index task) { done[static_cast<std::size_t>(task)].fetch_add(1); });
        for (const auto& count : done) CHECK(count.load() == 1);
      });
}

TEST(team_shares_large_work_and_keeps_small_work_on_the_calling_thread) {
  const std::thread::id here = std::this_thread::get_id();
  Team::run(3, 1e6, [&](Team& team) {
    std::atomic<int> elsewhere{0};
    team.parallel_for(100, [&](Index) { elsewhere += std::this_thread::get_id() != here; });
    CHECK(elsewhere.load() == 0);
  });
  Team::run(2, kWork, [&](Team& team) {
    std::atomic<bool> helped{false};
    team.parallel_for(2, [&](Index) {
      if (std::this_thread::get_id() != here) helped = true;
      comes_true([&] { return helped.load(); });  // the calling thread leaves the other task to the helper
    });
    CHECK(helped.load());
  });
}

TEST(team_takes_tasks_from_both_ends) {
  const std::thread::id here = std::this_thread::get_id();
  constexpr Index kTasks = 50;
  for (int repeat = 0; repeat < 20; ++repeat)
    Team::run(2, kWork, [&](Team& team) {
      std::vector<Index> mine, others;  // each written to by one thread
      std::atomic<bool> helped{false};
      team.parallel_for(kTasks, [&](Index task) {
        if (std::this_thread::get_id() == here) {
          mine.push_back(task);
          comes_true([&] { return helped.load(); });
        } else {
          others.push_back(task);
          helped = true;
        }
      });
      for (std::size_t k = 0; k < mine.size(); ++k) CHECK(mine[k] == static_cast<Index>(k));
      for (std::size_t k = 0; k < others.size(); ++k) CHECK(others[k] == kTasks - 1 - static_cast<Index>(k));
      CHECK(mine.size() + others.size() == kTasks);
    });
}

// What tasks of one round wrote, without atomics, tasks of the next one read on other threads.
TEST(team_orders_one_round_before_the_next) {
  constexpr std::size_t kTasks = 5;
  const int rounds = kSanitized ? 500 : 4000;
  for (int threads : {2, 3, 5})
    Team::run(threads, kWork, [&](Team& team) {
      std::vector<long> value(kTasks, 0), next(kTasks, 0);
      for (int round = 0; round < rounds; ++round) {
        team.parallel_for(kTasks, [&](Index task) {
          const auto k = static_cast<std::size_t>(task);
          next[k] = value[(k + 1) % kTasks] + task;
        });
        value.swap(next);
      }
      long sum = 0;
      for (long entry : value) sum += entry;
      CHECK(sum == 10L * rounds);
    });
}

TEST(team_rethrows_what_a_task_throws_and_goes_on) {
  for (int threads : {1, 3})
    Team::run(threads, kWork, [&](Team& team) {
      for (Index at : {0, 1, 57, 99}) {
        CHECK(thrown(team, 100, [&](Index task) {
                if (task == at) throw std::runtime_error("task");
              }) == "task");
        CHECK(sum_of_tasks(team, 100) == 5050);
      }
      CHECK(thrown(team, 100, [](Index) { throw std::runtime_error("all"); }) == "all");
      CHECK(sum_of_tasks(team, 100) == 5050);
    });
}

TEST(team_rethrows_what_a_helper_throws) {
  const std::thread::id here = std::this_thread::get_id();
  for (int repeat = 0; repeat < 20; ++repeat)
    Team::run(2, kWork, [&](Team& team) {
      std::atomic<bool> helped{false};
      CHECK(thrown(team, 2, [&](Index) {
              if (std::this_thread::get_id() != here) {
                helped = true;
                throw std::runtime_error("helper");
              }
              comes_true([&] { return helped.load(); });
            }) == "helper");
      CHECK(sum_of_tasks(team, 10) == 55);
    });
}

TEST(team_of_a_task_is_another_one) {
  Team::run(2, kWork, [&](Team& outer) {
    std::vector<Index> sums(6, 0);
    outer.parallel_for(6, [&](Index task) {
      Team::run(2, kWork, [&](Team& inner) { sums[static_cast<std::size_t>(task)] = sum_of_tasks(inner, 50 + task); });
    });
    for (Index task = 0; task < 6; ++task) CHECK(sums[static_cast<std::size_t>(task)] == (50 + task) * (51 + task) / 2);
  });
}

TEST(team_asks_the_watch_while_its_leader_waits) {
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<int> asked{0};
  std::atomic<bool> helped{false};
  bool elsewhere = false;
  const Interrupt watch = [&] {
    elsewhere = elsewhere || std::this_thread::get_id() != here;
    ++asked;
    return false;
  };
  Team::run(2, kWork, [&](Team& team) {
    team.watch(&watch);
    team.parallel_for(2, [&](Index) {
      if (std::this_thread::get_id() == here) {
        comes_true([&] { return helped.load(); });
      } else {
        helped = true;
        comes_true([&] { return asked.load() > 0; });
      }
    });
  });
  CHECK(asked.load() > 0);
  CHECK(!elsewhere);
}

TEST(team_rethrows_what_the_watch_throws_when_all_tasks_are_done) {
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<bool> helped{false}, thrown_once{false}, finished{false};
  const Interrupt watch = [&]() -> bool {
    if (thrown_once.exchange(true)) return false;
    throw std::runtime_error("watch");
  };
  Team::run(2, kWork, [&](Team& team) {
    team.watch(&watch);
    CHECK(thrown(team, 2, [&](Index) {
            if (std::this_thread::get_id() == here) {
              comes_true([&] { return helped.load(); });
            } else {
              helped = true;
              comes_true([&] { return thrown_once.load(); });
              finished = true;
            }
          }) == "watch");
    CHECK(finished.load());
  });
}

TEST(team_leaves_a_round_early_however_many_tasks_it_has) {
  for (int threads : {1, 2, 4})
    Team::run(threads, kWork, [&](Team& team) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        CHECK(thrown(team, Index{1} << 40, [](Index) { throw std::runtime_error("early"); }) == "early");
        CHECK(sum_of_tasks(team, 3) == 6);
      }
    });
}

struct Rounds {
  long wrong = 0, helped = 0;  // rounds, and tasks done by helpers
};

// One round, in a frame that ends with it: whoever comes late must find neither this body nor what it refers to. It is
// right if each task is done once or, if the round is to fail, at most once.
PRELUFLOW_NOINLINE void one_round(Team& team, int round, Index tasks, bool fail, Rounds& rounds) {
  constexpr std::size_t kMostTasks = 8;
  std::atomic<int> done[kMostTasks] = {};
  std::atomic<int> mistaken{0}, helped{0};
  const std::thread::id leader = std::this_thread::get_id();
  const std::string said = thrown(team, tasks, [&](Index task) {
    if (task < 0 || task >= tasks) {
      ++mistaken;
      return;
    }
    if (std::this_thread::get_id() != leader) {
      ++helped;
    } else if (round % 2 == 0) {
      std::this_thread::yield();  // to a helper, on a busy machine
    }
    done[static_cast<std::size_t>(task)].fetch_add(1, std::memory_order_relaxed);
    if (fail && task == round % tasks) throw std::runtime_error("round " + std::to_string(round));
  });
  rounds.helped += helped.load();
  bool right = mistaken.load() == 0 && said == (fail ? "round " + std::to_string(round) : "");
  for (Index task = 0; task < static_cast<Index>(kMostTasks); ++task) {
    const int count = done[static_cast<std::size_t>(task)].load();
    right = right && (task >= tasks ? count == 0 : fail ? count <= 1 : count == 1);
  }
  rounds.wrong += !right;
}

// Rounds until helpers have had their share of them, which on a busy machine may not be soon; before(round) comes
// first.
template <class Before>
Rounds many_rounds(Team& team, const Before& before) {
  const long enough = kSanitized ? 2000 : 20000;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  Rounds rounds;
  for (int round = 0; rounds.helped < enough && std::chrono::steady_clock::now() < end; ++round) {
    before(round);
    one_round(team, round, 2 + round % 3, round % 5 == 4, rounds);
  }
  return rounds;
}

TEST(team_keeps_rounds_apart_with_more_threads_than_tasks) {
  for (int threads : {2, 3, 9})
    Team::run(threads, kWork, [&](Team& team) { CHECK(many_rounds(team, [](int) {}).wrong == 0); });
}

#if !defined(_WIN32)

// While one lives, a thread that gets SIGTRAP, which helpers do not block, calls `handler` wherever it is.
class OnTrap {
 public:
  explicit OnTrap(void (*handler)(int)) {
    struct sigaction action = {};
    action.sa_handler = handler;
    sigaction(SIGTRAP, &action, &before_);
  }
  ~OnTrap() { sigaction(SIGTRAP, &before_, nullptr); }
  OnTrap(const OnTrap&) = delete;
  OnTrap& operator=(const OnTrap&) = delete;

 private:
  struct sigaction before_;
};

// Whether there is a helper, and which.
bool find_helper(Team& team, pthread_t& helper) {
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<bool> found{false};
  team.parallel_for(2, [&](Index) {
    if (std::this_thread::get_id() != here && !found) {
      helper = pthread_self();
      found = true;
    }
    comes_true([&] { return found.load(); });
  });
  return found.load();
}

std::atomic<bool> stopped{false}, released{false};

void stop(int) {
  stopped = true;
  while (!released) std::this_thread::yield();
}

TEST(team_does_not_wait_for_a_helper_that_has_claimed_nothing) {
  stopped = released = false;
  const OnTrap trap(stop);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  bool waited = false;
  const Interrupt watch = [&] {  // the way out for a leader that does wait
    if (stopped && !released && std::chrono::steady_clock::now() > end) waited = released = true;
    return false;
  };
  Team::run(2, kWork, [&](Team& team) {
    team.watch(&watch);
    pthread_t helper{};
    CHECK(find_helper(team, helper));
    pthread_kill(helper, SIGTRAP);
    CHECK(comes_true([] { return stopped.load(); }));
    for (Index tasks : {2, 3, 100, 2, 1000}) CHECK(sum_of_tasks(team, tasks) == tasks * (tasks + 1) / 2);
    CHECK(thrown(team, 5, [](Index) { throw std::runtime_error("alone"); }) == "alone");
    CHECK(!waited);
    released = true;
    CHECK(sum_of_tasks(team, 100) == 5050);
    CHECK(find_helper(team, helper));  // and it is back
  });
}

void sleep_a_little(int) {
  const timespec time = {0, 100000};  // 0.1 ms: many rounds
  nanosleep(&time, nullptr);
}

// Stops helpers at any instruction, so between their look at what is left and their claim too, while rounds go on.
TEST(team_keeps_rounds_apart_from_helpers_that_are_stopped_anywhere) {
  const OnTrap trap(sleep_a_little);
  for (int threads : {2, 4})
    Team::run(threads, kWork, [&](Team& team) {
      pthread_t helper{};
      CHECK(find_helper(team, helper));
      CHECK(many_rounds(team, [&](int round) {
              if (round % 20 == 0) pthread_kill(helper, SIGTRAP);
            }).wrong == 0);
    });
}

#endif

TEST(team_starts_and_ends_many_times) {
  Index sum = 0;
  const int calls = kSanitized ? 50 : 300;
  for (int call = 0; call < calls; ++call)
    Team::run(3, kWork, [&](Team& team) { sum += call % 2 == 0 ? sum_of_tasks(team, 4) : 10; });
  CHECK(sum == Index{10} * calls);
}

}  // namespace

}  // namespace preluflow::tests
