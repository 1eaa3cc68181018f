// Number formats and weight layouts shared by the CPU kernels, the CUDA kernels and the TypeScript oracle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fdq {

enum class ElementType { kFloat32, kFloat16, kBFloat16 };

// How a weight is stored. The first three are row-major [n, k] exactly as in the checkpoint; the others are
// quantized and lie in panels, see below.
enum class WeightFormat { kFloat32, kFloat16, kBFloat16, kInt8, kInt4, kE4M3, kInt2, kNF4, kE2M1 };

// Narrow scales of blocks of a row. kE8M0 is 2^(code - 127).
enum class BlockScaleType { kNone, kE4M3, kE8M0, kBFloat16 };

// What happens to the input of a linear layer before the product.
enum class ActivationRule {
  kNone,          // kept, as float32 or rounded to bfloat16 by ComputeType
  kE4M3Group128,  // rounded to e4m3 per token and 128-wide group of k, scale = amax / 448 (0 -> 1)
  kE4M3Token,     // the same with one scale a token
  kInt8Token,     // rounded to -127 .. 127 with one scale a token, amax / 127 (0 -> 1)
  kE4M3Static,    // as the two above with the scale of the checkpoint; what is beyond the range saturates
  kInt8Static,
};

enum class ComputeType { kFloat32, kBFloat16 };

// Panels: 16 output rows whose elements are interleaved so that one vector load feeds 16 rows.
//
//   k is padded with zero codes to k_padded = round_up(k, 64).
//   A matrix of n rows has ceil(n / 16) panels; rows past n are zero codes with scale 1.
//   A fused layer is its members' panels one after the other: no panel holds rows of two members.
//
//   8-bit formats, one panel = [k_padded / 2][16 rows][2 k]:
//     byte[(p * 16 + r) * 2 + j]          = code(row r, k = 2p + j)
//   int4, one panel = [k_padded / 4][16 rows][2 k], two k-pairs in a byte (two's complement nibbles):
//     low  nibble of byte[(h * 16 + r) * 2 + j] = code(row r, k = 4h + j)
//     high nibble of byte[(h * 16 + r) * 2 + j] = code(row r, k = 4h + 2 + j)
//   nf4 and e2m1 lie like int4; int2, one panel = [k_padded / 8][16 rows][2 k], four k-pairs in a byte:
//     bits 2q, 2q + 1 of byte[(h * 16 + r) * 2 + j] = code(row r, k = 8h + 2q + j), q = 0 .. 3
//   Values: int2 {-3, -1, 1, 3}[code]; nf4 and e2m1 by their tables.
//
// w = (value(code) - zero_point) * block_scale * scale, where a format has them. float32 scales:
//   group_n == 1:   [panels][groups][16], groups = group_k == 0 ? 1 : ceil(k / group_k)
//   group_n == 128: canonical tiles, each member's [ceil(n_i / 128)][ceil(k / 128)] one after the other
//   group_n == 0:   [members], one a tensor
//   group_n == -1:  none
// Block scales: [panels][ceil(k / block_k)][16] of their type, 1 in padding. value(code) * block scale is
// exact in bfloat16. Zero points: int8, shaped like the scales of rows, int4 only.
constexpr int kPanelRows = 16;
constexpr int kPanelKAlign = 64;
constexpr int kTile = 128;

struct WeightShape {
  WeightFormat format;
  std::vector<int64_t> member_rows;  // n_i of each fused member, one entry when not fused
  int64_t k;
  int group_n;  // see above; 128 goes with group_k 128
  int group_k;  // 0: one scale a row; else a multiple of 32
  BlockScaleType block_type = BlockScaleType::kNone;
  int block_k = 0;  // 16, 32 or 64; 0: no block scales
};

inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
inline int64_t ceil_div(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }
inline int64_t padded_k(int64_t k) { return round_up(k, kPanelKAlign); }
inline int64_t num_panels(int64_t rows) { return ceil_div(rows, kPanelRows); }
inline int64_t num_groups(int64_t k, int group_k) { return group_k == 0 ? 1 : ceil_div(k, group_k); }
inline int64_t num_blocks(int64_t k, int block_k) { return block_k == 0 ? 0 : ceil_div(k, block_k); }
inline int64_t block_scale_bytes(BlockScaleType type) { return type == BlockScaleType::kBFloat16 ? 2 : 1; }

// Of the formats in panels.
constexpr int codes_per_byte(WeightFormat format) {
  if (format == WeightFormat::kInt2) return 4;
  return format == WeightFormat::kInt8 || format == WeightFormat::kE4M3 ? 1 : 2;
}
inline int64_t panel_bytes(WeightFormat format, int64_t k) {
  return kPanelRows * padded_k(k) / codes_per_byte(format);
}
// A row in canonical order, lowest bits first: rows of e2m1 end with a whole block.
inline int64_t canonical_row_bytes(WeightFormat format, int64_t k, int block_k) {
  const int64_t codes = format == WeightFormat::kE2M1 && block_k != 0 ? round_up(k, block_k) : k;
  return ceil_div(codes, codes_per_byte(format));
}

}  // namespace fdq
