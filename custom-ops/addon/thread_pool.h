// A small persistent pool for work outside ONNX Runtime's own threads: quantizing, sampling, benchmarks.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "fdq/ops.h"

namespace fdq {

class ThreadPool {
 public:
  // `threads` counts the calling thread, which takes part in every run. Fewer when the system refuses more.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Rethrows the first exception of a body, once no thread is in the body any more.
  Parallel parallel();

 private:
  struct Work {
    void (*body)(void*, int64_t) = nullptr;
    void* context = nullptr;
    int64_t count = 0;
    int64_t next = 0;
    int active = 0;
    std::exception_ptr failure;
  };

  static void run(void* pool, int64_t count, void (*body)(void*, int64_t), void* context);
  void worker();
  void drain(std::unique_lock<std::mutex>& lock);

  std::mutex run_mutex_;  // one run at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  Work work_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// The process's pool of this many threads. Never destroyed: idle threads cost nothing, and work may still run while
// the process exits.
ThreadPool& shared_pool(int threads);

}  // namespace fdq
