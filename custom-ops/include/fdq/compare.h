// How far quantized weights are from what they were made from.
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

// One matrix in the panels of formats.h; shape.member_rows has one entry.
struct PackedMatrix {
  WeightShape shape;
  const uint8_t* weight;
  const float* scales;          // null where group_n is -1
  const uint8_t* block_scales;  // null without blocks
};

// Sums over w, the original, and r, what its codes stand for: value(code) * (block scale * scale) in float32. Added
// up in one order whatever the number of threads.
struct WeightError {
  double sum_w2 = 0;
  double sum_r2 = 0;
  double sum_wr = 0;
  double sum_e2 = 0;  // e = w - r
  double max_abs = 0;
  // Originals beyond the format's largest value by more than half of its last step.
  int64_t saturated = 0;
  // Scales, the narrowest kind there is, that restore nothing but zeros: 0 was replaced by 1.
  int64_t zero_scales = 0;

  void add(const WeightError& other);
};

// Rows that compare_rows takes at once: no scale straddles two of these, but for that of a whole tensor.
constexpr int64_t kCompareRows = kTile;

// Compares `rows` rows from first_row, a multiple of kCompareRows, with `source`, which holds exactly these.
// The zero scale of a whole tensor is left to the caller: it is one when sum_r2 of all rows is 0.
WeightError compare_rows(const PackedMatrix& matrix, const void* source, ElementType element,
                         int64_t first_row, int64_t rows);

// Bytes of panels and of block scales, and number of float32 scales, that `shape` has.
int64_t packed_weight_bytes(const WeightShape& shape);
int64_t packed_block_scale_bytes(const WeightShape& shape);
int64_t packed_scale_count(const WeightShape& shape);

}  // namespace fdq
