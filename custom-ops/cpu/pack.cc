#include "cpu/pack.h"

#include <cstring>

#include "fdq/ops.h"

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

// Pairs of k that share two bytes, the first in the lowest bits: 2 pairs of four bits or 4 of two.
template <int kPairs>
void squeeze_row(uint8_t* codes, int64_t length) {
  constexpr int kBits = 8 / kPairs;
  constexpr unsigned kMask = (1u << kBits) - 1;
  for (int64_t k = 0; k < length; k += 2 * kPairs) {
    unsigned first = 0, second = 0;
    for (int q = 0; q < kPairs; ++q) {
      first |= (codes[k + 2 * q] & kMask) << (q * kBits);
      second |= (codes[k + 2 * q + 1] & kMask) << (q * kBits);
    }
    codes[k / kPairs] = static_cast<uint8_t>(first);
    codes[k / kPairs + 1] = static_cast<uint8_t>(second);
  }
}

}  // namespace

void pack_strip(WeightFormat format, uint8_t* codes, int64_t stride, int64_t length, int64_t k,
                uint8_t* panel) {
  const int pairs = codes_per_byte(format);
  for (int row = 0; row < kPanelRows && pairs > 1; ++row) {
    if (pairs == 2) {
      squeeze_row<2>(codes + row * stride, length);
    } else {
      squeeze_row<4>(codes + row * stride, length);
    }
  }
  const int64_t units = length / (2 * pairs);
  const int64_t first_unit = k / (2 * pairs);
  for (int64_t unit = 0; unit < units; unit += 8) {
    uint8_t* target = panel + (first_unit + unit) * 2 * kPanelRows;
    transpose_units(codes + 2 * unit, stride, target);
    transpose_units(codes + 8 * stride + 2 * unit, stride, target + kPanelRows);
  }
}

uint8_t read_panel_code(WeightFormat format, const uint8_t* panel, int row, int64_t k) {
  const int pairs = codes_per_byte(format), bits = 8 / pairs;
  const uint8_t byte = panel[(k / (2 * pairs) * kPanelRows + row) * 2 + k % 2];
  return static_cast<uint8_t>(byte >> (k / 2 % pairs * bits) & ((1 << bits) - 1));
}

namespace {

// One member's canonical codes of one row.
void unpack_row(WeightFormat format, const uint8_t* panel, int lane, int64_t k, uint8_t* codes) {
  const int per = codes_per_byte(format);
  for (int64_t i = 0; i < k; ++i) {
    const uint8_t code = read_panel_code(format, panel, lane, i);
    codes[i / per] = static_cast<uint8_t>(codes[i / per] | code << (i % per * 8 / per));
  }
}

// Values of `bytes` each, [panels][columns][16] to [rows][columns].
void unpack_lanes(const uint8_t* packed, int64_t rows, int64_t columns, int64_t bytes, uint8_t* canonical) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = (row / kPanelRows * columns + c) * kPanelRows + row % kPanelRows;
      std::memcpy(canonical + (row * columns + c) * bytes, packed + at * bytes, static_cast<size_t>(bytes));
    }
  }
}

}  // namespace

void unpack_panels(const WeightShape& shape, const PanelParts& packed, const PanelParts& canonical) {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  const int64_t row_bytes = canonical_row_bytes(shape.format, shape.k, shape.block_k);
  const int64_t groups = num_groups(shape.k, shape.group_k);
  const int64_t blocks = num_blocks(shape.k, shape.block_k);
  const int64_t block_bytes = block_scale_bytes(shape.block_type);
  PanelParts from = packed, to = canonical;
  for (int64_t rows : shape.member_rows) {
    std::memset(to.codes, 0, static_cast<size_t>(rows * row_bytes));
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* panel = from.codes + row / kPanelRows * panel_bytes(shape.format, shape.k);
      unpack_row(shape.format, panel, static_cast<int>(row % kPanelRows), shape.k,
                 to.codes + row * row_bytes);
    }
    from.codes += num_panels(rows) * panel_bytes(shape.format, shape.k);
    to.codes += rows * row_bytes;
    if (shape.group_n == 1) {
      unpack_lanes(reinterpret_cast<uint8_t*>(from.scales), rows, groups, kFloat,
                   reinterpret_cast<uint8_t*>(to.scales));
      from.scales += num_panels(rows) * groups * kPanelRows;
      to.scales += rows * groups;
    } else if (shape.group_n >= 0) {
      const int64_t count = shape.group_n == 0 ? 1 : ceil_div(rows, kTile) * groups;
      std::memcpy(to.scales, from.scales, static_cast<size_t>(count * kFloat));
      from.scales += count;
      to.scales += count;
    }
    if (blocks == 0) continue;
    unpack_lanes(from.block_scales, rows, blocks, block_bytes, to.block_scales);
    from.block_scales += num_panels(rows) * blocks * kPanelRows * block_bytes;
    to.block_scales += rows * blocks * block_bytes;
  }
}

}  // namespace fdq
