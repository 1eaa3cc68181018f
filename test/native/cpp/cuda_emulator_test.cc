// The emulator of CUDA kernels: small kernels that are right, and the same with one mistake each, which it
// has to find.
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "linear_support.h"

namespace fdq::test {
namespace {

using namespace fdq::ptx;

constexpr int kSeeds = 12;

// ---------------------------------------------------------------------------------------------------------
// A warp-specialized product of e4m3: one producer warp, two consumer warpgroups, a ring of stages.

enum class Mistake {
  kNone,
  kNoFullWait,
  kNoEmptyWait,
  kNoInitFence,
  kFewBytes,
  kManyBytes,
  kNoWgmmaFence,
  kNoCommit,
  kNoWgmmaWait,
  kEarlyRead,
  kEarlyRelease,
  kWrongSwizzle,
  kInsideAtom,
  kMissingArrival,
  kOneWarpgroupMore,
};

constexpr int kStages = 2, kRows = 128, kColumns = 48, kDepth = 128;
constexpr int kStageBytes = (kRows + 64) * kDepth;  // columns padded to an atom boundary
constexpr int kSharedBytes = kStages * kStageBytes + 64;

struct Ring {
  unsigned char* base;
  unsigned char* a(int stage) const { return base + stage * kStageBytes; }
  unsigned char* b(int stage) const { return a(stage) + kRows * kDepth; }
  Barrier* full(int stage) const { return reinterpret_cast<Barrier*>(base + kStages * kStageBytes) + stage; }
  Barrier* empty(int stage) const { return full(kStages + stage); }
};

template <Mistake M>
void produce(const Ring& ring, const cuda::TensorMap& a, const cuda::TensorMap& b, int steps) {
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages;
    const uint32_t parity = static_cast<uint32_t>(i / kStages % 2);
    if (M != Mistake::kNoEmptyWait) barrier_wait(ring.empty(stage), parity ^ 1);
    uint32_t bytes = (kRows + kColumns) * kDepth;
    if (M == Mistake::kFewBytes) bytes -= 16;
    if (M == Mistake::kManyBytes) bytes += 16;
    barrier_arrive_expect(ring.full(stage), bytes);
    tma_load(ring.a(stage), &a, ring.full(stage), static_cast<int>(blockIdx.x) * kRows, i * kDepth);
    tma_load(ring.b(stage), &b, ring.full(stage), 0, i * kDepth, kEvictLast);
  }
}

template <Mistake M>
void consume(const Ring& ring, int group, float* y, int m, int n, int steps) {
  float d[kColumns / 2];
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages;
    const uint32_t parity = static_cast<uint32_t>(i / kStages % 2);
    if (M != Mistake::kNoFullWait) barrier_wait(ring.full(stage), parity);
    if (M != Mistake::kNoWgmmaFence) wgmma_fence();
    const unsigned char* rows = ring.a(stage) + group * 64 * kDepth + (M == Mistake::kInsideAtom ? 128 : 0);
    uint64_t a = wgmma_operand(rows), b = wgmma_operand(ring.b(stage));
    if (M == Mistake::kWrongSwizzle) b = (b & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;
    for (uint32_t k = 0; k < kDepth; k += 32) {
      Wgmma<kColumns>::e4m3(d, wgmma_advance(a, k), wgmma_advance(b, k), i > 0 || k > 0);
    }
    if (M == Mistake::kOneWarpgroupMore && threadIdx.x == 0) continue;
    if (M != Mistake::kNoCommit) wgmma_commit();
    if (M == Mistake::kEarlyRelease && lane() == 0) barrier_arrive(ring.empty(stage));
    if (M == Mistake::kEarlyRead) d[0] += 1.0f;
    if (M != Mistake::kNoWgmmaWait) wgmma_wait<0>();
    if (M == Mistake::kMissingArrival && warp() == 5) continue;
    if (M != Mistake::kEarlyRelease && lane() == 0) barrier_arrive(ring.empty(stage));
  }
  const int row = static_cast<int>(blockIdx.x) * kRows + group * 64 + warp() % 4 * 16 + lane() / 4;
  for (int i = 0; i < kColumns / 2; ++i) {
    const int r = row + i / 2 % 2 * 8, c = i / 4 * 8 + lane() % 4 * 2 + i % 2;
    if (r < m && c < n) y[r * n + c] = d[i];
  }
}

template <Mistake M>
void multiply(cuda::TensorMap a, cuda::TensorMap b, float* y, int m, int n, int k) {
  const Ring ring{cuda::shared_memory()};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(ring.full(stage), 1);
      barrier_init(ring.empty(stage), 8);
    }
    if (M != Mistake::kNoInitFence) fence_barrier_init();
  }
  sync_block();
  const int steps = (k + kDepth - 1) / kDepth;
  const int group = warp() / 4;
  if (group == 2) {
    set_max_registers_down<40>();
    if (warp() == 8 && elect()) produce<M>(ring, a, b, steps);
  } else {
    set_max_registers_up<232>();
    consume<M>(ring, group, y, m, n, steps);
  }
}

struct Codes {
  int rows, columns, stride;
  std::vector<uint8_t> bytes;
  Codes(int rows_, int columns_, Random& random)
      : rows(rows_), columns(columns_), stride((columns_ + 15) / 16 * 16) {
    bytes.resize(static_cast<size_t>(rows) * stride, 0x7f);
    for (uint8_t& code : bytes) code = static_cast<uint8_t>(random.below(256));
    for (uint8_t& code : bytes) code = (code & 0x7f) == 0x7f ? 0x30 : code;
  }
  float at(int row, int column) const {
    return e4m3_to_float(bytes[static_cast<size_t>(row) * stride + static_cast<size_t>(column)]);
  }
  cuda::TensorMap map(int box_rows) const {
    cuda::TensorMap map;
    const cuda::Error error = cuda::make_tensor_map(
        {bytes.data(), cuda::MapElement::kByte, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
         static_cast<uint64_t>(stride), static_cast<uint32_t>(box_rows), kDepth, cuda::Swizzle::k128},
        &map);
    CHECK(error == nullptr, "%s", error);
    return map;
  }
};

// The number of wrong elements, or -1 and the text of a fault.
template <Mistake M>
int run_multiply(uint64_t seed, std::string* text) {
  Random random(7);
  constexpr int m = 200, n = 43, k = 700;
  const Codes a(m, k, random), b(n, k, random);
  std::vector<float> y(m * n, -1e30f);
  emu::set_seed(seed);
  try {
    cuda::launch(multiply<M>, {dim3(2), dim3(288 + 96), kSharedBytes}, nullptr, a.map(kRows), b.map(kColumns),
                 y.data(), m, n, k);
  } catch (const emu::Fault& fault) {
    *text = fault.what();
    return -1;
  }
  int wrong = 0;
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      double sum = 0, magnitude = 0;
      for (int i = 0; i < k; ++i) {
        const double product = static_cast<double>(a.at(row, i)) * b.at(column, i);
        sum += product;
        magnitude += std::fabs(product);
      }
      const double error = std::fabs(y[static_cast<size_t>(row * n + column)] - sum);
      wrong += error <= 1e-6 * magnitude ? 0 : 1;
    }
  }
  return wrong;
}

// By a fault or by wrong results; a mistake that only shows in some orders of events must show in most.
template <Mistake M>
void check_mistake(const char* name, const char* expected) {
  int faults = 0, found = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    std::string text;
    const int wrong = run_multiply<M>(seed, &text);
    found += wrong != 0 ? 1 : 0;
    if (wrong < 0 && text.find(expected) != std::string::npos) ++faults;
  }
  CHECK(found > kSeeds / 2, "%s was found with %d of %d seeds", name, found, kSeeds);
  CHECK(faults > 0, "%s: no fault says '%s'", name, expected);
}

void test_pipeline() {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    std::string text;
    const int wrong = run_multiply<Mistake::kNone>(seed, &text);
    CHECK(wrong == 0, "%d wrong, %s", wrong, text.c_str());
  }
  check_mistake<Mistake::kNoFullWait>("no wait for full", "copy under way");
  check_mistake<Mistake::kNoEmptyWait>("no wait for empty", "");
  check_mistake<Mistake::kNoInitFence>("no fence of mbarriers", "fence_barrier_init");
  check_mistake<Mistake::kFewBytes>("too few bytes expected", "");
  check_mistake<Mistake::kManyBytes>("too many bytes expected", "deadlock");
  check_mistake<Mistake::kNoWgmmaFence>("no wgmma_fence", "wgmma_fence");
  check_mistake<Mistake::kNoCommit>("no commit", "without waiting for its products");
  check_mistake<Mistake::kNoWgmmaWait>("no wait for products", "");
  check_mistake<Mistake::kEarlyRead>("use before the wait", "before wgmma_wait");
  check_mistake<Mistake::kEarlyRelease>("release before the wait", "");
  check_mistake<Mistake::kWrongSwizzle>("another swizzle", "");
  check_mistake<Mistake::kInsideAtom>("operand inside an atom", "inside an atom");
  check_mistake<Mistake::kMissingArrival>("a missing arrival", "deadlock");
  check_mistake<Mistake::kOneWarpgroupMore>("divergent lanes", "diverge");
}

// ---------------------------------------------------------------------------------------------------------
// A cluster of two: block 0 loads for both, each stores what it got, shifted.

void share(cuda::TensorMap from, cuda::TensorMap to, bool is_fenced) {
  unsigned char* shared = cuda::shared_memory();
  auto* barrier = reinterpret_cast<Barrier*>(shared + 8192);
  if (threadIdx.x == 0) {
    barrier_init(barrier, 1);
    barrier_init(barrier + 1, 2);
    fence_barrier_init();
  }
  sync_cluster();
  if (threadIdx.x == 0) {
    barrier_arrive_expect(barrier, 32 * 128);
    if (cluster_rank() == 0) tma_load_multicast(shared, &from, barrier, -3, 8, 3);
    barrier_wait(barrier, 0);
    barrier_arrive_cluster(barrier + 1, cluster_rank() ^ 1);
    barrier_arrive_cluster(barrier + 1, cluster_rank());
    barrier_wait(barrier + 1, 0);
  }
  sync_block();
  shared[threadIdx.x * 128] ^= 0;
  for (int i = 0; i < 32 * 128; i += static_cast<int>(blockDim.x)) {
    const int at = i + static_cast<int>(threadIdx.x);
    shared[4096 + at] = static_cast<unsigned char>(shared[at] + 1);
  }
  if (is_fenced) fence_async_shared();
  sync_block();
  if (threadIdx.x == 0) {
    tma_store(&to, shared + 4096, static_cast<int>(cluster_rank()) * 32, 4);
    tma_store_commit();
    tma_store_wait_read<0>();
  }
  sync_cluster();
}

void test_cluster() {
  constexpr int kWidth = 144;
  Guarded source(40 * kWidth), target(50 * kWidth);
  for (size_t i = 0; i < source.size(); ++i) source.bytes()[i] = static_cast<uint8_t>(i % 251);
  const auto map = [](const void* base, uint64_t rows, uint64_t columns) {
    cuda::TensorMap out;
    const cuda::Error error = cuda::make_tensor_map(
        {base, cuda::MapElement::kByte, rows, columns, kWidth, 32, 128, cuda::Swizzle::k128}, &out);
    CHECK(error == nullptr, "%s", error);
    return out;
  };
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    emu::set_seed(seed);
    std::memset(target.bytes(), 9, target.size());
    cuda::launch(share, {dim3(2), dim3(32), 8192 + 64, 2}, nullptr, map(source.bytes(), 20, 130),
                 map(target.bytes(), 50, 100), true);
    for (int row = 0; row < 50; ++row) {
      for (int column = 0; column < kWidth; ++column) {
        const int from_row = row % 32 - 3, from_column = column - 4 + 8;
        int value = 9;
        if (column >= 4 && column < 100) {
          const bool is_inside = from_row >= 0 && from_row < 20 && from_column < 130;
          value = (is_inside ? (from_row * kWidth + from_column) % 251 : 0) + 1;
        }
        CHECK(target.bytes()[row * kWidth + column] == value, "stored at %d, %d", row, column);
      }
    }
  }
  std::string text;
  try {
    cuda::launch(share, {dim3(2), dim3(32), 8192 + 64, 2}, nullptr, map(source.bytes(), 20, 130),
                 map(target.bytes(), 50, 100), false);
  } catch (const emu::Fault& fault) {
    text = fault.what();
  }
  CHECK(text.find("fence_async_shared") != std::string::npos, "a store without a fence: %s", text.c_str());
}

// ---------------------------------------------------------------------------------------------------------

void misuse(int what, uint32_t* global) {
  unsigned char* shared = cuda::shared_memory();
  auto* barrier = reinterpret_cast<Barrier*>(shared);
  if (what == 0 && threadIdx.x < 32) sync_block();
  if (what == 1) named_barrier_sync(1, threadIdx.x < 32 ? 32 : 64);
  if (what == 2) barrier_arrive(barrier);
  if (what == 3 && threadIdx.x == 0) {
    barrier_init(barrier, 1);
    barrier_wait(barrier, 0);
  }
  if (what == 4 && threadIdx.x == 0) {
    barrier_init(barrier, 1);
    while (!barrier_try_wait(barrier, 0)) {
    }
  }
  if (what == 5 && threadIdx.x == 63) shared[70] = 1;
  if (what == 6 && lane() == 7) cp_async_16(shared + 16, global);
  if (what == 7) load_quad(reinterpret_cast<unsigned char*>(global) + 8);
  if (what == 8 && threadIdx.x == 0) shared_address(shared + 80);
  if (what == 9 && lane() != 3) ballot(true);
  if (what == 10) atomic_add_acq_rel(global, 1);
  while (what == 10 && load_acquire(global) < 129) {
  }
  if (what == 11 && warp() == 0) named_barrier_arrive(2, 64);
  if (what == 12) named_barrier_arrive(1 + lane() / 16, 64);
  if (what == 13 && warp() == 0) set_max_registers_up<232>();
  if (what == 14 && lane() != 5) sync_block();
}

void test_misuse() {
  const char* texts[] = {"deadlock",
                         "with 32 and with",
                         "no mbarrier was initialized",
                         "lacks 1 arrivals",
                         "nothing happens but",
                         "was written at byte 70",
                         "without waiting for its copies",
                         "not a multiple of 16",
                         "at offset 80 of 64 bytes",
                         "31 of 32 lanes",
                         "nothing happens but",
                         "arrivals left at barrier 2",
                         "at different barriers",
                         "not by all of its warpgroup",
                         "bar.sync (31 of 32 lanes"};
  for (int what = 0; what < static_cast<int>(std::size(texts)); ++what) {
    alignas(16) uint32_t global[64] = {};
    std::string text;
    emu::set_seed(static_cast<uint64_t>(what) + 1);
    try {
      cuda::launch(misuse, {dim3(2), dim3(64), 64}, nullptr, what, global);
    } catch (const emu::Fault& fault) {
      text = fault.what();
    }
    const bool is_either = what == 1 && text.find("with 64 and with 32") != std::string::npos;
    CHECK(is_either || text.find(texts[what]) != std::string::npos, "misuse %d: '%s'", what, text.c_str());
  }
}

// 20 warps start with 96 registers a thread each, not with a fifth of 512.
template <int kConsumerRegisters, bool kGivesBack>
void exchange_registers() {
  if (warp() / 4 == 4) {
    if (kGivesBack) set_max_registers_down<24>();
  } else {
    set_max_registers_up<kConsumerRegisters>();
  }
}

template <int kConsumerRegisters, bool kGivesBack>
std::string text_of_exchange() {
  try {
    cuda::launch(exchange_registers<kConsumerRegisters, kGivesBack>, {dim3(1), dim3(640)}, nullptr);
  } catch (const emu::Fault& fault) {
    return fault.what();
  }
  return "";
}

void test_exchange() {
  CHECK((text_of_exchange<112, true>()).empty(), "four times 112 and 24");
  CHECK((text_of_exchange<120, true>()).find("setmaxnreg asks") != std::string::npos,
        "four times 120 and 24");
  CHECK((text_of_exchange<104, false>()).find("setmaxnreg asks") != std::string::npos,
        "four times 104, and 96 that no one gave back");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_cluster();
  test_misuse();
  test_exchange();
  test_pipeline();
  return fdq_test::finish("cuda_emulator_test");
}
