// preluflow_tests [PREFIX]: runs the tests whose names begin so; exit code 1 after any failure, or if there is none.
#include <cstdio>
#include <exception>

#include "check.hpp"
#include "preluflow/thread.hpp"

namespace preluflow::tests {

namespace {
int failures = 0;
}  // namespace

std::vector<Test>& registry() {
  static std::vector<Test> tests;
  return tests;
}

void fail(const char* file, int line, const std::string& what) {
  constexpr int kShown = 20;
  if (++failures <= kShown) std::printf("%s:%d: %s\n", file, line, what.c_str());
}

namespace {

int run(const std::string& prefix) {
  int ran = 0;
  for (const Test& test : registry()) {
    if (test.name.compare(0, prefix.size(), prefix) != 0) continue;
    const int before = failures;
    try {
      test.run();
    } catch (const std::exception& error) {
      fail(test.name.c_str(), 0, std::string("threw ") + error.what());
    }
    std::printf("%s %s\n", failures == before ? "passed" : "FAILED", test.name.c_str());
    std::fflush(stdout);
    ++ran;
  }
  std::printf("%d tests, %d failures\n", ran, failures);
  return ran == 0 || failures > 0 ? 1 : 0;
}

}  // namespace

}  // namespace preluflow::tests

int main(int argc, char** argv) {
  preluflow::detail::count_forks();  // as the module does when it is loaded
  return preluflow::tests::run(argc > 1 ? argv[1] : "");
}
