// The smallest test harness that does the job: CHECK counts and prints failures, finish() is main's result.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace fdq_test {

inline int g_failures = 0;
inline long g_checks = 0;

inline int finish(const char* name) {
  std::printf("%s: %ld checks, %d failures\n", name, g_checks, g_failures);
  return g_failures == 0 && g_checks > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace fdq_test

// The arguments after the condition are printf's and say which case failed.
#define CHECK(condition, ...)                                     \
  do {                                                            \
    ++fdq_test::g_checks;                                         \
    if (!(condition) && ++fdq_test::g_failures <= 20) {           \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
    }                                                             \
  } while (0)
