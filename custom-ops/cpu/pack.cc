#include "cpu/pack.h"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fdq {
namespace {

// [8 rows][8 units of 2 bytes] to [8 units][8 rows]; rows are `stride` bytes apart, units 32 bytes.
#if defined(__SSE2__)
void transpose_units(const uint8_t* source, int64_t stride, uint8_t* target) {
  __m128i a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i * stride));
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
    a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
  }
  for (int i = 0; i < 4; ++i) {
    b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
    b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
  }
  for (int i = 0; i < 8; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i * 2 * kPanelRows), b[i]);
  }
}
#else
void transpose_units(const uint8_t* source, int64_t stride, uint8_t* target) {
  for (int row = 0; row < 8; ++row) {
    for (int unit = 0; unit < 8; ++unit) {
      std::memcpy(target + unit * 2 * kPanelRows + 2 * row, source + row * stride + 2 * unit, 2);
    }
  }
}
#endif

// Four bytes k .. k + 3 to two: the first pair in the low nibbles, the second in the high ones.
void squeeze_row(uint8_t* codes, int64_t length) {
  for (int64_t k = 0; k < length; k += 4) {
    const uint8_t first = static_cast<uint8_t>((codes[k] & 15) | (codes[k + 2] & 15) << 4);
    const uint8_t second = static_cast<uint8_t>((codes[k + 1] & 15) | (codes[k + 3] & 15) << 4);
    codes[k / 2] = first;
    codes[k / 2 + 1] = second;
  }
}

}  // namespace

void pack_strip(WeightFormat format, uint8_t* codes, int64_t stride, int64_t length, int64_t k,
                uint8_t* panel) {
  int64_t units = length / 2;
  int64_t first_unit = k / 2;
  if (format == WeightFormat::kInt4) {
    for (int row = 0; row < kPanelRows; ++row) squeeze_row(codes + row * stride, length);
    units /= 2;
    first_unit /= 2;
  }
  for (int64_t unit = 0; unit < units; unit += 8) {
    uint8_t* target = panel + (first_unit + unit) * 2 * kPanelRows;
    transpose_units(codes + 2 * unit, stride, target);
    transpose_units(codes + 8 * stride + 2 * unit, stride, target + kPanelRows);
  }
}

uint8_t read_panel_code(WeightFormat format, const uint8_t* panel, int row, int64_t k) {
  if (format == WeightFormat::kInt4) {
    const uint8_t byte = panel[(k / 4 * kPanelRows + row) * 2 + k % 2];
    return k % 4 < 2 ? byte & 15 : byte >> 4;
  }
  return panel[(k / 2 * kPanelRows + row) * 2 + k % 2];
}

}  // namespace fdq
