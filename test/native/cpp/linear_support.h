// What the native tests of the linear kernels and quantizers share.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"
#include "fdq/ops.h"

namespace fdq::test {

// xorshift64*: the same numbers everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1dull;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>((next() >> 11) % static_cast<uint64_t>(n)); }
  // About normal, variance 1.
  float normal() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(next() >> 40) / 16777216.0f - 0.5f;
    return sum * 1.7320508f;
  }

 private:
  uint64_t state_;
};

// Bytes that end right before a page that must not be touched, `misalign` bytes short of it.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t pages = (bytes + page - 1) / page + 1;
    mapped_ = pages * page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(base_ != MAP_FAILED, "mmap of %zu bytes", mapped_);
    CHECK(mprotect(base_ + mapped_ - page, page, PROT_NONE) == 0, "mprotect");
    data_ = base_ + mapped_ - page - bytes;
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }

  uint8_t* bytes() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t size() const { return bytes_; }
  void protect() { CHECK(mprotect(base_, mapped_, PROT_READ) == 0, "mprotect"); }

 private:
  size_t bytes_, mapped_;
  uint8_t* base_;
  uint8_t* data_;
};

// Runs items on `threads` fresh threads, handed out in turn.
struct ThreadRunner {
  static void run(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
    const int threads = *static_cast<int*>(pool);
    std::vector<std::thread> others;
    const auto work = [&](int first) {
      for (int64_t i = first; i < count; i += threads) body(context, i);
    };
    for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
    work(0);
    for (std::thread& other : others) other.join();
  }
};

inline Parallel parallel_on(int* threads) { return {ThreadRunner::run, threads, *threads}; }

inline std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (int i = 0; i <= static_cast<int>(detect_isa()); ++i) all.push_back(static_cast<Isa>(i));
  return all;
}

inline const char* format_name(WeightFormat format) {
  static const char* const kNames[] = {"float32", "float16", "bfloat16", "int8", "int4", "e4m3", "int2", "nf4", "e2m1"};
  return kNames[static_cast<int>(format)];
}

}  // namespace fdq::test
