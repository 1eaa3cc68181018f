// The quantizers of every instruction set against rules written out plainly, and against each other.
#include "cpu/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "cpu/number_formats.h"
#include "cpu/pack.h"
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

uint8_t plain_code(float value, float scale, WeightFormat format) {
  const float quotient = value / scale;
  if (format == WeightFormat::kE4M3) return nearest_e4m3(static_cast<double>(quotient));
  const float limit = format == WeightFormat::kInt8 ? 127.0f : 7.0f;
  const auto code = static_cast<int8_t>(std::clamp(std::nearbyint(quotient), -limit, limit));
  return static_cast<uint8_t>(format == WeightFormat::kInt4 ? code & 15 : code);
}

struct Layout {
  WeightFormat format;
  int group_n, group_k;
};

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {WeightFormat::kInt8, 1, 0},  {WeightFormat::kInt8, 1, 32},   {WeightFormat::kInt8, 1, 128},
      {WeightFormat::kInt4, 1, 0},  {WeightFormat::kInt4, 1, 32},   {WeightFormat::kInt4, 1, 64},
      {WeightFormat::kInt4, 1, 96}, {WeightFormat::kInt4, 1, 128},  {WeightFormat::kE4M3, 1, 0},
      {WeightFormat::kE4M3, 1, 64}, {WeightFormat::kE4M3, 128, 128}};
  return all;
}

int64_t num_scales(const Matrix& m, const Layout& layout, bool packed) {
  const int64_t groups = num_groups(m.k, layout.group_k);
  if (layout.group_n != 1) return ceil_div(m.n, kTile) * groups;
  return (packed ? num_panels(m.n) * kPanelRows : m.n) * groups;
}

int64_t num_bytes(const Matrix& m, const Layout& layout, bool packed) {
  const bool nibbles = layout.format == WeightFormat::kInt4;
  if (!packed) return m.n * (nibbles ? ceil_div(m.k, 2) : m.k);
  return num_panels(m.n) * kPanelRows * padded_k(m.k) / (nibbles ? 2 : 1);
}

struct Result {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  NonFinite non_finite;
};

// Whole, or in chunks of `chunk` rows.
Result quantize(const Matrix& m, const Layout& layout, bool packed, Isa isa, int64_t chunk) {
  Guarded codes(static_cast<size_t>(num_bytes(m, layout, packed)));
  Guarded scales(static_cast<size_t>(num_scales(m, layout, packed)) * 4);
  std::memset(codes.bytes(), 0xee, codes.size());
  std::memset(scales.bytes(), 0xee, scales.size());
  Result result;
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
    args.weight = codes.bytes();
    args.scales = scales.floats();
    args.packed = packed;
    result.non_finite = quantize_rows(args, isa);
  }
  result.codes.assign(codes.bytes(), codes.bytes() + codes.size());
  result.scales.assign(scales.floats(), scales.floats() + scales.size() / 4);
  return result;
}

Result quantize_plainly(const Matrix& m, const Layout& layout) {
  Result result;
  const int64_t groups = num_groups(m.k, layout.group_k);
  const int64_t group_k = layout.group_k == 0 ? m.k : layout.group_k;
  const int64_t row_bytes = num_bytes(m, layout, false) / m.n;
  result.codes.assign(static_cast<size_t>(num_bytes(m, layout, false)), 0);
  result.scales.assign(static_cast<size_t>(num_scales(m, layout, false)), 0.0f);
  const float largest = largest_code(layout.format);
  const auto scale_at = [&](int64_t i) -> float& {
    return result.scales[static_cast<size_t>(i / m.k / layout.group_n * groups + i % m.k / group_k)];
  };
  for (int64_t i = 0; i < m.n * m.k; ++i) {
    scale_at(i) = std::max(scale_at(i), std::fabs(m.values[static_cast<size_t>(i)]));
  }
  for (float& scale : result.scales) {
    scale /= largest;
    if (scale == 0.0f) scale = 1.0f;
  }
  for (int64_t i = 0; i < m.n * m.k; ++i) {
    const uint8_t code = plain_code(m.values[static_cast<size_t>(i)], scale_at(i), layout.format);
    if (layout.format == WeightFormat::kInt4) {
      uint8_t& byte = result.codes[static_cast<size_t>(i / m.k * row_bytes + i % m.k / 2)];
      byte = static_cast<uint8_t>(byte | code << (i % m.k % 2 * 4));
    } else {
      result.codes[static_cast<size_t>(i)] = code;
    }
  }
  return result;
}

void check_same(const Result& got, const Result& want, const char* what, const Matrix& m, const Layout& l,
                Isa isa) {
  CHECK(got.codes == want.codes, "%s codes: %s %s %ldx%ld group %dx%d element %d", what, isa_name(isa),
        format_name(l.format), static_cast<long>(m.n), static_cast<long>(m.k), l.group_n, l.group_k,
        static_cast<int>(m.element));
  CHECK(got.scales == want.scales, "%s scales: %s %s %ldx%ld group %dx%d", what, isa_name(isa),
        format_name(l.format), static_cast<long>(m.n), static_cast<long>(m.k), l.group_n, l.group_k);
}

// Zero codes past n and k, scale 1 past n.
void check_padding(const Result& packed, const Matrix& m, const Layout& l) {
  const int64_t panel_bytes = num_bytes(m, l, true) / num_panels(m.n);
  const int64_t groups = num_groups(m.k, l.group_k);
  for (int64_t row = 0; row < num_panels(m.n) * kPanelRows; ++row) {
    const uint8_t* panel = packed.codes.data() + row / kPanelRows * panel_bytes;
    for (int64_t k = row < m.n ? m.k : 0; k < padded_k(m.k); ++k) {
      CHECK(read_panel_code(l.format, panel, static_cast<int>(row % kPanelRows), k) == 0, "row %ld k %ld",
            static_cast<long>(row), static_cast<long>(k));
    }
    if (row < m.n || l.group_n != 1) continue;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = (row / kPanelRows * groups + g) * kPanelRows + row % kPanelRows;
      CHECK(packed.scales[static_cast<size_t>(at)] == 1.0f, "scale of row %ld", static_cast<long>(row));
    }
  }
}

void check_matrix(const Matrix& m, const Layout& l) {
  const Result want = quantize_plainly(m, l);
  const int64_t unit = l.group_n == 1 ? kPanelRows : kTile;
  const WeightShape shape{l.format, {m.n}, m.k, l.group_n, l.group_k};
  for (Isa isa : isas()) {
    m.source->protect();
    check_same(quantize(m, l, false, isa, m.n), want, "canonical", m, l, isa);
    const Result packed = quantize(m, l, true, isa, m.n);
    check_padding(packed, m, l);
    check_same(quantize(m, l, true, isa, unit), packed, "chunked", m, l, isa);
    Result unpacked;
    unpacked.codes.assign(want.codes.size(), 0xee);
    unpacked.scales.assign(want.scales.size(), -1.0f);
    unpack_panels(shape, packed.codes.data(), packed.scales.data(), unpacked.codes.data(),
                  unpacked.scales.data());
    check_same(unpacked, want, "unpacked", m, l, isa);
  }
}

void test_shapes() {
  Random random(1);
  const std::vector<std::pair<int64_t, int64_t>> sizes = {{1, 1},     {3, 5},     {16, 16},  {17, 33},
                                                          {33, 63},   {9, 64},    {129, 65}, {40, 127},
                                                          {130, 257}, {257, 200}, {20, 600}, {8, 1300}};
  for (const auto& [n, k] : sizes) {
    for (ElementType element : {ElementType::kBFloat16, ElementType::kFloat16, ElementType::kFloat32}) {
      const Matrix m = make_matrix(element, n, k, random);
      for (const Layout& layout : layouts()) check_matrix(m, layout);
    }
  }
}

void test_fused_members_unpack() {
  Random random(2);
  const Matrix a = make_matrix(ElementType::kBFloat16, 20, 100, random);
  const Matrix b = make_matrix(ElementType::kBFloat16, 35, 100, random);
  for (const Layout& l : layouts()) {
    Result packed = quantize(a, l, true, detect_isa(), a.n);
    const Result second = quantize(b, l, true, detect_isa(), b.n);
    packed.codes.insert(packed.codes.end(), second.codes.begin(), second.codes.end());
    packed.scales.insert(packed.scales.end(), second.scales.begin(), second.scales.end());
    Result want = quantize_plainly(a, l);
    const Result want_second = quantize_plainly(b, l);
    want.codes.insert(want.codes.end(), want_second.codes.begin(), want_second.codes.end());
    want.scales.insert(want.scales.end(), want_second.scales.begin(), want_second.scales.end());
    Result got = want;
    std::fill(got.codes.begin(), got.codes.end(), uint8_t{0xee});
    const WeightShape shape{l.format, {20, 35}, 100, l.group_n, l.group_k};
    unpack_panels(shape, packed.codes.data(), packed.scales.data(), got.codes.data(), got.scales.data());
    check_same(got, want, "fused", a, l, detect_isa());
  }
}

// The first non-finite value in row-major order is reported, wherever the others are.
void test_non_finite() {
  Random random(3);
  const float bad[] = {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN()};
  for (ElementType element : {ElementType::kBFloat16, ElementType::kFloat32}) {
    for (int trial = 0; trial < 60; ++trial) {
      Matrix m = make_matrix(element, 1 + random.below(300), 1 + random.below(300), random);
      int64_t first = m.n * m.k;
      for (int i = 0; i < 3; ++i) {
        const int64_t at = random.below(m.n * m.k);
        float value = bad[random.below(3)];
        store_element(element, &value, m.source->bytes() + at * element_bytes(element));
        first = std::min(first, at);
      }
      const Layout& l = layouts()[static_cast<size_t>(random.below(static_cast<int64_t>(layouts().size())))];
      for (Isa isa : isas()) {
        const NonFinite found = quantize(m, l, trial % 2 == 0, isa, trial % 3 == 0 ? 128 : m.n).non_finite;
        CHECK(found.found && found.row == first / m.k && found.column == first % m.k,
              "row %ld column %ld of %ldx%ld", static_cast<long>(found.row), static_cast<long>(found.column),
              static_cast<long>(m.n), static_cast<long>(m.k));
      }
    }
  }
}

void test_number_formats() {
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const float value = bfloat16_to_float(static_cast<uint16_t>(i));
    if (std::isnan(value)) continue;
    CHECK(float_to_bfloat16(value) == i, "bfloat16 %04x", i);
    const double limited = std::clamp(static_cast<double>(value), -1e9, 1e9);
    CHECK(float_to_e4m3(value) == nearest_e4m3(limited), "e4m3 of bfloat16 %04x", i);
  }
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    if ((code & 0x7f) != 0x7f) CHECK(float_to_e4m3(e4m3_to_float(byte)) == byte, "e4m3 %02x", code);
  }
  CHECK(std::isnan(e4m3_to_float(0x7f)) && std::isnan(e4m3_to_float(0xff)), "e4m3 NaN");
  CHECK(float16_to_float(0x0001) == std::ldexp(1.0f, -24) && float16_to_float(0x7bff) == 65504.0f, "float16");
}

// Encoders of every instruction set on quotients at and around every midpoint.
void test_e4m3_midpoints() {
  std::vector<float> values;
  for (int code = 0; code < 0x7e; ++code) {
    const float low = e4m3_to_float(static_cast<uint8_t>(code)),
                high = e4m3_to_float(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    for (float v : {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e3f)}) {
      values.push_back(v);
      values.push_back(-v);
    }
  }
  for (float v : {448.0f, 463.9f, 464.0f, 465.0f, 480.0f, 1e30f}) values.push_back(v);
  std::vector<uint8_t> codes(values.size());
  for (Isa isa : isas()) {
    const QuantizeKernels kernels = isa >= Isa::kAvx512 ? quantize_kernels_avx512()
                                    : isa == Isa::kAvx2 ? quantize_kernels_avx2()
                                                        : quantize_kernels_scalar();
    const auto count = static_cast<int64_t>(values.size());
    kernels.encode(values.data(), ElementType::kFloat32, count, WeightFormat::kE4M3, 1.0f, codes.data());
    for (size_t i = 0; i < values.size(); ++i) {
      CHECK(codes[i] == nearest_e4m3(static_cast<double>(values[i])), "%s: %.9g", isa_name(isa),
            static_cast<double>(values[i]));
    }
  }
}

void test_activation() {
  Random random(4);
  for (int64_t k : {1, 64, 127, 128, 129, 300}) {
    Matrix m = make_matrix(ElementType::kFloat32, 9, k, random);
    const Result want = quantize_plainly(m, {WeightFormat::kE4M3, 1, 128});
    std::vector<uint8_t> codes(want.codes.size());
    std::vector<float> scales(want.scales.size());
    quantize_activation_e4m3(m.source->floats(), m.n, k, codes.data(), scales.data());
    CHECK(codes == want.codes && scales == want.scales, "k %ld", static_cast<long>(k));
  }
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::test_number_formats();
  fdq::test::test_e4m3_midpoints();
  fdq::test::test_activation();
  fdq::test::test_shapes();
  fdq::test::test_fused_members_unpack();
  fdq::test::test_non_finite();
  return fdq_test::finish("quantize_test");
}
