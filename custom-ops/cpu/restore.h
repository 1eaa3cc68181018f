// What packed weights stand for, in float32.
#pragma once

#include <cstdint>

#include "fdq/compare.h"

namespace fdq {

struct RestoreSource {
  const PackedMatrix& matrix;
  const int8_t* zero_points;    // null: codes are symmetric; else shaped like the scales of rows
  const int32_t* column_order;  // null: column c of the codes is column c; else column column_order[c]
};

// Rows first_row .. first_row + rows - 1 of one panel to target, row-major [rows, k]:
// ((value(code) - zero point) * block scale) * scale, of which only the second product rounds.
void restore_rows(const RestoreSource& source, int64_t first_row, int64_t rows, float* target);

}  // namespace fdq
