// Weights as quantized checkpoints store them, into panels (formats.h has the layout)
#pragma once

#include <cstdint>

#include "fdq/formats.h"

namespace fdq {

// kRows:  [n][row_bytes], lowest bits of a byte first.
// kGptq:  32-bit words [k / per word][n]; word (i, r) holds k = per * i + j in bits b * j .. b * j + b - 1.
// kAwq:   32-bit words [k][n / 8] of 4-bit codes; nibble j of word (i, c) is row 8 c + {0, 2, 4, 6, 1, 3, 5,
// 7}[j].
enum class CodeLayout { kRows, kGptq, kAwq };

struct StoredCodes {
  WeightFormat format;  // kInt8, kInt4, kE2M1 or kE4M3
  CodeLayout layout;
  bool offset_binary;  // stored is code + 2^(bits - 1), without a sign
  int64_t n, k;
  const int32_t* column_order;  // column of the panels i is stored column column_order[i]; null: i
};

// Bits of a code, and codes in a 32-bit word.
inline int stored_bits(WeightFormat format) {
  return format == WeightFormat::kInt4 || format == WeightFormat::kE2M1 ? 4 : 8;
}
inline int64_t codes_per_word(WeightFormat format) { return 32 / stored_bits(format); }

struct InvalidCode {
  bool found = false;
  int64_t row = 0, column = 0;  // as the panels have them
};

// Packs rows first_row .. first_row + rows - 1, where first_row is a multiple of 16 and so is `rows` unless
// it reaches n. `source` is that of row first_row: its first byte in kRows, the word that holds it in the
// first line of words else; lines (rows, or lines of words) are `stride` bytes apart. Returns the first NaN
// code.
InvalidCode repack_codes(const StoredCodes& codes, const uint8_t* source, int64_t stride, int64_t first_row,
                         int64_t rows, uint8_t* weight);

enum class ScaleType { kFloat32, kFloat16, kBFloat16, kE8M0 };
// kRows [n][groups], kColumns [groups][n], kTiles as formats.h has them, kTensor: one.
enum class ScaleLayout { kRows, kColumns, kTiles, kTensor };

struct StoredScales {
  ScaleType type;
  ScaleLayout layout;
  bool reciprocal;  // stored is 1 / scale
  int64_t n, groups;
  int group_n;  // of the result: 0, 1 or 128
};

inline int64_t scale_bytes(ScaleType type) {
  return type == ScaleType::kFloat32 ? 4 : type == ScaleType::kE8M0 ? 1 : 2;
}
int64_t stored_scale_count(const StoredScales& scales);

// Where a scale or zero point is not what it must be. `row` is the first row of a tile.
struct InvalidGroup {
  bool found = false;
  int64_t row = 0, group = 0;
  int value = 0;  // of a zero point
};

// Widens to float32, in the geometry of group_n; padding rows get 1. Returns the first that is not finite.
InvalidGroup repack_scales(const StoredScales& scales, const uint8_t* source, float* target);

// [n][blocks] e4m3 to [panels][blocks][16], 1 in padding. Returns the first that is negative or NaN.
InvalidGroup repack_block_scales(int64_t n, int64_t blocks, const uint8_t* source, uint8_t* target);

// kGptq and kAwq: words [groups][n / per word] whose codes lie in a word as the layout has rows in one (gptq:
// in order); kPackedRows: words [n / per word][groups].
enum class ZeroLayout { kGptq, kAwq, kPackedRows };

struct StoredZeros {
  WeightFormat format;  // kInt8 or kInt4
  ZeroLayout layout;
  bool minus_one;  // stored is the word of zero points minus one in every place, modulo 2^32
  int64_t n, groups;
};

// Subtracts the middle of the range. With a target: int8 [panels][groups][16], 0 in padding. Without: returns
// the first that is not 0.
InvalidGroup repack_zeros(const StoredZeros& zeros, const uint8_t* source, int8_t* target);

}  // namespace fdq
