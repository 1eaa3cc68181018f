// mbarriers: what the PTX ISA says of phases, pending arrivals and pending bytes.
#include "cuda/emulator/machine.h"

namespace fdq::emu {
namespace {

constexpr int64_t kMaxBytes = (1 << 20) - 1;  // of a phase, by the PTX ISA

std::string describe_phase(const Thread& thread) {
  const auto& barrier = *static_cast<const PhaseBarrier*>(thread.object);
  return "mbarrier at offset " + std::to_string(barrier.offset) + ", parity " +
         std::to_string(thread.detail) + " (phase " + std::to_string(barrier.phase) + " lacks " +
         std::to_string(barrier.missing) + " arrivals and " + std::to_string(barrier.bytes) + " bytes)";
}

void end_phase_if_complete(PhaseBarrier& barrier) {
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.count;
  wake(barrier.waiting);
}

void arrive(PhaseBarrier& barrier, uint32_t expected_bytes) {
  if (barrier.missing == 0) {
    fault("more arrivals at the mbarrier at offset %lld than its count of %u",
          static_cast<long long>(barrier.offset), barrier.count);
  }
  barrier.bytes += expected_bytes;
  if (barrier.bytes > kMaxBytes)
    fault("an mbarrier expects %lld bytes", static_cast<long long>(barrier.bytes));
  --barrier.missing;
  end_phase_if_complete(barrier);
}

bool is_over(const PhaseBarrier& barrier, uint32_t parity) { return (barrier.phase & 1) != parity; }

}  // namespace

PhaseBarrier& phase_barrier(Block& block, const char* what, const void* barrier) {
  check_aligned(what, barrier, 8);
  const auto found = block.phases.find(shared_offset(block, what, barrier, 8));
  if (found == block.phases.end()) {
    fault("%s at offset %lld, where no mbarrier was initialized", what,
          static_cast<long long>(static_cast<const unsigned char*>(barrier) - block.shared));
  }
  return found->second;
}

void barrier_init(uint64_t* barrier, uint32_t count) {
  Block& block = *self().block;
  check_aligned("barrier_init", barrier, 8);
  if (count == 0 || count > kMaxBytes) fault("an mbarrier for %u arrivals", count);
  PhaseBarrier& state = block.phases[shared_offset(block, "barrier_init", barrier, 8)];
  if (!state.waiting.threads.empty()) fault("barrier_init while threads wait for the mbarrier");
  state = PhaseBarrier();
  state.offset = shared_offset(block, "barrier_init", barrier, 8);
  state.count = count;
  state.missing = count;
  state.owner = &self();
}

void fence_barrier_init() {
  for (auto& [offset, barrier] : self().block->phases) {
    if (barrier.owner == &self()) barrier.is_fenced = true;
  }
}

void barrier_arrive(uint64_t* barrier, uint32_t expected_bytes) {
  arrive(phase_barrier(*self().block, "barrier_arrive", barrier), expected_bytes);
}

void barrier_arrive_cluster(uint64_t* barrier, uint32_t rank) {
  Block& block = *self().block;
  const int64_t offset = shared_offset(block, "barrier_arrive_cluster", barrier, 8);
  if (rank >= block.cluster->blocks.size()) fault("an arrival at block %u of the cluster", rank);
  Block& target = *block.cluster->blocks[rank];
  if (target.running == 0) fault("an arrival at block %u of the cluster, which has ended", rank);
  PhaseBarrier& state = phase_barrier(target, "barrier_arrive_cluster", target.shared + offset);
  if (!state.is_fenced) fault("an mbarrier is used by a copy or the cluster before fence_barrier_init");
  arrive(state, 0);
}

bool barrier_try_wait(uint64_t* barrier, uint32_t parity) {
  if (parity > 1) fault("barrier_try_wait for parity %u", parity);
  const PhaseBarrier& state = phase_barrier(*self().block, "barrier_try_wait", barrier);
  if (is_over(state, parity)) return true;
  poll("mbarrier", &state, parity, describe_phase);
  return is_over(state, parity);
}

void barrier_wait(uint64_t* barrier, uint32_t parity) {
  if (parity > 1) fault("barrier_wait for parity %u", parity);
  PhaseBarrier& state = phase_barrier(*self().block, "barrier_wait", barrier);
  while (!is_over(state, parity)) wait_on(state.waiting, "mbarrier", &state, parity, describe_phase);
}

void complete_bytes(Block& block, int64_t barrier_offset, int64_t bytes) {
  PhaseBarrier& barrier = block.phases.at(barrier_offset);
  barrier.bytes -= bytes;
  end_phase_if_complete(barrier);
}

}  // namespace fdq::emu
