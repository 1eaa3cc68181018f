#include "cpu/quantize.h"

#include <algorithm>
#include <cstring>

#include "cpu/number_formats.h"
#include "cpu/pack.h"

namespace fdq {
namespace {

constexpr int64_t kStrip = 512;  // k quantized at once before it is packed; a multiple of 128
constexpr uint32_t kInfinityBits = 0x7f800000u;

QuantizeKernels kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return quantize_kernels_avx512();
  if (isa == Isa::kAvx2) return quantize_kernels_avx2();
#else
  (void)isa;
#endif
  return quantize_kernels_scalar();
}

float scale_of(uint32_t magnitude_bits, WeightFormat format) {
  const float scale = bits_float(magnitude_bits) / largest_code(format);
  return scale == 0.0f ? 1.0f : scale;
}

class RowQuantizer {
 public:
  RowQuantizer(const QuantizeArgs& args, Isa isa)
      : args_(args),
        kernels_(kernels_of(isa)),
        row_bytes_(args.k * element_bytes(args.element)),
        groups_(num_groups(args.k, args.group_k)),
        group_k_(args.group_k == 0 ? args.k : args.group_k) {}

  NonFinite run() {
    NonFinite result;
    const int64_t band = args_.group_n == kTile ? kTile : kPanelRows;
    for (int64_t row = 0; row < args_.rows && !result.found; row += band) {
      const int64_t end = std::min(row + band, args_.rows);
      result = args_.group_n == kTile ? scale_tiles(row, end) : scale_rows(row, end);
      for (int64_t first = row; first < end && !result.found; first += kPanelRows) {
        encode_panel(first, std::min(first + kPanelRows, end));
      }
    }
    return result;
  }

 private:
  // Rows are counted from args.first_row.
  const uint8_t* source(int64_t row, int64_t k) const {
    return static_cast<const uint8_t*>(args_.source) + row * row_bytes_ + k * element_bytes(args_.element);
  }

  float* scale_at(int64_t row, int64_t group) const {
    const int64_t absolute = args_.first_row + row;
    if (args_.group_n == kTile) return args_.scales + absolute / kTile * groups_ + group;
    if (!args_.packed) return args_.scales + absolute * groups_ + group;
    return args_.scales + (absolute / kPanelRows * groups_ + group) * kPanelRows + absolute % kPanelRows;
  }

  NonFinite find_non_finite(int64_t row) const {
    NonFinite result;
    for (int64_t k = 0; k < args_.k && !result.found; ++k) {
      if (kernels_.max_magnitude(source(row, k), args_.element, 1) < kInfinityBits) continue;
      result = {true, args_.first_row + row, k};
    }
    return result;
  }

  NonFinite scale_rows(int64_t first, int64_t end) const {
    for (int64_t row = first; row < end; ++row) {
      for (int64_t group = 0; group < groups_; ++group) {
        const int64_t k = group * group_k_;
        const int64_t count = std::min(group_k_, args_.k - k);
        const uint32_t magnitude = kernels_.max_magnitude(source(row, k), args_.element, count);
        if (magnitude >= kInfinityBits) return find_non_finite(row);
        *scale_at(row, group) = scale_of(magnitude, args_.format);
      }
    }
    if (!args_.packed) return NonFinite();
    for (int64_t row = end; row < round_up(end, kPanelRows); ++row) {
      for (int64_t group = 0; group < groups_; ++group) *scale_at(row, group) = 1.0f;
    }
    return NonFinite();
  }

  // The scales hold the magnitudes until the band is read. A non-finite value stops at its row, so the first
  // row that has one is the first in row-major order.
  NonFinite scale_tiles(int64_t first, int64_t end) const {
    std::fill(scale_at(first, 0), scale_at(first, 0) + groups_, 0.0f);
    for (int64_t row = first; row < end; ++row) {
      for (int64_t tile = 0; tile < groups_; ++tile) {
        const int64_t k = tile * kTile;
        const int64_t count = std::min<int64_t>(kTile, args_.k - k);
        const uint32_t magnitude = kernels_.max_magnitude(source(row, k), args_.element, count);
        if (magnitude >= kInfinityBits) return find_non_finite(row);
        float* largest = scale_at(first, tile);
        *largest = std::max(*largest, bits_float(magnitude));
      }
    }
    for (int64_t tile = 0; tile < groups_; ++tile) {
      float* scale = scale_at(first, tile);
      *scale = scale_of(float_bits(*scale), args_.format);
    }
    return NonFinite();
  }

  // Codes of k .. k + count - 1 of one row, one byte each.
  void encode_row(int64_t row, int64_t k, int64_t count, uint8_t* codes) const {
    const int64_t end = k + count;
    while (k < end) {
      const int64_t group = k / group_k_;
      const int64_t run = std::min(end, (group + 1) * group_k_) - k;
      kernels_.encode(source(row, k), args_.element, run, args_.format, *scale_at(row, group), codes);
      codes += run;
      k += run;
    }
  }

  void encode_panel(int64_t first, int64_t end) {
    for (int64_t k = 0; k < args_.k; k += kStrip) {
      const int64_t count = std::min(kStrip, args_.k - k);
      const int64_t length = round_up(count, kPanelKAlign);
      for (int64_t row = first; row < end; ++row) {
        uint8_t* codes = codes_[row - first];
        encode_row(row, k, count, codes);
        std::memset(codes + count, 0, static_cast<size_t>(length - count));
      }
      if (args_.packed) {
        for (int64_t row = end - first; row < kPanelRows; ++row)
          std::memset(codes_[row], 0, static_cast<size_t>(length));
        const int64_t panel_bytes =
            kPanelRows * padded_k(args_.k) / (args_.format == WeightFormat::kInt4 ? 2 : 1);
        uint8_t* panel = args_.weight + (args_.first_row + first) / kPanelRows * panel_bytes;
        pack_strip(args_.format, codes_[0], kStrip, length, k, panel);
      } else {
        for (int64_t row = first; row < end; ++row) store_canonical(row, k, count, codes_[row - first]);
      }
    }
  }

  void store_canonical(int64_t row, int64_t k, int64_t count, const uint8_t* codes) const {
    const int64_t absolute = args_.first_row + row;
    if (args_.format != WeightFormat::kInt4) {
      std::memcpy(args_.weight + absolute * args_.k + k, codes, static_cast<size_t>(count));
      return;
    }
    uint8_t* out = args_.weight + absolute * ceil_div(args_.k, 2) + k / 2;
    // A missing last column is the zero after `count`.
    for (int64_t i = 0; i < count; i += 2)
      *out++ = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 1] & 15) << 4);
  }

  const QuantizeArgs& args_;
  QuantizeKernels kernels_;
  int64_t row_bytes_, groups_, group_k_;
  alignas(64) uint8_t codes_[kPanelRows][kStrip];
};

}  // namespace

NonFinite quantize_rows(const QuantizeArgs& args, Isa isa) { return RowQuantizer(args, isa).run(); }

void quantize_activation_e4m3(const float* x, int64_t tokens, int64_t k, uint8_t* codes, float* scales) {
  static const QuantizeKernels kernels = kernels_of(detect_isa());
  const int64_t groups = ceil_div(k, kTile);
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t at = token * k + group * kTile;
      const int64_t count = std::min<int64_t>(kTile, k - group * kTile);
      const uint32_t magnitude = kernels.max_magnitude(x + at, ElementType::kFloat32, count);
      const float scale = scale_of(magnitude, WeightFormat::kE4M3);
      scales[token * groups + group] = scale;
      kernels.encode(x + at, ElementType::kFloat32, count, WeightFormat::kE4M3, scale, codes + at);
    }
  }
}

void unpack_panels(const WeightShape& shape, const uint8_t* packed, const float* packed_scales,
                   uint8_t* codes, float* scales) {
  const int64_t k = shape.k;
  const int64_t groups = num_groups(k, shape.group_k);
  const bool nibbles = shape.format == WeightFormat::kInt4;
  const int64_t row_bytes = nibbles ? ceil_div(k, 2) : k;
  const int64_t panel_bytes = kPanelRows * padded_k(k) / (nibbles ? 2 : 1);
  for (int64_t rows : shape.member_rows) {
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* panel = packed + row / kPanelRows * panel_bytes;
      const int lane = static_cast<int>(row % kPanelRows);
      if (nibbles) std::memset(codes, 0, static_cast<size_t>(row_bytes));
      for (int64_t i = 0; i < k; ++i) {
        const uint8_t code = read_panel_code(shape.format, panel, lane, i);
        if (!nibbles) {
          codes[i] = code;
        } else {
          codes[i / 2] = static_cast<uint8_t>(codes[i / 2] | code << (i % 2 * 4));
        }
      }
      codes += row_bytes;
      if (shape.group_n != 1) continue;
      for (int64_t group = 0; group < groups; ++group) {
        *scales++ = packed_scales[(row / kPanelRows * groups + group) * kPanelRows + lane];
      }
    }
    packed += num_panels(rows) * panel_bytes;
    if (shape.group_n == 1) {
      packed_scales += num_panels(rows) * groups * kPanelRows;
    } else {
      const int64_t tiles = ceil_div(rows, kTile) * groups;
      std::memcpy(scales, packed_scales, static_cast<size_t>(tiles) * sizeof(float));
      scales += tiles;
      packed_scales += tiles;
    }
  }
}

}  // namespace fdq
