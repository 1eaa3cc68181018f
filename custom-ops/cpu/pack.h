// Row-major codes to panels and back (formats.h has the layout).
#pragma once

#include <cstdint>

#include "fdq/formats.h"

namespace fdq {

// A strip of 16 rows by `length` k, one byte a code, rows `stride` bytes apart, into its place in a panel.
// `length` and k are multiples of 64. Squeezes the strip in place when codes are narrower.
void pack_strip(WeightFormat format, uint8_t* codes, int64_t stride, int64_t length, int64_t k,
                uint8_t* panel);

// One code of a panel, as stored: the byte, the nibble or the two bits.
uint8_t read_panel_code(WeightFormat format, const uint8_t* panel, int row, int64_t k);

}  // namespace fdq
