// Plain C++ signatures of every kernel: no ONNX Runtime types, no allocation per call beyond grow-only
// scratch, no global state. Every result depends only on the row it belongs to: a token's output is bitwise
// the same alone and in any batch, for a given ISA.
#pragma once

#include <cstdint>

#include "fdq/formats.h"
#include "fdq/kv_cache.h"

namespace fdq {

// Runs body(context, i) for i in [0, count), in any order and on any thread, and returns when all are done.
struct Parallel {
  void (*run)(void* pool, int64_t count, void (*body)(void* context, int64_t index), void* context);
  void* pool;
  int num_threads;

  template <typename Body>
  void operator()(int64_t count, const Body& body) const {
    run(
        pool, count, [](void* context, int64_t index) { (*static_cast<const Body*>(context))(index); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }
};

// Instruction sets in rising order; each implies those before it.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmx };

// The best ISA this machine has. parse_isa reads FDQ_ISA's names: scalar, avx2, avx512, avx512_bf16, amx.
Isa detect_isa();
bool parse_isa(const char* name, Isa* isa);
const char* isa_name(Isa isa);

// ---------------------------------------------------------------------------------------------------------
// y[t, n] = x[t, k] * dequantize(W)[n, k]^T + bias[n]

struct LinearWeight {
  WeightShape shape;
  const void* data;                       // panels or row-major rows, see formats.h
  const float* scales;                    // null for as-stored formats and where group_n is -1
  const float* bias;                      // [n] or null
  const uint8_t* block_scales = nullptr;  // null where the shape has none
  const int8_t* zero_points = nullptr;    // null where codes are symmetric; -8 .. 8
};

struct LinearActivation {
  ActivationRule rule;
  float scale = 1.0f;  // of the static rules
};
inline bool is_static(ActivationRule rule) {
  return rule == ActivationRule::kE4M3Static || rule == ActivationRule::kInt8Static;
}

class LinearPlan;  // what is computed once per weight: scale rows of each panel, output columns

// Never throws; lives as long as the kernel. `isa` must be one the machine has.
LinearPlan* make_linear_plan(const LinearWeight& weight, const LinearActivation& activation,
                             ComputeType compute, Isa isa);
void free_linear_plan(LinearPlan* plan);
// x: [tokens, k] float32 row-major; y: [tokens, n] float32 row-major, n = sum of member rows.
void run_linear(const LinearPlan& plan, const float* x, int64_t tokens, float* y, const Parallel& parallel);

// out[i, k] = dequantize(W)[ids[i], k] of a quantized weight without zero points, every id one of its rows.
void gather_rows(const LinearWeight& weight, const int64_t* ids, int64_t count, float* out,
                 const Parallel& parallel);

// ---------------------------------------------------------------------------------------------------------
// Weight quantizers. Byte-identical to src/quant's TypeScript oracle.

struct NonFinite {
  bool found = false;
  int64_t row = 0;
  int64_t column = 0;
};

// Quantizes `rows` consecutive rows of an [n, k] matrix. first_row must be a multiple of 16 (128 when
// group_n is 128), rows too unless it reaches n. `source` holds exactly these rows.
//
// Formats: int8, int4, nf4 and e4m3 with scales of rows, e4m3 with tiles or one scale a tensor; e2m1 with
// e4m3 block scales below one scale a tensor (nvfp4), or with e8m0 ones alone (mxfp4); int2 with bfloat16
// ones.
struct QuantizeArgs {
  const void* source;
  ElementType element;
  int64_t n, k;
  int64_t first_row, rows;
  WeightFormat format;
  int group_n, group_k;
  uint8_t* weight;  // base of the member's panels (packed) or of its canonical codes
  float* scales;    // base of the member's scales; one a tensor is read, see measure_rows
  bool packed;  // panels of formats.h; else canonical: int8/e4m3 [n, k], int4/nf4 [n, ceil(k/2)] low nibble
                // first, e2m1 the same padded to whole blocks, int2 [n, ceil(k/4)]; scales [n, groups] or
                // [ceil(n/128), ceil(k/128)], block scales [n, ceil(k/block_k)]
  BlockScaleType block_type = BlockScaleType::kNone;
  int block_k = 0;
  uint8_t* block_scales = nullptr;  // base of the member's
  bool search = false;              // int4: the scale of a group with the smallest squared error
};
NonFinite quantize_rows(const QuantizeArgs& args, Isa isa);

// For one scale a tensor (group_n 0): raises *largest to the largest magnitude of the rows. scales[0] must be
// set before any row is quantized: to tensor_scale of all rows of the matrix, or of several matrices that
// share a scale. Any finite number above 0 is defined; values beyond what a smaller one reaches saturate.
NonFinite measure_rows(const QuantizeArgs& args, Isa isa, float* largest);
float tensor_scale(WeightFormat format, float largest);

// Inverse of the panel layout, for tests and export: packed -> canonical codes, scales and block scales.
struct PanelParts {
  uint8_t* codes;
  float* scales;          // null where there are none
  uint8_t* block_scales;  // null where there are none
};
void unpack_panels(const WeightShape& shape, const PanelParts& packed, const PanelParts& canonical);

// ---------------------------------------------------------------------------------------------------------
// Attention over a paged KV pool

struct AttentionArgs {
  KvPool pool;
  // kBFloat16 lets queries and softmax weights be rounded to bfloat16 where the machine multiplies it and the
  // pool is not float32; sums, scores and the softmax itself are float32 either way.
  ComputeType compute;
  int64_t layer;
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;              // of the scores
  int64_t window;           // 0: full; w: a query sees itself and the w - 1 positions before it
  int64_t rotary_dim;       // first entries of a head that are rotated; even, 0 for none
  bool rotary_interleaved;  // pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2)
  const float* q_norm;      // RMSNorm weight [head_dim] applied before rotation, or null
  const float* k_norm;
  float norm_epsilon;

  int64_t tokens;       // packed tokens of all sequences
  const float* qkv;     // [tokens, (num_heads + 2 * num_kv_heads) * head_dim]
  const float* rotary;  // [tokens, rotary_dim]: cos of each pair, then sin of each pair
  int64_t sequences;
  const int32_t* query_starts;     // [sequences + 1]: tokens of sequence s are query_starts[s] .. [s + 1] - 1
  const int32_t* context_lengths;  // [sequences]: positions in the cache after this step
  const int32_t* block_tables;     // [sequences, block_table_stride]: block of positions 16 i .. 16 i + 15
  int64_t block_table_stride;
  float* output;  // [tokens, num_heads * head_dim]
};

// Writes the new keys and values into the pool, then attends. The last token of sequence s is at position
// context_lengths[s] - 1. Bitwise independent of chunking and of the other sequences.
void paged_attention(const AttentionArgs& args, Isa isa, const Parallel& parallel);

// ---------------------------------------------------------------------------------------------------------

struct RotaryArgs {
  const int32_t* positions;  // [tokens]
  int64_t tokens;
  const float* inverse_frequencies;  // [pairs]
  int64_t pairs;
  float attention_factor;  // multiplies cos and sin
  // Dynamic NTK scaling (ntk_original == 0: off): past ntk_original positions the base grows with the
  // position, as transformers does when decoding token by token.
  float ntk_base, ntk_factor;
  int64_t ntk_original;
  float* output;  // [tokens, 2 * pairs]: cos, then sin
};
void rotary_table(const RotaryArgs& args);

// y[t, i] = silu(x[t, i]) * x[t, width + i]; x is [tokens, 2 * width]
void swiglu(const float* x, int64_t tokens, int64_t width, float* y, Isa isa, const Parallel& parallel);

// ---------------------------------------------------------------------------------------------------------
// Sampling of one row of logits

struct SampleParams {
  float temperature;                          // 0: greedy
  int32_t top_k;                              // 0: off
  float top_p;                                // 1: off
  float min_p;                                // 0: off
  float repetition_penalty;                   // 1: off; over prompt and output tokens
  float presence_penalty, frequency_penalty;  // 0: off; over output tokens
  uint64_t seed;                              // of the request
  uint64_t counter;  // index of the token being drawn: same seed and counter, same draw
  const int32_t* prompt_ids;
  int64_t num_prompt_ids;
  const int32_t* output_ids;
  int64_t num_output_ids;
  const int32_t* bias_ids;  // logit_bias
  const float* bias_values;
  int64_t num_bias;
  const int32_t* banned_ids;  // probability 0
  int64_t num_banned;
  const int32_t* allowed_ids;  // all others get probability 0; none: no restriction
  int64_t num_allowed;
  int32_t target;   // >= 0: nothing is drawn, this id is reported
  int32_t num_top;  // alternatives to report
};

struct SampleResult {
  int32_t id;     // -1: every token has probability 0, or a logit is NaN
  float logprob;  // log softmax of the unmodified logits
  int32_t rank;   // of the id among the unmodified logits, 1 = most likely
};

// logits: [vocab], may be modified. top_ids / top_logprobs: [num_top], most likely first; ties go to the
// smaller id, everywhere.
SampleResult sample_row(float* logits, int64_t vocab, const SampleParams& params, int32_t* top_ids,
                        float* top_logprobs);

}  // namespace fdq
