// Collectives of warps, barriers of blocks and clusters, atomics, and what is found out about shared memory.
#include <algorithm>
#include <cstring>

#include "cuda/emulator/machine.h"

namespace fdq::emu {
namespace {

std::string describe_collective(const Thread& thread) {
  return std::string(thread.what) + " (" + std::to_string(thread.warp->arrived) + " of 32 lanes came)";
}
std::string describe_barrier(const Thread& thread) {
  const auto& barrier = *static_cast<const NamedBarrier*>(thread.object);
  return "barrier " + std::to_string(thread.detail) + " (" + std::to_string(barrier.arrived) + " of " +
         std::to_string(barrier.threads) + " threads came)";
}
std::string describe_cluster(const Thread& thread) {
  const auto& cluster = *static_cast<const Cluster*>(thread.object);
  return "sync_cluster (" + std::to_string(cluster.arrived) + " of " + std::to_string(cluster.threads) +
         " threads came)";
}
std::string describe_poll(const Thread& thread) { return thread.what; }

}  // namespace

void collective(const char* name, void* record, const std::function<void(void* const*)>& action) {
  Thread& thread = self();
  Warp& warp = *thread.warp;
  if (warp.arrived > 0 && std::strcmp(warp.name, name) != 0) {
    fault("lanes of warp %d diverge: this one is at %s, others are at %s", warp.index, name, warp.name);
  }
  warp.name = name;
  warp.records[thread.lane] = record;
  if (++warp.arrived < 32) return wait_on(warp.waiting, name, &warp, 0, describe_collective);
  action(warp.records);
  warp.arrived = 0;
  wake(warp.waiting);
}

std::array<uint32_t, 32> warp_exchange(const char* name, uint32_t value) {
  struct Record {
    uint32_t value;
    std::array<uint32_t, 32> all;
  } record{value, {}};
  collective(name, &record, [](void* const* records) {
    std::array<uint32_t, 32> all;
    for (size_t i = 0; i < 32; ++i) all[i] = static_cast<const Record*>(records[i])->value;
    for (size_t i = 0; i < 32; ++i) static_cast<Record*>(records[i])->all = all;
  });
  return record.all;
}

int block_threads() { return static_cast<int>(blockDim.x * blockDim.y * blockDim.z); }

// A warp arrives as a whole: lanes that are elsewhere would be counted by hardware all the same, or hang.
void block_barrier(int index, int threads, bool wait) {
  if (index < 0 || index > 15 || threads <= 0 || threads % 32 != 0 || threads > block_threads()) {
    fault("barrier %d of %d threads in a block of %d", index, threads, block_threads());
  }
  struct Record {
    int index, threads;
    uint64_t phase;
  } record{index, threads, 0};
  NamedBarrier& barrier = self().block->barriers[index];
  collective(wait ? "bar.sync" : "bar.arrive", &record, [&](void* const* records) {
    for (size_t lane = 0; lane < 32; ++lane) {
      auto& each = *static_cast<Record*>(records[lane]);
      if (each.index != index || each.threads != threads) fault("lanes of a warp are at different barriers");
      each.phase = barrier.phase;
    }
    if (barrier.arrived > 0 && barrier.threads != threads) {
      fault("barrier %d is used with %d and with %d threads", index, barrier.threads, threads);
    }
    barrier.threads = threads;
    barrier.arrived += 32;
    if (barrier.arrived < threads) return;
    barrier.arrived = 0;
    ++barrier.phase;
    wake(barrier.waiting);
  });
  while (wait && barrier.phase == record.phase) {
    wait_on(barrier.waiting, "barrier", &barrier, static_cast<uint32_t>(index), describe_barrier);
  }
}

// What a thread of a block with __launch_bounds__(threads, 1) starts with: each of four partitions has 16384.
int registers_at_launch(int warps) { return 16384 / ((warps + 3) / 4 * 32) / 8 * 8; }

void set_max_registers(int count) {
  if (count < 24 || count > 256 || count % 8 != 0) fault("setmaxnreg of %d registers", count);
  warp_exchange("setmaxnreg", static_cast<uint32_t>(count));
  self().warp->registers = count;
}

// An increase waits until others have given registers back: too many in all never come.
void check_registers(const Block& block) {
  const auto warps = static_cast<int>(block.warps.size());
  const int at_launch = registers_at_launch(warps);
  int total = 0;
  for (const auto& warp : block.warps) {
    total += (warp->registers > 0 ? warp->registers : at_launch) * 32;
    if (warp->registers != block.warps[static_cast<size_t>(warp->index) / 4 * 4]->registers) {
      fault("setmaxnreg by warp %d, but not by all of its warpgroup", warp->index);
    }
  }
  if (total > at_launch * 32 * warps) {
    fault("setmaxnreg asks for %d registers; the block is launched with %d", total, at_launch * 32 * warps);
  }
}

uint32_t cluster_rank() { return self().block->rank; }

void cluster_barrier() {
  Cluster& cluster = *self().block->cluster;
  if (++cluster.arrived == cluster.threads) {
    cluster.arrived = 0;
    return wake(cluster.waiting);
  }
  wait_on(cluster.waiting, "sync_cluster", &cluster, 0, describe_cluster);
}

uint32_t atomic_add(uint32_t* global, uint32_t value) {
  const uint32_t before = *global;
  *global = before + value;
  machine().idle_steps = 0;
  return before;
}

// Others run in between, so a kernel may spin on this, for blocks that are resident with it.
uint32_t load_acquire(const uint32_t* global) {
  const uint32_t value = *global;
  poll("load_acquire", global, 0, describe_poll);
  return value;
}

unsigned char* shared_memory() { return self().block->shared; }

int64_t shared_offset(const Block& block, const char* what, const void* pointer, int64_t bytes) {
  const int64_t offset = static_cast<const unsigned char*>(pointer) - block.shared;
  if (offset < 0 || offset + bytes > block.shared_bytes) {
    fault("%s of %lld bytes at offset %lld of %lld bytes of shared memory", what,
          static_cast<long long>(bytes), static_cast<long long>(offset),
          static_cast<long long>(block.shared_bytes));
  }
  return offset;
}

uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(shared_offset(*self().block, "an address", pointer, 0));
}

void check_aligned(const char* what, const void* pointer, uintptr_t alignment) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) {
    fault("%s at %p, which is not a multiple of %d", what, pointer, static_cast<int>(alignment));
  }
}

void fence_async_shared() {
  Block& block = *self().block;
  std::memcpy(block.settled.data(), block.shared, block.settled.size());
}

const unsigned char* settled(const Block& block, const char* what, int64_t offset, int64_t bytes) {
  check_settled(block, what, offset, bytes, false);
  const unsigned char* seen = block.settled.data() + offset;
  if (std::memcmp(seen, block.shared + offset, static_cast<size_t>(bytes)) != 0) {
    fault(
        "%s reads shared memory at offset %lld that plain stores changed without fence_async_shared, or while"
        " it was read",
        what, static_cast<long long>(offset));
  }
  return seen;
}

void check_settled(const Block& block, const char* what, int64_t offset, int64_t bytes, bool will_write) {
  for (const auto& copy : machine().copies) {
    if (copy->target != &block || (!copy->writes_shared && !will_write)) continue;
    if (offset + bytes <= copy->offset || copy->offset + copy->bytes <= offset) continue;
    fault("%s touches shared memory at offset %lld that a copy under way %s", what,
          static_cast<long long>(offset), copy->writes_shared ? "writes" : "reads");
  }
}

uint16_t float_to_float16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude >= 0x38800000u) {
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<uint16_t>(sign | std::min<uint32_t>((rounded - (112u << 23)) >> 13, 0x7c00u));
  }
  float positive;
  std::memcpy(&positive, &magnitude, sizeof positive);
  const float sum = positive + 0.5f;  // its last place is 2^-24, that of subnormal float16
  uint32_t code;
  std::memcpy(&code, &sum, sizeof code);
  return static_cast<uint16_t>(sign | (code - 0x3f000000u));
}

}  // namespace fdq::emu
