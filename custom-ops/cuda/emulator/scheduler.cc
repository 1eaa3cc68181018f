// Runs the blocks of a grid: which thread goes next is drawn, so that each seed is another order of events.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <mutex>
#include <numeric>
#include <set>

#include "cuda/emulator/machine.h"

namespace fdq::emu {
namespace {

constexpr int64_t kPage = 4096;
constexpr unsigned char kCanary = 0xa5;
constexpr uint64_t kMaxIdleSteps = 1 << 20;
constexpr uint64_t kResidentClusters = 3;

uint64_t g_seed = 1;
Device g_device;
Machine* g_machine = nullptr;
std::mutex g_mutex;  // there is one machine: grids of other threads wait for it

int64_t mapped_bytes(int64_t shared_bytes) { return (shared_bytes + kPage - 1) / kPage * kPage; }

// A page that must not be touched on either side; what is left of the last page holds canaries.
void allocate_shared(Block& block, int64_t bytes, Draw& draw) {
  const int64_t mapped = mapped_bytes(bytes);
  void* memory =
      mmap(nullptr, static_cast<size_t>(mapped + 2 * kPage), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  block.shared = static_cast<unsigned char*>(memory) + kPage;
  if (mapped > 0) mprotect(block.shared, static_cast<size_t>(mapped), PROT_READ | PROT_WRITE);
  block.shared_bytes = bytes;
  std::memset(block.shared, kCanary, static_cast<size_t>(mapped));
  // What an earlier block left.
  for (int64_t i = 0; i < bytes; ++i) block.shared[i] = static_cast<unsigned char>(draw.below(256));
  block.settled.assign(block.shared, block.shared + bytes);
}

void release_shared(Block& block) {
  munmap(block.shared - kPage, static_cast<size_t>(mapped_bytes(block.shared_bytes) + 2 * kPage));
}

// Unwinds the stacks of threads that wait when a run is given up.
struct GivenUp {};

void run_thread(void* argument) {
  auto& thread = *static_cast<Thread*>(argument);
  try {
    (*machine().kernel)();
  } catch (const Fault& error) {
    machine().fault = error.what();
  } catch (const GivenUp&) {
  }
  thread.has_ended = true;
  thread.fiber->suspend();
}

void pause(Thread& thread) {
  thread.fiber->suspend();
  if (machine().is_given_up) throw GivenUp();
}

void make_ready(Thread& thread) {
  Warp& warp = *thread.warp;
  warp.ready.push_back(&thread);
  if (!warp.is_listed) machine().ready.push_back(&warp);
  warp.is_listed = true;
}

dim3 position_of(int64_t index, const dim3& extent) {
  const auto i = static_cast<unsigned>(index);
  return dim3(i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y);
}

void add_thread(Machine& m, Block& block, Warp& warp, int index) {
  std::unique_ptr<Thread> thread = std::make_unique<Thread>();
  if (!m.spare.empty()) {
    thread->fiber = std::move(m.spare.back()->fiber);
    m.spare.pop_back();
    thread->fiber->restart(run_thread, thread.get());
  } else {
    thread->fiber = std::make_unique<Fiber>(run_thread, thread.get());
  }
  thread->block = &block;
  thread->warp = &warp;
  thread->index = index;
  thread->lane = index % 32;
  thread->position = position_of(index, m.grid.block);
  block.threads.push_back(std::move(thread));
  make_ready(*block.threads.back());
}

void add_block(Machine& m, Cluster& cluster, int64_t index) {
  m.blocks.push_back(std::make_unique<Block>());
  Block& block = *m.blocks.back();
  block.position = position_of(index, m.grid.grid);
  block.rank = static_cast<uint32_t>(cluster.blocks.size());
  block.cluster = &cluster;
  allocate_shared(block, m.grid.shared_bytes, m.draw);
  const int threads = static_cast<int>(m.grid.block.x * m.grid.block.y * m.grid.block.z);
  for (int t = 0; t < threads; ++t) {
    if (t % 32 == 0) {
      block.warps.push_back(std::make_unique<Warp>());
      block.warps.back()->block = &block;
      block.warps.back()->index = t / 32;
    }
    add_thread(m, block, *block.warps.back(), t);
  }
  block.running = threads;
  cluster.blocks.push_back(&block);
  cluster.threads += threads;
}

std::string name_of(const Block& block) {
  char text[64];
  std::snprintf(text, sizeof text, "block (%u, %u, %u)", block.position.x, block.position.y,
                block.position.z);
  return text;
}

// Who waits for what, one line for all lanes of a warp that wait for the same.
std::string describe_waiting(const Machine& m) {
  std::string text;
  for (const auto& block : m.blocks) {
    for (const auto& warp : block->warps) {
      std::map<std::string, int> reasons;
      for (const auto& thread : block->threads) {
        if (thread->warp != warp.get() || thread->has_ended) continue;
        ++reasons[thread->describe != nullptr ? thread->describe(*thread) : "nothing"];
      }
      for (const auto& [reason, lanes] : reasons) {
        text += "\n  " + name_of(*block) + " warp " + std::to_string(warp->index) + ": " +
                std::to_string(lanes) + " lanes wait for " + reason;
      }
    }
  }
  return text;
}

void end_block(Machine& m, Block& block) {
  for (size_t i = 0; i < std::size(block.barriers); ++i) {
    if (block.barriers[i].arrived > 0)
      fault("a block ended with arrivals left at barrier %d", static_cast<int>(i));
  }
  check_registers(block);
  check_products_ended(block);
  check_copies_ended(block);
  for (int64_t i = block.shared_bytes; i < mapped_bytes(block.shared_bytes); ++i) {
    if (block.shared[i] != kCanary) {
      fault("shared memory was written at byte %lld, beyond its %lld bytes", static_cast<long long>(i),
            static_cast<long long>(block.shared_bytes));
    }
  }
  for (auto& thread : block.threads) m.spare.push_back(std::move(thread));
  block.threads.clear();
}

// The blocks of a cluster leave together: until then others may reach their shared memory.
void remove_ended_clusters(Machine& m) {
  for (auto& cluster : m.clusters) {
    const bool has_ended = std::all_of(cluster->blocks.begin(), cluster->blocks.end(),
                                       [](const Block* block) { return block->running == 0; });
    if (!has_ended) continue;
    for (Block* block : cluster->blocks) {
      release_shared(*block);
      m.blocks.erase(std::find_if(m.blocks.begin(), m.blocks.end(),
                                  [&](const auto& other) { return other.get() == block; }));
    }
    cluster.reset();
  }
  m.clusters.erase(std::remove(m.clusters.begin(), m.clusters.end(), nullptr), m.clusters.end());
}

void step(Machine& m) {
  if (!m.copies.empty() && (m.ready.empty() || m.draw.chance(m.eager))) {
    const auto copy = m.copies[m.draw.below(m.copies.size())];
    return finish_copy(copy);
  }
  const bool stays = m.current_warp != nullptr && m.current_warp->is_listed && m.draw.chance(m.stay);
  Warp& warp = stays ? *m.current_warp : *m.ready[m.draw.below(m.ready.size())];
  m.current_warp = &warp;
  std::swap(warp.ready[m.draw.below(warp.ready.size())], warp.ready.back());
  Thread& thread = *warp.ready.back();
  warp.ready.pop_back();
  if (warp.ready.empty()) {
    warp.is_listed = false;
    m.ready.erase(std::find(m.ready.begin(), m.ready.end(), &warp));
  }
  m.current = &thread;
  thread.has_started = true;
  threadIdx = thread.position;
  blockIdx = thread.block->position;
  thread.fiber->resume();
  m.current = nullptr;
  if (!m.fault.empty() || !thread.has_ended) return;
  Block& block = *thread.block;
  m.idle_steps = 0;
  if (--block.running == 0) {
    m.current_warp = nullptr;
    end_block(m, block);
  }
}

void run_clusters(Machine& m) {
  const int64_t count = static_cast<int64_t>(m.grid.grid.x) * m.grid.grid.y * m.grid.grid.z;
  std::vector<int64_t> waiting(static_cast<size_t>(count / m.grid.cluster));
  std::iota(waiting.begin(), waiting.end(), 0);
  for (size_t i = waiting.size(); i > 1; --i) std::swap(waiting[i - 1], waiting[m.draw.below(i)]);
  const uint64_t resident = 1 + m.draw.below(kResidentClusters);
  while (m.fault.empty() && (!waiting.empty() || !m.clusters.empty())) {
    while (!waiting.empty() && m.clusters.size() < resident) {
      m.clusters.push_back(std::make_unique<Cluster>());
      for (unsigned i = 0; i < m.grid.cluster; ++i) {
        add_block(m, *m.clusters.back(), waiting.back() * m.grid.cluster + i);
      }
      waiting.pop_back();
    }
    if (m.ready.empty() && m.copies.empty()) {
      const bool is_idle =
          std::any_of(m.blocks.begin(), m.blocks.end(), [](const auto& block) { return block->running > 0; });
      if (is_idle) {
        m.fault = "deadlock: every thread waits" + describe_waiting(m);
        return;
      }
    } else {
      step(m);
    }
    remove_ended_clusters(m);
  }
}

}  // namespace

uint64_t Draw::below(uint64_t n) {
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  return (state_ * 0x2545f4914f6cdd1dull >> 11) % n;
}

void set_seed(uint64_t seed) { g_seed = seed; }
Device& device() { return g_device; }
Machine& machine() { return *g_machine; }

void fault(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  Machine& m = machine();
  if (m.current == nullptr) throw Fault(text);  // on the stack of the scheduler
  const Thread& thread = *m.current;
  throw Fault(name_of(*thread.block) + " thread " + std::to_string(thread.index) + ": " + text);
}

void wait_on(WaitList& list, const char* what, const void* object, uint32_t detail,
             std::string (*describe)(const Thread&)) {
  Thread& thread = self();
  thread.what = what;
  thread.object = object;
  thread.detail = detail;
  thread.describe = describe;
  list.threads.push_back(&thread);
  pause(thread);
}

void wake(WaitList& list) {
  machine().idle_steps = 0;
  for (Thread* thread : list.threads) make_ready(*thread);
  list.threads.clear();
}

void poll(const char* what, const void* object, uint32_t detail, std::string (*describe)(const Thread&)) {
  Machine& m = machine();
  Thread& thread = self();
  thread.what = what;
  thread.object = object;
  thread.detail = detail;
  thread.describe = describe;
  if (++m.idle_steps > kMaxIdleSteps) {
    fault("nothing happens but polling%s", describe_waiting(m).c_str());
  }
  make_ready(thread);
  pause(thread);
}

void run_grid(const Grid& grid, const std::function<void()>& kernel) {
  const unsigned threads = grid.block.x * grid.block.y * grid.block.z;
  const uint64_t blocks = static_cast<uint64_t>(grid.grid.x) * grid.grid.y * grid.grid.z;
  if (threads == 0 || threads > 1024 || threads % 32 != 0) {
    throw Fault("a block has " + std::to_string(threads) + " threads; whole warps up to 1024 are emulated");
  }
  if (grid.grid.y > 65535 || grid.grid.z > 65535 || grid.cluster == 0 || grid.cluster > 8 ||
      grid.grid.x % grid.cluster != 0) {
    throw Fault("the grid or its clusters have a size that CUDA refuses");
  }
  if (grid.shared_bytes > g_device.shared_bytes_per_block) {
    throw Fault(std::to_string(grid.shared_bytes) + " bytes of shared memory are more than a block may have");
  }
  if (blocks == 0) throw Fault("a grid of no blocks");
  const std::lock_guard<std::mutex> lock(g_mutex);
  Machine m;
  m.grid = grid;
  m.kernel = &kernel;
  m.draw = Draw(g_seed);
  constexpr unsigned kChances[] = {0, 128, 240, 255};
  m.stay = kChances[m.draw.below(4)];
  m.eager = kChances[m.draw.below(3)] / 2;
  blockDim = grid.block;
  gridDim = grid.grid;
  g_machine = &m;
  std::string failure;
  try {
    run_clusters(m);
    failure = m.fault;
  } catch (const Fault& error) {
    failure = error.what();
  }
  m.is_given_up = true;
  for (auto& block : m.blocks) {
    for (auto& thread : block->threads) {
      if (thread->has_started && !thread->has_ended) thread->fiber->resume();
    }
    release_shared(*block);
  }
  g_machine = nullptr;
  if (!failure.empty()) throw Fault(failure);
}

}  // namespace fdq::emu
