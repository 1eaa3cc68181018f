// Attention beside the machine's own limits, measured in the same run: decode against read bandwidth,
// prefill against float32 multiply-adds in registers (bfloat16 products are twice as fast).
#include <immintrin.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "attention_case.h"
#include "fdq/bandwidth.h"

namespace fdq_test {
namespace {

constexpr int64_t kHeads = 16, kKvHeads = 8, kHeadDim = 128;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Threads that spin between loops, as a runtime's pool does.
class SpinPool {
 public:
  explicit SpinPool(int threads) : num_threads_(threads) {
    for (int i = 1; i < threads; ++i) {
      threads_.emplace_back([this] {
        for (int seen = 0;;) {
          int now = seen;
          while ((now = generation_.load()) == seen) _mm_pause();
          if (now < 0) return;
          seen = now;
          work();
          --busy_;
        }
      });
    }
  }
  ~SpinPool() {
    generation_ = -1;
    for (std::thread& t : threads_) t.join();
  }
  static void run(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
    auto* self = static_cast<SpinPool*>(pool);
    self->body_ = body;
    self->context_ = context;
    self->count_ = count;
    self->next_ = 0;
    self->busy_ = self->num_threads_ - 1;
    ++self->generation_;
    self->work();
    while (self->busy_ > 0) _mm_pause();
  }

 private:
  void work() {
    for (int64_t i = next_++; i < count_; i = next_++) body_(context_, i);
  }
  std::atomic<int> generation_{0}, busy_{0};
  std::atomic<int64_t> next_{0};
  int num_threads_;
  int64_t count_ = 0;
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> threads_;
};

// Multiply-adds a second of both threads, x 2.
__attribute__((target("avx512f"))) double fma_chain(int64_t rounds) {
  __m512 sum[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sum[i] = _mm512_fmadd_ps(sum[i], a, b);
  }
  __m512 total = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < 12; ++i) total = _mm512_add_ps(total, sum[i]);
  return static_cast<double>(_mm512_cvtss_f32(total));
}

double peak_flops(const fdq::Parallel& parallel) {
  constexpr int64_t kRounds = 400000;
  std::atomic<int64_t> sink{0};
  double best = 1e9;
  for (int i = 0; i < 50; ++i) {
    const double start = seconds();
    parallel(parallel.num_threads, [&](int64_t) { sink += static_cast<int64_t>(fma_chain(kRounds)); });
    best = std::min(best, seconds() - start);
  }
  return static_cast<double>(parallel.num_threads * kRounds * 12 * 16 * 2) / best;
}

struct Problem {
  Problem(int64_t layers, int64_t tokens, int64_t context, fdq::KvType type) {
    const int64_t blocks = fdq::ceil_div(context, fdq::kKvBlockSize);
    bytes = static_cast<double>(blocks * 2 * kKvHeads * fdq::kv_record_bytes(type, kHeadDim));
    pool.assign(static_cast<size_t>(layers * static_cast<int64_t>(bytes)), 0);
    for (int64_t b = 0; b < blocks; ++b) table.push_back(static_cast<int32_t>(b));
    std::mt19937 random(1);
    std::shuffle(table.begin(), table.end(), random);
    std::normal_distribution<float> normal(0, 1);
    qkv.resize(static_cast<size_t>(tokens * (kHeads + 2 * kKvHeads) * kHeadDim));
    for (float& v : qkv) v = normal(random);
    rotary.assign(static_cast<size_t>(tokens * kHeadDim), 0.7f);
    norm.assign(kHeadDim, 1.0f);
    output.resize(static_cast<size_t>(tokens * kHeads * kHeadDim));
    starts = {0, static_cast<int32_t>(tokens)};
    length = static_cast<int32_t>(context);
    args.pool = {pool.data(), type, layers, blocks, kKvHeads, kHeadDim};
    args.num_heads = kHeads;
    args.num_kv_heads = kKvHeads;
    args.head_dim = kHeadDim;
    args.scale = 0.088f;
    args.rotary_dim = kHeadDim;
    args.q_norm = args.k_norm = norm.data();
    args.norm_epsilon = 1e-6f;
    args.tokens = tokens;
    args.qkv = qkv.data();
    args.rotary = rotary.data();
    args.sequences = 1;
    args.query_starts = starts.data();
    args.context_lengths = &length;
    args.block_tables = table.data();
    args.block_table_stride = blocks;
    args.output = output.data();
  }

  double bytes;  // of one layer's keys and values
  std::vector<uint8_t> pool;
  std::vector<int32_t> table, starts;
  std::vector<float> qkv, rotary, norm, output;
  int32_t length;
  fdq::AttentionArgs args{};
};

constexpr fdq::KvType kTypes[] = {fdq::KvType::kFloat32, fdq::KvType::kBFloat16, fdq::KvType::kInt8,
                                  fdq::KvType::kFp8, fdq::KvType::kInt4};
constexpr const char* kTypeNames[] = {"float32", "bfloat16", "int8", "fp8", "int4"};
constexpr int kNumTypes = 5, kBFloat16 = 1;

struct Result {
  double seconds, bytes;
};

// The best time of each type of pool, measured in turn. Their layers are more than the last cache holds, so
// that each call of a decode reads memory.
std::vector<Result> measure(fdq::Isa isa, const fdq::Parallel& parallel, int64_t tokens, int64_t context,
                            int passes) {
  const auto compute =
      isa == fdq::Isa::kAvx512Bf16 ? fdq::ComputeType::kBFloat16 : fdq::ComputeType::kFloat32;
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<Result> best;
  for (fdq::KvType type : kTypes) {
    const int64_t layers = tokens == 1 ? 12 * fdq::kv_record_bytes(kTypes[kBFloat16], kHeadDim) /
                                             fdq::kv_record_bytes(type, kHeadDim)
                                       : 1;
    problems.push_back(std::make_unique<Problem>(layers, tokens, context, type));
    problems.back()->args.compute = compute;
    best.push_back({1e9, problems.back()->bytes});
  }
  for (int pass = 0; pass < passes; ++pass) {
    for (size_t i = 0; i < problems.size(); ++i) {
      fdq::AttentionArgs& args = problems[i]->args;
      for (args.layer = 0; args.layer < args.pool.num_layers; ++args.layer) {
        const double start = seconds();
        fdq::paged_attention(args, isa, parallel);
        best[i].seconds = std::min(best[i].seconds, seconds() - start);
      }
    }
  }
  return best;
}

void bench(fdq::Isa isa, const fdq::Parallel& parallel, double bandwidth, double flops) {
  const std::vector<Result> decode = measure(isa, parallel, 1, 4096, 20);
  for (int i = 0; i < kNumTypes; ++i) {
    const double rate = decode[i].bytes / decode[i].seconds;
    std::printf(
        "%s decode, 4096 positions, %s: %.0f us = %.2f x bfloat16, %.1f GB/s = %.0f %% of read bandwidth\n",
        fdq::isa_name(isa), kTypeNames[i], decode[i].seconds * 1e6,
        decode[i].seconds / decode[kBFloat16].seconds, rate * 1e-9, 100 * rate / bandwidth);
  }
  for (int64_t tokens : {64, 512, 2048}) {
    const std::vector<Result> prefill = measure(isa, parallel, tokens, tokens, tokens > 1000 ? 4 : 12);
    const double work = 4.0 * kHeads * kHeadDim * static_cast<double>(tokens * (tokens + 1) / 2);
    for (int i = 0; i < kNumTypes; ++i) {
      const double rate = work / prefill[i].seconds;
      std::printf("%s prefill, %d tokens, %s: %.2f ms = %.2f x bfloat16, %.0f GFLOP/s = %.0f %% of peak\n",
                  fdq::isa_name(isa), static_cast<int>(tokens), kTypeNames[i], prefill[i].seconds * 1e3,
                  prefill[i].seconds / prefill[kBFloat16].seconds, rate * 1e-9, 100 * rate / flops);
    }
  }
}

}  // namespace
}  // namespace fdq_test

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  fdq_test::SpinPool pool(threads);
  const fdq::Parallel parallel{fdq_test::SpinPool::run, &pool, threads};
  const double bandwidth = fdq::read_bandwidth(int64_t{64} << 20, parallel);
  const double flops = fdq::detect_isa() >= fdq::Isa::kAvx512 ? fdq_test::peak_flops(parallel) : 1e11;
  std::printf("read bandwidth %.1f GB/s, peak %.0f GFLOP/s, %d threads\n", bandwidth * 1e-9, flops * 1e-9,
              threads);
  for (fdq::Isa isa : {fdq::Isa::kAvx2, fdq::Isa::kAvx512, fdq::Isa::kAvx512Bf16}) {
    if (isa <= fdq::detect_isa()) fdq_test::bench(isa, parallel, bandwidth, flops);
  }
  return 0;
}
