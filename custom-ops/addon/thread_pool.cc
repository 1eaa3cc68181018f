#include "addon/thread_pool.h"

#include <map>
#include <memory>

namespace fdq {

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { worker(); });
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
  std::lock_guard<std::mutex> one_run(self->run_mutex_);
  std::unique_lock<std::mutex> lock(self->mutex_);
  self->work_ = {body, context, count, 0, 0};
  self->wake_.notify_all();
  self->drain(lock);
  self->done_.wait(lock, [self] { return self->work_.active == 0; });
  self->work_ = {};
}

// Takes items until none is left. The lock is held on entry and on return, never while an item runs.
void ThreadPool::drain(std::unique_lock<std::mutex>& lock) {
  while (work_.next < work_.count) {
    const int64_t index = work_.next++;
    ++work_.active;
    lock.unlock();
    work_.body(work_.context, index);
    lock.lock();
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
