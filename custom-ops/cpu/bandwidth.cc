#include "fdq/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace fdq {
namespace {

constexpr int kPasses = 4;

// Eight independent sums keep as many loads in flight; the compiler turns each into vector adds.
uint64_t sum_words(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

double read_bandwidth(int64_t bytes_per_thread, const Parallel& parallel) {
  const auto count = static_cast<size_t>(bytes_per_thread / 8);
  const int64_t threads = parallel.num_threads;
  std::vector<std::vector<uint64_t>> buffers(static_cast<size_t>(threads));
  parallel(threads, [&](int64_t t) { buffers[static_cast<size_t>(t)].assign(count, static_cast<uint64_t>(t)); });
  double best = 0;
  volatile uint64_t sink = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<uint64_t> totals(static_cast<size_t>(threads));
    parallel(threads, [&](int64_t t) {
      totals[static_cast<size_t>(t)] = sum_words(buffers[static_cast<size_t>(t)].data(), count);
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    for (uint64_t total : totals) sink = sink + total;
    best = std::max(best, static_cast<double>(threads) * static_cast<double>(count) * 8 / elapsed.count());
  }
  return best;
}

}  // namespace fdq
