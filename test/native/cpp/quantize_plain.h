// Matrices to quantize, and the rules of every format written out plainly.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cpu/number_formats.h"
#include "cpu/quantize.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

struct Matrix {
  ElementType element;
  int64_t n, k;
  std::vector<float> values;
  std::unique_ptr<Guarded> source;
};

void store_element(ElementType element, float* value, uint8_t* out) {
  if (element == ElementType::kFloat32) {
    std::memcpy(out, value, 4);
    return;
  }
  uint16_t bits = float_to_bfloat16(*value);
  if (element == ElementType::kFloat16)
    bits = static_cast<uint16_t>((float_bits(*value) >> 13 & 0x83ffu) | 0x2c00u);
  *value = element == ElementType::kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits);
  std::memcpy(out, &bits, 2);
}

Matrix make_matrix(ElementType element, int64_t n, int64_t k, Random& random) {
  Matrix m{element, n, k, {}, nullptr};
  const int64_t bytes = element_bytes(element);
  m.source = std::make_unique<Guarded>(static_cast<size_t>(n * k * bytes));
  for (int64_t i = 0; i < n * k; ++i) {
    float value = random.normal() * std::ldexp(1.0f, static_cast<int>(random.below(8)) - 4);
    if (i / k == 3) value = 0.0f;                        // a row of zeros
    if (i / k == 5) value *= 1e-39f;                     // float32 subnormals
    if (i / k == 7) value = i % 2 == 0 ? -0.0f : value;  // signs of zeros
    store_element(element, &value, m.source->bytes() + i * bytes);
    m.values.push_back(value);
  }
  return m;
}

uint8_t nearest_e4m3(double value) {
  uint8_t best = 0;
  double distance = std::numeric_limits<double>::infinity();
  for (int code = 0; code < 0x7f; ++code) {
    const double d =
        std::fabs(std::fabs(value) - static_cast<double>(e4m3_to_float(static_cast<uint8_t>(code))));
    if (d < distance || (d == distance && code % 2 == 0)) {
      distance = d;
      best = static_cast<uint8_t>(code);
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

// Nearest of a table that rises with the code; a tie goes to the code that `prefers_low` says.
template <typename PrefersLow>
int nearest_of(const std::vector<float>& table, float value, const PrefersLow& prefers_low) {
  int code = 0;
  while (code + 1 < static_cast<int>(table.size())) {
    const float middle = (table[static_cast<size_t>(code)] + table[static_cast<size_t>(code) + 1]) / 2;
    if (value < middle || (value == middle && prefers_low(code))) break;
    ++code;
  }
  return code;
}

uint8_t plain_code(float value, float scale, WeightFormat format, bool is_searched = false) {
  const float quotient = scale == 0.0f ? 0.0f : value / scale;
  if (format == WeightFormat::kE4M3) return nearest_e4m3(static_cast<double>(quotient));
  if (format == WeightFormat::kNF4) {
    static const std::vector<float> table(kNF4Values, kNF4Values + 16);
    return static_cast<uint8_t>(nearest_of(table, quotient, [](int) { return true; }));
  }
  if (format == WeightFormat::kE2M1) {
    static const std::vector<float> table(kE2M1Values, kE2M1Values + 8);
    const int code = nearest_of(table, std::fabs(quotient), [](int low) { return low % 2 == 0; });
    return static_cast<uint8_t>(code | (std::signbit(quotient) ? 8 : 0));
  }
  if (format == WeightFormat::kInt2) {
    return static_cast<uint8_t>(std::clamp(std::floor(static_cast<double>(quotient) / 2), -2.0, 1.0) + 2);
  }
  const float limit = format == WeightFormat::kInt8 ? 127.0f : 7.0f;
  const float lowest = format == WeightFormat::kInt4 && is_searched ? -8.0f : -limit;
  const auto code = static_cast<int8_t>(std::clamp(std::nearbyint(quotient), lowest, limit));
  return static_cast<uint8_t>(format == WeightFormat::kInt4 ? code & 15 : code);
}

double plain_value(uint8_t code, WeightFormat format) {
  return format == WeightFormat::kInt4 ? nibble_to_int(code) : int2_to_float(code);
}

struct Layout {
  WeightFormat format;
  int group_n, group_k;
  BlockScaleType block_type = BlockScaleType::kNone;
  int block_k = 0;
  bool search = false;

  std::string describe() const {
    return std::string(format_name(format)) + " group " + std::to_string(group_n) + "x" +
           std::to_string(group_k) + " block " + std::to_string(block_k) + (search ? " searched" : "");
  }
  WeightShape shape(std::vector<int64_t> rows, int64_t k) const {
    return {format, std::move(rows), k, group_n, group_k, block_type, block_k};
  }
};

const std::vector<Layout>& layouts() {
  using F = WeightFormat;
  using B = BlockScaleType;
  static const std::vector<Layout> all = {{F::kInt8, 1, 0},
                                          {F::kInt8, 1, 32},
                                          {F::kInt8, 1, 128},
                                          {F::kInt4, 1, 0},
                                          {F::kInt4, 1, 32},
                                          {F::kInt4, 1, 96},
                                          {F::kInt4, 1, 128},
                                          {F::kInt4, 1, 32, B::kNone, 0, true},
                                          {F::kInt4, 1, 128, B::kNone, 0, true},
                                          {F::kE4M3, 1, 0},
                                          {F::kE4M3, 1, 64},
                                          {F::kE4M3, 128, 128},
                                          {F::kE4M3, 0, 0},
                                          {F::kNF4, 1, 64},
                                          {F::kNF4, 1, 0},
                                          {F::kE2M1, 0, 0, B::kE4M3, 16},
                                          {F::kE2M1, -1, 0, B::kE8M0, 32},
                                          {F::kInt2, -1, 0, B::kBFloat16, 64}};
  return all;
}

int64_t num_scales(const Matrix& m, const Layout& layout, bool packed) {
  const int64_t groups = num_groups(m.k, layout.group_k);
  if (layout.group_n < 1) return layout.group_n + 1;
  if (layout.group_n != 1) return ceil_div(m.n, kTile) * groups;
  return (packed ? num_panels(m.n) * kPanelRows : m.n) * groups;
}

int64_t num_bytes(const Matrix& m, const Layout& layout, bool packed) {
  const int64_t columns = layout.format == WeightFormat::kE2M1 ? round_up(m.k, layout.block_k) : m.k;
  const int64_t per = layout.format == WeightFormat::kInt2                                           ? 4
                      : layout.format == WeightFormat::kInt8 || layout.format == WeightFormat::kE4M3 ? 1
                                                                                                     : 2;
  if (!packed) return m.n * ceil_div(columns, per);
  return num_panels(m.n) * kPanelRows * padded_k(m.k) / per;
}

int64_t num_block_bytes(const Matrix& m, const Layout& layout, bool packed) {
  if (layout.block_k == 0) return 0;
  const int64_t rows = packed ? num_panels(m.n) * kPanelRows : m.n;
  return rows * ceil_div(m.k, layout.block_k) * (layout.block_type == BlockScaleType::kBFloat16 ? 2 : 1);
}

struct Result {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<uint8_t> block_scales;
  NonFinite non_finite;

  PanelParts parts() { return {codes.data(), scales.data(), block_scales.data()}; }
};

// Whole, or in chunks of `chunk` rows.
Result quantize(const Matrix& m, const Layout& layout, bool packed, Isa isa, int64_t chunk) {
  Guarded codes(static_cast<size_t>(num_bytes(m, layout, packed)));
  Guarded scales(static_cast<size_t>(num_scales(m, layout, packed)) * 4);
  Guarded blocks(static_cast<size_t>(num_block_bytes(m, layout, packed)));
  std::memset(codes.bytes(), 0xee, codes.size());
  std::memset(scales.bytes(), 0xee, scales.size());
  std::memset(blocks.bytes(), 0xee, blocks.size());
  Result result;
  float largest = 0.0f;
  for (bool measures : {true, false}) {
    if (measures && layout.group_n != 0) continue;
    for (int64_t row = 0; row < m.n && !result.non_finite.found; row += chunk) {
      const int64_t rows = std::min(chunk, m.n - row);
      QuantizeArgs args{};
      args.source = m.source->bytes() + row * m.k * element_bytes(m.element);
      args.element = m.element;
      args.n = m.n;
      args.k = m.k;
      args.first_row = row;
      args.rows = rows;
      args.format = layout.format;
      args.group_n = layout.group_n;
      args.group_k = layout.group_k;
      args.block_type = layout.block_type;
      args.block_k = layout.block_k;
      args.search = layout.search;
      args.weight = codes.bytes();
      args.scales = scales.floats();
      args.block_scales = blocks.bytes();
      args.packed = packed;
      result.non_finite = measures ? measure_rows(args, isa, &largest) : quantize_rows(args, isa);
    }
    if (measures) *scales.floats() = tensor_scale(layout.format, largest);
  }
  result.codes.assign(codes.bytes(), codes.bytes() + codes.size());
  result.scales.assign(scales.floats(), scales.floats() + scales.size() / 4);
  result.block_scales.assign(blocks.bytes(), blocks.bytes() + blocks.size());
  return result;
}

// The scale of the candidate with the smallest error, 0 where every candidate is.
float search_plainly(const std::vector<float>& values, WeightFormat format) {
  float extreme = 0.0f;
  for (float value : values) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
  }
  const bool is_int4 = format == WeightFormat::kInt4;
  const float start = is_int4 ? extreme / -7.0f : std::fabs(extreme) / 3.0f;
  float best = 0.0f;
  double best_error = std::numeric_limits<double>::infinity();
  for (int c = 0; c < (is_int4 ? 32 : 48); ++c) {
    float scale = start * (static_cast<float>(64 - c) / 64.0f);
    if (!is_int4) {
      const uint32_t bits = float_bits(scale);
      scale = bits_float((bits + 0x1ffffu + (bits >> 18 & 1u)) >> 18 << 18);
    }
    if (scale == 0.0f || !std::isfinite(scale * (is_int4 ? 8.0f : 3.0f))) continue;
    double error = 0.0;
    for (float value : values) {
      const double distance =
          static_cast<double>(value) -
          plain_value(plain_code(value, scale, format, true), format) * static_cast<double>(scale);
      error += distance * distance;
    }
    if (error < best_error) {
      best = scale;
      best_error = error;
    }
  }
  return best;
}

// The block scale's code of some values.
unsigned plain_block_scale(const std::vector<float>& values, const Layout& layout, float tensor) {
  if (layout.block_type == BlockScaleType::kBFloat16)
    return float_bits(search_plainly(values, layout.format)) >> 16;
  float amax = 0.0f;
  for (float value : values) amax = std::max(amax, std::fabs(value));
  if (layout.block_type == BlockScaleType::kE4M3)
    return nearest_e4m3(static_cast<double>(amax / 6.0f / tensor));
  if (amax == 0.0f) return 127;
  int exponent = -127;
  while (exponent < 127 && std::ldexp(1.0, exponent + 3) <= static_cast<double>(amax)) ++exponent;
  return static_cast<unsigned>(exponent + 127);
}

// What a row has between two columns.
std::vector<float> values_of(const Matrix& m, int64_t row, int64_t from, int64_t to) {
  const auto first = m.values.begin() + row * m.k;
  return std::vector<float>(first + from, first + std::min(to, m.k));
}

void find_scales_plainly(const Matrix& m, const Layout& layout, Result* result) {
  const int64_t groups = num_groups(m.k, layout.group_k);
  const int64_t group_k = layout.group_k == 0 ? m.k : layout.group_k;
  if (layout.search) {
    for (size_t i = 0; i < result->scales.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const int64_t from = at % groups * group_k;
      const float scale = search_plainly(values_of(m, at / groups, from, from + group_k), layout.format);
      result->scales[i] = scale == 0.0f ? 1.0f : scale;
    }
    return;
  }
  if (layout.group_n < 0) return;
  for (int64_t i = 0; i < m.n * m.k; ++i) {
    const int64_t row_group = layout.group_n == 0 ? 0 : i / m.k / layout.group_n;
    float& scale = result->scales[static_cast<size_t>(row_group * groups + i % m.k / group_k)];
    scale = std::max(scale, std::fabs(m.values[static_cast<size_t>(i)]));
  }
  const float largest = layout.format == WeightFormat::kE2M1 ? 2688.0f : largest_code(layout.format);
  for (float& scale : result->scales) {
    scale /= largest;
    if (scale == 0.0f) scale = 1.0f;
  }
}

// What codes of a row are multiplied with at column k.
float plain_step(const Matrix& m, const Layout& layout, Result* result, int64_t row, int64_t k) {
  const int64_t groups = num_groups(m.k, layout.group_k);
  const int64_t group = layout.group_k == 0 ? 0 : k / layout.group_k;
  float scale = 1.0f;
  if (layout.group_n == 0) scale = result->scales[0];
  if (layout.group_n > 0) scale = result->scales[static_cast<size_t>(row / layout.group_n * groups + group)];
  if (layout.block_k == 0) return scale;
  const int64_t blocks = ceil_div(m.k, layout.block_k), from = k / layout.block_k * layout.block_k;
  const unsigned code = plain_block_scale(values_of(m, row, from, from + layout.block_k), layout, scale);
  const bool wide = layout.block_type == BlockScaleType::kBFloat16;
  uint8_t* at = result->block_scales.data() + (row * blocks + k / layout.block_k) * (wide ? 2 : 1);
  at[0] = static_cast<uint8_t>(code);
  if (wide) at[1] = static_cast<uint8_t>(code >> 8);
  return block_scale_to_float(layout.block_type, at) * scale;
}

Result quantize_plainly(const Matrix& m, const Layout& layout) {
  Result result;
  const int64_t row_bytes = num_bytes(m, layout, false) / m.n;
  result.codes.assign(static_cast<size_t>(num_bytes(m, layout, false)), 0);
  result.scales.assign(static_cast<size_t>(num_scales(m, layout, false)), 0.0f);
  result.block_scales.assign(static_cast<size_t>(num_block_bytes(m, layout, false)), 0);
  find_scales_plainly(m, layout, &result);
  const int per = codes_per_byte(layout.format);
  const int64_t unit = layout.block_k != 0 ? layout.block_k : 32;
  for (int64_t row = 0; row < m.n; ++row) {
    float step = 0.0f;
    for (int64_t k = 0; k < m.k; ++k) {
      if (k % unit == 0) step = plain_step(m, layout, &result, row, k);
      const uint8_t code =
          plain_code(m.values[static_cast<size_t>(row * m.k + k)], step, layout.format, layout.search);
      uint8_t& byte = result.codes[static_cast<size_t>(row * row_bytes + k / per)];
      byte = static_cast<uint8_t>(byte | code << (k % per * 8 / per));
    }
  }
  return result;
}

}  // namespace
}  // namespace fdq::test
