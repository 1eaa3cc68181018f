// Attention beside the machine's own limits, measured in the same run: decode against read bandwidth,
// prefill against float32 multiply-adds in registers (bfloat16 products are twice as fast).
#include <immintrin.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

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
    const int64_t element = type == fdq::KvType::kFloat32 ? 4 : 2;
    bytes = static_cast<double>(blocks * fdq::kKvBlockSize * 2 * kKvHeads * kHeadDim * element);
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

void bench(fdq::Isa isa, const fdq::Parallel& parallel, double bandwidth, double flops) {
  for (fdq::KvType type : {fdq::KvType::kFloat32, fdq::KvType::kBFloat16}) {
    const char* name = type == fdq::KvType::kFloat32 ? "float32" : "bfloat16";
    const auto compute =
        isa == fdq::Isa::kAvx512Bf16 ? fdq::ComputeType::kBFloat16 : fdq::ComputeType::kFloat32;
    // More layers than the last cache holds, visited in turn, so that each call reads memory.
    constexpr int64_t kLayers = 6;
    Problem decode(kLayers, 1, 4096, type);
    decode.args.compute = compute;
    double best = 1e9;
    for (int pass = 0; pass < 12; ++pass) {
      for (decode.args.layer = 0; decode.args.layer < kLayers; ++decode.args.layer) {
        const double start = seconds();
        fdq::paged_attention(decode.args, isa, parallel);
        best = std::min(best, seconds() - start);
      }
    }
    std::printf("%s decode, 4096 positions, %s: %.0f us, %.1f GB/s = %.0f %% of read bandwidth\n",
                fdq::isa_name(isa), name, best * 1e6, decode.bytes / best * 1e-9,
                100 * decode.bytes / best / bandwidth);
    for (int64_t tokens : {64, 512, 2048}) {
      Problem prefill(1, tokens, tokens, type);
      prefill.args.compute = compute;
      best = 1e9;
      for (int pass = 0; pass < 12; ++pass) {
        const double start = seconds();
        fdq::paged_attention(prefill.args, isa, parallel);
        best = std::min(best, seconds() - start);
      }
      const double work = 4.0 * kHeads * kHeadDim * static_cast<double>(tokens * (tokens + 1) / 2);
      std::printf("%s prefill, %d tokens, %s: %.2f ms, %.0f GFLOP/s = %.0f %% of peak\n", fdq::isa_name(isa),
                  static_cast<int>(tokens), name, best * 1e3, work / best * 1e-9, 100 * work / best / flops);
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
