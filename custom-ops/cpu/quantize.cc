#include "cpu/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/number_formats.h"
#include "cpu/pack.h"
#include "cpu/quantize_target.h"

namespace fdq {
namespace {

constexpr int64_t kStrip = 512;  // k quantized at once before it is packed; a multiple of 128
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr int kE2M1MaxExponent = 2;  // of the power of two in 6 = 1.5 * 2^2

float widen(const uint8_t* source, ElementType element) {
  if (element == ElementType::kFloat32) {
    float value;
    std::memcpy(&value, source, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, source, sizeof bits);
  return element == ElementType::kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits);
}

// The exponent of the OCP Microscaling specification 1.0: that of the largest magnitude less that of the
// format's largest power of two.
unsigned encode_e8m0(float largest) {
  if (largest == 0.0f) return 127;
  return static_cast<unsigned>(std::clamp(std::ilogb(largest) - kE2M1MaxExponent, -127, 127) + 127);
}

class RowQuantizer {
 public:
  RowQuantizer(const QuantizeArgs& args, Isa isa)
      : args_(args),
        kernels_(quantize_kernels(isa)),
        target_(args),
        row_bytes_(args.k * element_bytes(args.element)),
        step_k_(args.block_k != 0   ? args.block_k
                : args.group_k != 0 ? args.group_k
                                    : args.k) {}

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

  NonFinite measure(float* largest) const {
    for (int64_t row = 0; row < args_.rows; ++row) {
      const uint32_t magnitude = kernels_.max_magnitude(source(row, 0), args_.element, args_.k);
      if (magnitude >= kInfinityBits) return find_non_finite(row);
      *largest = std::max(*largest, bits_float(magnitude));
    }
    return NonFinite();
  }

 private:
  // Rows are counted from args.first_row, but by the target.
  const uint8_t* source(int64_t row, int64_t k) const {
    return static_cast<const uint8_t*>(args_.source) + row * row_bytes_ + k * element_bytes(args_.element);
  }

  NonFinite find_non_finite(int64_t row) const {
    NonFinite result;
    for (int64_t k = 0; k < args_.k && !result.found; ++k) {
      if (kernels_.max_magnitude(source(row, k), args_.element, 1) < kInfinityBits) continue;
      result = {true, args_.first_row + row, k};
    }
    return result;
  }

  bool has_blocks() const { return args_.block_type != BlockScaleType::kNone; }
  bool searches() const { return args_.search || args_.format == WeightFormat::kInt2; }

  // Scales or block scales of up to 16 rows. One scale a tensor is there already.
  NonFinite scale_rows(int64_t first, int64_t end) const {
    for (int64_t row = first; row < end; ++row) {
      for (int64_t k = 0; k < args_.k; k += step_k_) {
        const int64_t count = std::min(step_k_, args_.k - k);
        const uint32_t magnitude = kernels_.max_magnitude(source(row, k), args_.element, count);
        if (magnitude >= kInfinityBits) return find_non_finite(row);
        if (!searches()) set_scale(args_.first_row + row, k, bits_float(magnitude));
      }
    }
    if (searches()) search_rows(first, end);
    if (args_.packed) pad_rows(args_.first_row + end);
    return NonFinite();
  }

  // The scale of `row` from column k on.
  void set_scale(int64_t row, int64_t k, float largest) const {
    if (args_.block_type == BlockScaleType::kE4M3) {
      const float wanted = largest / largest_code(args_.format) / *args_.scales;
      target_.set_block_scale(row, k / step_k_, float_to_e4m3(wanted));
    } else if (args_.block_type == BlockScaleType::kE8M0) {
      target_.set_block_scale(row, k / step_k_, encode_e8m0(largest));
    } else if (args_.group_n == 1) {
      *target_.scale(row, k / step_k_) = scale_of(largest, args_.format);
    }
  }

  void pad_rows(int64_t end) const {
    for (int64_t row = end; row < round_up(end, kPanelRows); ++row) {
      for (int64_t group = 0; group < target_.groups() && args_.group_n == 1; ++group) {
        *target_.scale(row, group) = 1.0f;
      }
      for (int64_t block = 0; block < target_.blocks(); ++block) {
        target_.set_block_scale(row, block, block_scale_of_one(args_.block_type));
      }
    }
  }

  // Scales by error search; a group without one has scale 1 in int4, and 0 in int2, whose levels have no
  // zero.
  void search_rows(int64_t first, int64_t end) const {
    std::vector<float> values(static_cast<size_t>(step_k_ * kPanelRows));
    float scales[kPanelRows];
    for (int64_t k = 0; k < args_.k; k += step_k_) {
      const int64_t count = std::min(step_k_, args_.k - k);
      for (int64_t row = first; row < end; ++row) {
        const uint8_t* from = source(row, k);
        for (int64_t i = 0; i < count; ++i) {
          values[static_cast<size_t>(i * kPanelRows + row - first)] =
              widen(from + i * element_bytes(args_.element), args_.element);
        }
      }
      kernels_.search(args_.format, values.data(), count, scales);
      for (int64_t row = first; row < end; ++row) {
        const float scale = scales[row - first];
        if (has_blocks()) {
          target_.set_block_scale(args_.first_row + row, k / step_k_, float_bits(scale) >> 16);
        } else {
          *target_.scale(args_.first_row + row, k / step_k_) = scale == 0.0f ? 1.0f : scale;
        }
      }
    }
  }

  // The scales hold the magnitudes until the band is read. A non-finite value stops at its row, so the first
  // row that has one is the first in row-major order.
  NonFinite scale_tiles(int64_t first, int64_t end) const {
    float* scales = target_.scale(args_.first_row + first, 0);
    std::fill(scales, scales + target_.groups(), 0.0f);
    for (int64_t row = first; row < end; ++row) {
      for (int64_t tile = 0; tile < target_.groups(); ++tile) {
        const int64_t k = tile * kTile;
        const int64_t count = std::min<int64_t>(kTile, args_.k - k);
        const uint32_t magnitude = kernels_.max_magnitude(source(row, k), args_.element, count);
        if (magnitude >= kInfinityBits) return find_non_finite(row);
        scales[tile] = std::max(scales[tile], bits_float(magnitude));
      }
    }
    for (int64_t tile = 0; tile < target_.groups(); ++tile)
      scales[tile] = scale_of(scales[tile], args_.format);
    return NonFinite();
  }

  // Codes of k .. k + count - 1 of one row, one byte each.
  void encode_row(int64_t row, int64_t k, int64_t count, uint8_t* codes) const {
    const int64_t end = k + count;
    while (k < end) {
      const int64_t run = std::min(end, (k / step_k_ + 1) * step_k_) - k;
      const float step = target_.step(args_.first_row + row, k);
      if (step == 0.0f) {
        const float zero = 0.0f;
        uint8_t code;
        kernels_.encode(&zero, ElementType::kFloat32, 1, args_.format, 1.0f, &code);
        std::memset(codes, code, static_cast<size_t>(run));
      } else if (args_.search && args_.format == WeightFormat::kInt4) {
        kernels_.encode_to_minus_8(source(row, k), args_.element, run, step, codes);
      } else {
        kernels_.encode(source(row, k), args_.element, run, args_.format, step, codes);
      }
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
        pack_strip(args_.format, codes_[0], kStrip, length, k, target_.panel(args_.first_row + first));
      } else {
        for (int64_t row = first; row < end; ++row) {
          target_.store_canonical(args_.first_row + row, k, count, codes_[row - first]);
        }
      }
    }
  }

  const QuantizeArgs& args_;
  QuantizeKernels kernels_;
  QuantizeTarget target_;
  int64_t row_bytes_, step_k_;  // step_k_: columns that one step serves
  alignas(64) uint8_t codes_[kPanelRows][kStrip];
};

}  // namespace

QuantizeKernels quantize_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return quantize_kernels_avx512();
  if (isa == Isa::kAvx2) return quantize_kernels_avx2();
#else
  (void)isa;
#endif
  return quantize_kernels_scalar();
}

float scale_of(float largest, WeightFormat format) {
  const float scale = largest / largest_code(format);
  return scale == 0.0f ? 1.0f : scale;
}

NonFinite quantize_rows(const QuantizeArgs& args, Isa isa) { return RowQuantizer(args, isa).run(); }

NonFinite measure_rows(const QuantizeArgs& args, Isa isa, float* largest) {
  return RowQuantizer(args, isa).measure(largest);
}

float tensor_scale(WeightFormat format, float largest) {
  const float scale = format == WeightFormat::kE2M1
                          ? largest / (largest_code(WeightFormat::kE2M1) * largest_code(WeightFormat::kE4M3))
                          : largest / largest_code(format);
  return scale == 0.0f ? 1.0f : scale;
}

}  // namespace fdq
