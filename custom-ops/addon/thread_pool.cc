#include "addon/thread_pool.h"

#include <map>
#include <memory>
#include <system_error>

namespace fdq {

ThreadPool::ThreadPool(int threads) {
  threads_.reserve(static_cast<size_t>(threads));
  try {
    for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { worker(); });
  } catch (const std::system_error&) {
    // A limit on threads: those that started are enough.
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Parallel ThreadPool::parallel() { return {&ThreadPool::run, this, static_cast<int>(threads_.size()) + 1}; }

void ThreadPool::run(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
  auto* self = static_cast<ThreadPool*>(pool);
  if (count == 1) return body(context, 0);
  std::lock_guard<std::mutex> one_run(self->run_mutex_);
  std::unique_lock<std::mutex> lock(self->mutex_);
  self->work_ = {body, context, count, 0, 0, nullptr};
  self->wake_.notify_all();
  self->drain(lock);
  self->done_.wait(lock, [self] { return self->work_.active == 0; });
  const std::exception_ptr failure = self->work_.failure;
  self->work_ = {};
  if (failure) std::rethrow_exception(failure);
}

// Takes items until none is left. The lock is held on entry and on return, never while an item runs.
void ThreadPool::drain(std::unique_lock<std::mutex>& lock) {
  while (work_.next < work_.count) {
    const int64_t index = work_.next++;
    ++work_.active;
    lock.unlock();
    std::exception_ptr failure;
    try {
      work_.body(work_.context, index);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure) {
      if (!work_.failure) work_.failure = failure;
      work_.next = work_.count;
    }
    --work_.active;
  }
}

void ThreadPool::worker() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || work_.next < work_.count; });
    if (stopping_) return;
    drain(lock);
    if (work_.active == 0) done_.notify_all();
  }
}

ThreadPool& shared_pool(int threads) {
  static std::mutex mutex;
  static auto* pools = new std::map<int, std::unique_ptr<ThreadPool>>();
  std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<ThreadPool>& pool = (*pools)[threads];
  if (!pool) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

}  // namespace fdq
