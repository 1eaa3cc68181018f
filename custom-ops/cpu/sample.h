// Passes over a whole row of logits, built once for each instruction set.
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

// Elements weighed at once, so that weights and buckets stay in the first-level cache.
constexpr int kSampleBlock = 1024;
// Buckets of sixteenths of (maximum - logit) / temperature. float32 weights are 0 from 104 on; the last
// bucket holds what has weight 0.
constexpr int kBucketsPerUnit = 16;
constexpr int kNumBuckets = 104 * kBucketsPerUnit + 1;

// 0 where x is the maximum, even an infinite one.
static inline float sample_distance(float maximum, float x, float inverse_temperature) {
  return maximum == x ? 0.0f : (maximum - x) * inverse_temperature;
}

struct RowScan {
  float maximum;
  bool has_nan;
};

struct DivergenceSums {
  double mass;
  double weighted;
};

struct SampleKernels {
  RowScan (*scan)(const float* x, int64_t count);
  // Sum of exp(x - maximum). Partial sums of 64 elements in float32, the rest in double.
  double (*sum_exp)(const float* x, int64_t count, float maximum);
  // weight = exp(-d), bucket = floor(16 d), d = (maximum - x) * inverse_temperature rounded as
  // sample_distance does; count <= kSampleBlock, outputs hold kSampleBlock.
  void (*weigh)(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights,
                int32_t* buckets);
  // Indices of elements in [low, high], ascending.
  int64_t (*collect)(const float* x, int64_t count, float low, float high, int32_t* indices);
  // Number of elements > value, and of those == value.
  void (*count)(const float* x, int64_t count, float value, int64_t* above, int64_t* equal);
  // First index whose element == value, or count.
  int64_t (*find)(const float* x, int64_t count, float value);
  // Sums of w and of w * d over elements with w > 0: w = exp(p - p_base), d = (p - p_base) - (q - q_base).
  // Rounded as sum_exp is.
  DivergenceSums (*diverge)(const float* p, float p_base, const float* q, float q_base, int64_t count);
};

// sample_row with the passes of one instruction set.
SampleResult sample_row_with(const SampleKernels& kernels, float* logits, int64_t vocab,
                             const SampleParams& params, int32_t* top_ids, float* top_logprobs);

// Those of this machine.
const SampleKernels& sample_kernels();
SampleKernels sample_kernels_scalar();
SampleKernels sample_kernels_avx2();
SampleKernels sample_kernels_avx512();

}  // namespace fdq
