// Asynchronous copies: cp.async, TMA and its stores; and ldmatrix.
#include <algorithm>
#include <cstring>

#include "cuda/emulator/machine.h"
#include "cuda/emulator/map.h"

namespace fdq::emu {
namespace {

constexpr unsigned char kPoison = 0xff;  // a NaN in every float format
constexpr unsigned kEarly = 96;          // chance of 256 that a copy ends where it starts

// In both views of shared memory.
void poison(Block& block, int64_t offset, int64_t bytes) {
  std::memset(block.shared + offset, kPoison, static_cast<size_t>(bytes));
  std::memset(block.settled.data() + offset, kPoison, static_cast<size_t>(bytes));
}

// Reads, or writes, the elements of a box that lie in the matrix: visit(box byte offset, global byte offset
// or -1, bytes) for runs of 16 bytes of the box.
template <typename Visit>
void visit_box(const EncodedMap& map, int64_t row, int64_t column, const Visit& visit) {
  const int64_t width = static_cast<int64_t>(map.box_columns) * map.element_bytes;
  const int64_t first = column * map.element_bytes;
  const int64_t end = static_cast<int64_t>(map.columns) * map.element_bytes;
  for (int64_t r = 0; r < map.box_rows; ++r) {
    const bool has_row = row + r >= 0 && row + r < static_cast<int64_t>(map.rows);
    for (int64_t byte = 0; byte < width; ++byte) {
      const int64_t at = first + byte;
      const bool is_inside = has_row && at >= 0 && at < end;
      visit(r * width + byte, is_inside ? (row + r) * static_cast<int64_t>(map.row_bytes) + at : -1);
    }
  }
}

// Where byte `offset` of a box lies: the swizzle xors address bits 4 and up with those from 7 on.
int64_t swizzled(const EncodedMap& map, int64_t base, int64_t offset) {
  const int64_t address = base + offset;
  const int64_t mask = map.swizzle_bytes / 16 - 1;
  return map.swizzle_bytes == 0 ? address : address ^ ((address >> 7 & mask) << 4);
}

void check_box(const EncodedMap& map, const char* what, int64_t offset) {
  if (map.magic != kMapMagic) fault("%s with something that is no tensor map", what);
  const int64_t alignment = map.swizzle_bytes == 0 ? 128 : map.swizzle_bytes * 8;
  if (offset % alignment != 0) {
    fault("%s at offset %lld of shared memory, which is not a multiple of %lld", what,
          static_cast<long long>(offset), static_cast<long long>(alignment));
  }
}

int64_t box_bytes(const EncodedMap& map) {
  return static_cast<int64_t>(map.box_rows) * map.box_columns * map.element_bytes;
}

// A copy to `target` that ends by completing bytes on a barrier.
void start_load(Block& target, const char* what, int64_t offset, int64_t bytes, int64_t barrier,
                std::function<void(unsigned char*)> read) {
  const PhaseBarrier& state = phase_barrier(target, what, target.shared + barrier);
  if (!state.is_fenced) fault("an mbarrier is used by a copy before fence_barrier_init");
  check_settled(target, what, offset, bytes, true);
  poison(target, offset, bytes);
  auto copy = std::make_shared<Copy>();
  copy->target = &target;
  copy->offset = offset;
  copy->bytes = bytes;
  copy->run = [&target, offset, bytes, barrier, read = std::move(read)] {
    read(target.shared);
    std::memcpy(target.settled.data() + offset, target.shared + offset, static_cast<size_t>(bytes));
    complete_bytes(target, barrier, bytes);
  };
  start_copy(copy);
}

void wait_groups(CopyGroups& copies, int pending) {
  auto& groups = copies.groups;
  while (static_cast<int>(groups.size()) - 1 > pending) {
    for (const auto& copy : groups.front()) finish_copy(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace

void start_copy(const std::shared_ptr<Copy>& copy) {
  machine().copies.push_back(copy);
  if (machine().draw.chance(kEarly)) finish_copy(copy);
}

void finish_copy(const std::shared_ptr<Copy>& copy) {
  if (copy->is_done) return;
  auto& copies = machine().copies;
  copies.erase(std::find(copies.begin(), copies.end(), copy));
  copy->is_done = true;
  machine().idle_steps = 0;
  copy->run();
}

void cp_async(void* shared, const void* global, int bytes) {
  Block& block = *self().block;
  check_aligned("cp_async", shared, 16);
  check_aligned("cp_async", global, 16);
  if (bytes < 0 || bytes > 16) fault("cp_async of %d bytes", bytes);
  const int64_t offset = shared_offset(block, "cp_async", shared, 16);
  check_settled(block, "cp_async", offset, 16, true);
  std::memset(block.shared + offset, kPoison, 16);
  auto copy = std::make_shared<Copy>();
  copy->target = &block;
  copy->offset = offset;
  copy->bytes = 16;
  // By the generic proxy: wgmma does not see it without a fence.
  copy->run = [&block, offset, global, bytes] {
    std::memset(block.shared + offset, 0, 16);
    std::memcpy(block.shared + offset, global, static_cast<size_t>(bytes));
  };
  self().loads.groups.back().push_back(copy);
  start_copy(copy);
}
void cp_async_commit() { self().loads.groups.emplace_back(); }
void cp_async_wait(int pending) { wait_groups(self().loads, pending); }

void tma_load(void* shared, const void* map_pointer, uint64_t* barrier, int row, int column,
              uint16_t blocks) {
  Block& block = *self().block;
  const auto& map = *static_cast<const EncodedMap*>(map_pointer);
  const int64_t bytes = box_bytes(map);
  const int64_t offset = shared_offset(block, "tma_load", shared, bytes);
  check_box(map, "tma_load", offset);
  const int64_t barrier_offset = shared_offset(block, "tma_load's barrier", barrier, 8);
  const uint32_t targets = blocks == 0 ? 1u << block.rank : blocks;
  if (targets >> block.cluster->blocks.size() != 0) fault("tma_load to blocks %x of the cluster", targets);
  for (Block* target : block.cluster->blocks) {
    if ((targets >> target->rank & 1) == 0) continue;
    if (target->running == 0) fault("tma_load to block %u of the cluster, which has ended", target->rank);
    start_load(*target, "tma_load", offset, bytes, barrier_offset, [=](unsigned char* out) {
      const auto* base = reinterpret_cast<const unsigned char*>(map.base);
      visit_box(map, row, column, [&](int64_t at, int64_t global) {
        out[swizzled(map, offset, at)] = global < 0 ? 0 : base[global];
      });
    });
  }
}

void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  Block& block = *self().block;
  check_aligned("bulk_load", shared, 16);
  check_aligned("bulk_load", global, 16);
  if (bytes == 0 || bytes % 16 != 0) fault("bulk_load of %u bytes", bytes);
  const int64_t offset = shared_offset(block, "bulk_load", shared, bytes);
  const int64_t barrier_offset = shared_offset(block, "bulk_load's barrier", barrier, 8);
  start_load(block, "bulk_load", offset, bytes, barrier_offset,
             [=](unsigned char* out) { std::memcpy(out + offset, global, bytes); });
}

void tma_store(const void* map_pointer, const void* shared, int row, int column) {
  Block& block = *self().block;
  const auto& map = *static_cast<const EncodedMap*>(map_pointer);
  const int64_t bytes = box_bytes(map);
  const int64_t offset = shared_offset(block, "tma_store", shared, bytes);
  check_box(map, "tma_store", offset);
  settled(block, "tma_store", offset, bytes);
  auto copy = std::make_shared<Copy>();
  copy->target = &block;
  copy->offset = offset;
  copy->bytes = bytes;
  copy->writes_shared = false;
  copy->run = [=, &block] {
    const unsigned char* from = settled(block, "tma_store", offset, bytes) - offset;
    auto* base = reinterpret_cast<unsigned char*>(map.base);
    visit_box(map, row, column, [&](int64_t at, int64_t global) {
      if (global >= 0) base[global] = from[swizzled(map, offset, at)];
    });
  };
  self().stores.groups.back().push_back(copy);
  start_copy(copy);
}
void tma_store_commit() { self().stores.groups.emplace_back(); }
void tma_store_wait(int pending) { wait_groups(self().stores, pending); }

void check_copies_ended(const Block& block) {
  for (const auto& copy : machine().copies) {
    if (copy->target == &block) fault("a block ended while a copy of its shared memory is under way");
  }
  for (const auto& thread : block.threads) {
    for (const auto* copies : {&thread->loads, &thread->stores}) {
      const auto& groups = copies->groups;
      const bool is_waited_for =
          std::all_of(groups.begin(), groups.end(), [](const auto& g) { return g.empty(); });
      if (!is_waited_for) fault("thread %d ended without waiting for its copies", thread->index);
    }
  }
  for (const auto& [offset, barrier] : block.phases) {
    if (barrier.bytes != 0) {
      fault("a block ended with %lld bytes missing at the mbarrier at offset %lld",
            static_cast<long long>(barrier.bytes), static_cast<long long>(offset));
    }
  }
}

void load_matrix(uint32_t (&out)[4], const void* shared_row, int matrices) {
  struct Record {
    const void* row;
    uint32_t* out;
  } record{shared_row, out};
  collective("ldmatrix", &record, [&](void* const* records) {
    const Block& block = *self().block;
    for (int lane = 0; lane < 8 * matrices; ++lane) {
      const auto& from = *static_cast<const Record*>(records[lane]);
      check_aligned("ldmatrix", from.row, 16);
      const int64_t offset = shared_offset(block, "ldmatrix", from.row, 16);
      check_settled(block, "ldmatrix", offset, 16, false);
      for (int t = 0; t < 4; ++t) {
        auto& to = *static_cast<const Record*>(records[lane % 8 * 4 + t]);
        std::memcpy(&to.out[lane / 8], block.shared + offset + 4 * t, 4);
      }
    }
  });
}

}  // namespace fdq::emu
