// Speed of the linear kernels and quantizers, beside what the machine can do at most in the same run: reading
// memory with all threads, and multiplying registers. Not a test.
//   bench_linear [isa] [threads] [kind]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>

#include "cpu/wide_intrinsics.h"
#include "fdq/bandwidth.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

constexpr int64_t kWeightBytes = int64_t{256} << 20;  // rotated through, beyond every cache
constexpr double kSecondsPerPoint = 0.4;

// Threads that spin between runs, as an inference pool does under load.
class SpinPool {
 public:
  explicit SpinPool(int threads) : threads_(threads) {
    for (int t = 1; t < threads; ++t) workers_.emplace_back([this] { serve(); });
  }
  ~SpinPool() {
    stop_ = true;
    ++epoch_;
    for (std::thread& worker : workers_) worker.join();
  }
  Parallel parallel() { return {run, this, threads_}; }

 private:
  static void run(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
    auto* self = static_cast<SpinPool*>(pool);
    self->body_ = body;
    self->context_ = context;
    self->count_ = count;
    self->next_ = 0;
    self->left_ = self->threads_ - 1;
    ++self->epoch_;
    self->drain();
    while (self->left_ != 0) {
    }
  }
  void drain() {
    for (int64_t i = next_++; i < count_; i = next_++) body_(context_, i);
  }
  void serve() {
    for (int64_t seen = 0;;) {
      while (epoch_ == seen) {
      }
      ++seen;
      if (stop_) return;
      drain();
      --left_;
    }
  }

  int threads_;
  std::vector<std::thread> workers_;
  std::atomic<int64_t> epoch_{0}, next_{0};
  std::atomic<int> left_{0};
  std::atomic<bool> stop_{false};
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
};

// Products of registers with nothing to load: the peak of one thread, in GFLOP/s.
constexpr int64_t kPeakSteps = 4000000;
constexpr int kPeakChains = 12;

__attribute__((target("avx512f"))) void multiply_float32() {
  __m512 sums[kPeakChains] = {};
  const __m512 w = _mm512_set1_ps(1e-3f);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(w, w, sum);
#pragma GCC unroll 12
    for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  }
}

__attribute__((target("avx512f,avx512bf16"))) void multiply_bfloat16() {
  __m512 sums[kPeakChains] = {};
  const auto w = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, w, w);
#pragma GCC unroll 12
    for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  }
}

struct Kind {
  const char* name;
  WeightFormat format;
  int group_n, group_k;
  ActivationRule rule;
  ComputeType compute;
  BlockScaleType block_type = BlockScaleType::kNone;
  int block_k = 0;
  bool search = false;
};

constexpr Kind kKinds[] = {
    {"int8", WeightFormat::kInt8, 1, 0, ActivationRule::kNone, ComputeType::kBFloat16},
    {"int4", WeightFormat::kInt4, 1, 0, ActivationRule::kNone, ComputeType::kBFloat16},
    {"int4 g128", WeightFormat::kInt4, 1, 128, ActivationRule::kNone, ComputeType::kBFloat16},
    {"int4 g32", WeightFormat::kInt4, 1, 32, ActivationRule::kNone, ComputeType::kBFloat16},
    {"e4m3", WeightFormat::kE4M3, 128, 128, ActivationRule::kE4M3Group128, ComputeType::kBFloat16},
    {"w8a8", WeightFormat::kInt8, 1, 0, ActivationRule::kInt8Token, ComputeType::kBFloat16},
    {"w4a8", WeightFormat::kInt4, 1, 0, ActivationRule::kInt8Token, ComputeType::kBFloat16},
    {"nf4", WeightFormat::kNF4, 1, 64, ActivationRule::kNone, ComputeType::kBFloat16},
    {"nvfp4", WeightFormat::kE2M1, 0, 0, ActivationRule::kNone, ComputeType::kBFloat16, BlockScaleType::kE4M3,
     16},
    {"mxfp4", WeightFormat::kE2M1, -1, 0, ActivationRule::kNone, ComputeType::kBFloat16,
     BlockScaleType::kE8M0, 32},
    {"int2", WeightFormat::kInt2, -1, 0, ActivationRule::kNone, ComputeType::kBFloat16,
     BlockScaleType::kBFloat16, 64},
    {"int4 mse", WeightFormat::kInt4, 1, 128, ActivationRule::kNone, ComputeType::kBFloat16,
     BlockScaleType::kNone, 0, true},
    {"bf16", WeightFormat::kBFloat16, 1, 0, ActivationRule::kNone, ComputeType::kBFloat16},
    {"int8 f32", WeightFormat::kInt8, 1, 0, ActivationRule::kNone, ComputeType::kFloat32},
    {"int4 f32", WeightFormat::kInt4, 1, 0, ActivationRule::kNone, ComputeType::kFloat32},
    {"bf16 f32", WeightFormat::kBFloat16, 1, 0, ActivationRule::kNone, ComputeType::kFloat32},
};

struct Shape {
  int64_t n, k;
};
constexpr Shape kShapes[] = {{2048, 1024}, {1024, 3072}, {6144, 1024}};
constexpr int64_t kTokens[] = {1, 2, 4, 8, 16, 32, 128, 512};

// With one thread its processor time, which other load disturbs less; else the wall clock.
bool g_processor_time = false;

double seconds() {
  if (g_processor_time) {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Any bytes below 0x40 are finite scales of every type.
const std::vector<uint8_t> g_block_scales(1 << 22, 0x38);

int64_t weight_bytes(const Kind& kind, Shape shape) {
  const int64_t values = shape.n * shape.k;
  if (kind.format == WeightFormat::kBFloat16) return values * 2;
  return values / codes_per_byte(kind.format);
}

void bench_kind(const Kind& kind, Shape shape, Isa isa, const Parallel& parallel,
                const std::vector<uint8_t>& memory, const std::vector<float>& scales) {
  const int64_t bytes = weight_bytes(kind, shape);
  const int64_t copies = kWeightBytes / bytes;
  std::vector<LinearPlan*> plans;
  for (int64_t i = 0; i < copies; ++i) {
    LinearWeight weight{};
    weight.shape = {kind.format,  {shape.n},       shape.k,     kind.group_n,
                    kind.group_k, kind.block_type, kind.block_k};
    weight.block_scales = kind.block_k != 0 ? g_block_scales.data() : nullptr;
    weight.data = memory.data() + i * bytes;
    weight.scales = scales.data();
    plans.push_back(make_linear_plan(weight, {kind.rule}, kind.compute, isa));
  }
  std::printf("%-9s %5ldx%-5ld", kind.name, static_cast<long>(shape.n), static_cast<long>(shape.k));
  size_t next = 0;
  for (int64_t tokens : kTokens) {
    std::vector<float> x(static_cast<size_t>(tokens * shape.k), 0.5f),
        y(static_cast<size_t>(tokens * shape.n));
    double best = 1e9;
    const double until = seconds() + kSecondsPerPoint;
    const int calls = tokens <= 32 ? 8 : 1;
    do {
      const double start = seconds();
      for (int i = 0; i < calls; ++i)
        run_linear(*plans[next++ % plans.size()], x.data(), tokens, y.data(), parallel);
      best = std::min(best, (seconds() - start) / calls);
    } while (seconds() < until);
    const double flops = 2.0 * static_cast<double>(tokens * shape.n * shape.k);
    if (tokens == 1) std::printf(" %6.1f GB/s |", static_cast<double>(bytes) / best / 1e9);
    std::printf(" %ld: %.0fus %.0f", static_cast<long>(tokens), best * 1e6, flops / best / 1e9);
  }
  std::printf("\n");
  for (LinearPlan* plan : plans) free_linear_plan(plan);
}

void bench_peak(const char* name, void (*multiply)(), double flops, const Parallel& parallel) {
  double best = 1e9;
  for (int pass = 0; pass < 4; ++pass) {
    const double start = seconds();
    parallel(parallel.num_threads, [&](int64_t) { multiply(); });
    best = std::min(best, seconds() - start);
  }
  const double total = flops * kPeakChains * static_cast<double>(kPeakSteps) * parallel.num_threads;
  std::printf("peak %s %.0f GFLOP/s\n", name, total / best / 1e9);
}

void bench_quantizers(Isa isa, const std::vector<uint8_t>& memory) {
  constexpr int64_t kN = 3072, kK = 1024;
  std::vector<uint8_t> codes(kN * kK);
  std::vector<float> scales(kN * kK / 32, 1.0f);
  std::vector<uint8_t> block_scales(kN * kK / 16);
  for (const Kind& kind : kKinds) {
    const bool repeats = kind.compute == ComputeType::kFloat32 || kind.rule == ActivationRule::kInt8Token;
    if (kind.format == WeightFormat::kBFloat16 || repeats) continue;
    double best = 1e9;
    for (int pass = 0; pass < (kind.search || kind.format == WeightFormat::kInt2 ? 2 : 20); ++pass) {
      QuantizeArgs args{};
      args.source = memory.data() + (pass % 8) * kN * kK * 2;
      args.element = ElementType::kBFloat16;
      args.n = args.rows = kN;
      args.k = kK;
      args.format = kind.format;
      args.group_n = kind.group_n;
      args.group_k = kind.group_k;
      args.weight = codes.data();
      args.scales = scales.data();
      args.packed = true;
      args.block_type = kind.block_type;
      args.block_k = kind.block_k;
      args.block_scales = block_scales.data();
      args.search = kind.search;
      const double start = seconds();
      quantize_rows(args, isa);
      best = std::min(best, seconds() - start);
    }
    std::printf("quantize %-9s %7.0f M weights/s, one thread\n", kind.name, kN * kK / best / 1e6);
  }
}

}  // namespace
}  // namespace fdq::test

int main(int argc, char** argv) {
  using namespace fdq;
  using namespace fdq::test;
  Isa isa = detect_isa();
  if (argc > 1 && !parse_isa(argv[1], &isa)) return 1;
  const int threads = argc > 2 ? std::atoi(argv[2]) : static_cast<int>(std::thread::hardware_concurrency());
  g_processor_time = threads == 1;
  SpinPool pool(threads);
  std::printf("isa %s, %d threads, reading %.1f GB/s\n", isa_name(isa), threads,
              read_bandwidth(kWeightBytes, pool.parallel()) / 1e9);
  if (detect_isa() >= Isa::kAvx512) bench_peak("float32", multiply_float32, 32, pool.parallel());
  if (detect_isa() >= Isa::kAvx512Bf16) bench_peak("bfloat16", multiply_bfloat16, 64, pool.parallel());
  // Small finite bfloat16 and valid e4m3 whatever way the bytes are read.
  std::vector<uint8_t> memory(static_cast<size_t>(kWeightBytes));
  Random random(1);
  for (uint8_t& byte : memory) byte = static_cast<uint8_t>(random.next() >> 32 & 0xbf);
  const std::vector<float> scales(1 << 20, 0.01f);
  bench_quantizers(isa, memory);
  for (const Kind& kind : kKinds) {
    if ((argc > 3 && std::strcmp(argv[3], kind.name) != 0) || kind.search) continue;
    for (Shape shape : kShapes) bench_kind(kind, shape, isa, pool.parallel(), memory, scales);
  }
  std::printf("reading %.1f GB/s\n", read_bandwidth(kWeightBytes, pool.parallel()) / 1e9);
  return 0;
}
