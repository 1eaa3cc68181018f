// The pool outside ONNX Runtime: every index once, concurrent runs, exceptions of a body on any thread.
#include "addon/thread_pool.h"

#include <atomic>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace fdq_test {
namespace {

constexpr int64_t kItems = 1000;

void check_every_index_once(fdq::ThreadPool& pool, int64_t count) {
  std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
  pool.parallel()(count, [&](int64_t i) { seen[static_cast<size_t>(i)].fetch_add(1); });
  int64_t wrong = 0;
  for (const auto& times : seen) wrong += times.load() != 1;
  CHECK(wrong == 0, "%d of %d", static_cast<int>(wrong), static_cast<int>(count));
}

void check_exception(fdq::ThreadPool& pool, int64_t failing) {
  std::atomic<int> inside{0};
  std::string caught;
  try {
    pool.parallel()(kItems, [&](int64_t i) {
      inside.fetch_add(1);
      struct Leave {
        std::atomic<int>& count;
        ~Leave() { count.fetch_sub(1); }
      } leave{inside};
      if (i == failing) throw std::runtime_error("item " + std::to_string(i));
      if (i > failing) throw std::bad_alloc();
    });
  } catch (const std::exception& error) {
    caught = error.what();
  }
  CHECK(!caught.empty(), "the exception of item %d is lost", static_cast<int>(failing));
  CHECK(inside.load() == 0, "%d bodies still run", inside.load());
  check_every_index_once(pool, kItems);
}

void check_concurrent_runs(fdq::ThreadPool& pool) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int r = 0; r < 50; ++r) pool.parallel()(20, [&](int64_t i) { sum.fetch_add(i); });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum.load() == 4 * 50 * 190, "%d", static_cast<int>(sum.load()));
}

}  // namespace
}  // namespace fdq_test

int main() {
  for (int threads : {1, 2, 5}) {
    fdq::ThreadPool pool(threads);
    CHECK(pool.parallel().num_threads == threads, "%d", threads);
    for (int64_t count : {int64_t{0}, int64_t{1}, int64_t{2}, fdq_test::kItems}) {
      fdq_test::check_every_index_once(pool, count);
    }
    for (int64_t failing : {int64_t{0}, int64_t{1}, fdq_test::kItems - 1}) fdq_test::check_exception(pool, failing);
    fdq_test::check_concurrent_runs(pool);
  }
  CHECK(&fdq::shared_pool(3) == &fdq::shared_pool(3), "one pool for each size");
  return fdq_test::finish("thread_pool");
}
