// What the linear kernels of all instruction sets share: jobs, and the table through which they are called.
//
// Panel formats. x is prepared once a call as [blocks of k][tokens][block] of float32 or bfloat16, zero past
// k. A block never straddles two groups of scales. For each block a kernel sums products in one fixed order
// from 0 (partial), then total = fma(partial, scale of the weight * scale of x, total); the bias is added
// last. Tiles of panels and tokens share loads, never sums: a token's result does not depend on what is
// computed beside it.
//
// As-stored formats are dot products along k: lane l of a vector sums the products at l, l + lanes, ..., and
// the lanes are added by one fixed tree.
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

// k of the longest block: sums of products that start at 0.
constexpr int64_t kMaxBlockK = 512;

// One panel of 16 output rows.
struct Panel {
  const float* scales;  // of its first group; see PanelJob::scale_stride
  int64_t column;       // of y
  int rows;             // 1 .. 16 that exist
};

struct PanelJob {
  WeightFormat format;
  const uint8_t* codes;
  int64_t panel_bytes;
  const Panel* panels;
  int64_t k_end;                // multiple of 32: where the last block ends
  int64_t block_k;              // 32, 64, 128, or kMaxBlockK where one scale covers a row
  int64_t group_blocks;         // blocks a scale covers
  bool tile_scales;             // one scale for the 16 rows instead of 16
  const uint8_t* block_scales;  // [panels][columns of blocks][16] of block_type, or null
  BlockScaleType block_type;
  int64_t block_columns;      // k a block scale covers
  int64_t row_blocks;         // block scales of a row
  const int8_t* zero_points;  // [panels][groups][16], or null
  int64_t group_k;            // k a zero point covers
  int64_t groups;
  const float* table;        // [16] values of nf4 codes, as ComputeType has them
  const void* x;             // [blocks][x_tokens][block] of the kernels' element
  int64_t x_tokens;          // tokens, rounded up where the kernel wants whole tiles
  const float* x_scales;     // [ceil(k / 128)][tokens], [tokens], or null
  const int32_t* x_offsets;  // [blocks][x_tokens] where x is int8, see linear_quads.h
  int64_t x_scale_stride;    // from one 128-wide group to the next: tokens, or 0
  int64_t tokens;
  const float* bias;  // [n] or null
  float* y;           // [tokens, n]
  int64_t n;
};

struct RowJob {
  WeightFormat format;
  const uint8_t* weight;  // [n, k] at any byte alignment
  int64_t k;
  const void* x;     // [tokens][x_stride], zero past k
  int64_t x_stride;  // multiple of kRowAlign
  int64_t x_tokens;  // tokens, rounded up where the kernel wants whole tiles
  int64_t tokens;
  const float* bias;
  float* y;
  int64_t n;
};
constexpr int64_t kRowAlign = 32;

// How x becomes the kernels' element.
struct ConvertX {
  void (*round)(const float* x, int64_t count, bool to_bfloat16, void* out);
  // out = value of the code * factor, which the element holds exactly.
  void (*decode_e4m3)(const uint8_t* codes, int64_t count, float factor, void* out);
  void (*decode_int8)(const uint8_t* codes, int64_t count, float factor, void* out);
};

struct LinearKernels {
  bool bfloat16;  // element type of x
  bool int8_x;    // x is the codes themselves: for rules that round to int8, and symmetric integer weights
  int64_t token_tile;   // x_tokens is a multiple of this
  bool paired_rows;     // RowJob::x is [x_tokens / 16][x_stride / 2][16 tokens][2 k]
  float e4m3_x_factor;  // kernels that decode e4m3 as w / 256 want x * 256: both are exact
  ConvertX convert;
  void (*panels)(const PanelJob& job, int64_t first, int64_t last);
  void (*rows)(const RowJob& job, int64_t first, int64_t last);
};

LinearKernels linear_kernels_scalar();
LinearKernels linear_kernels_avx2();
LinearKernels linear_kernels_avx512();
LinearKernels linear_kernels_avx512bf16();
LinearKernels linear_kernels_avx512vnni();
LinearKernels linear_kernels_amx();

constexpr int64_t bytes_per_4k(WeightFormat format) { return 4 * kPanelRows / codes_per_byte(format); }

}  // namespace fdq
