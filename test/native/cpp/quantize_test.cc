// The quantizers of every instruction set against rules written out plainly, and against each other.
#include "cpu/pack.h"
#include "quantize_plain.h"

namespace fdq::test {
namespace {

void check_same(const Result& got, const Result& want, const char* what, const Matrix& m, const Layout& l,
                Isa isa) {
  const auto check = [&](bool same, const char* part) {
    CHECK(same, "%s %s: %s %s %ldx%ld element %d", what, part, isa_name(isa), l.describe().c_str(),
          static_cast<long>(m.n), static_cast<long>(m.k), static_cast<int>(m.element));
  };
  check(got.codes == want.codes, "codes");
  check(got.scales == want.scales, "scales");
  check(got.block_scales == want.block_scales, "block scales");
}

// Zero codes past n and k, scales of 1 past n.
void check_padding(const Result& packed, const Matrix& m, const Layout& l) {
  const int64_t panel_size = num_bytes(m, l, true) / num_panels(m.n);
  const int64_t groups = num_groups(m.k, l.group_k), blocks = num_blocks(m.k, l.block_k);
  const int64_t block_bytes = block_scale_bytes(l.block_type);
  for (int64_t row = 0; row < num_panels(m.n) * kPanelRows; ++row) {
    const uint8_t* panel = packed.codes.data() + row / kPanelRows * panel_size;
    for (int64_t k = row < m.n ? m.k : 0; k < padded_k(m.k); ++k) {
      CHECK(read_panel_code(l.format, panel, static_cast<int>(row % kPanelRows), k) == 0, "row %ld k %ld",
            static_cast<long>(row), static_cast<long>(k));
    }
    if (row < m.n) continue;
    for (int64_t g = 0; g < groups && l.group_n == 1; ++g) {
      const int64_t at = (row / kPanelRows * groups + g) * kPanelRows + row % kPanelRows;
      CHECK(packed.scales[static_cast<size_t>(at)] == 1.0f, "scale of row %ld", static_cast<long>(row));
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t at = (row / kPanelRows * blocks + b) * kPanelRows + row % kPanelRows;
      CHECK(block_scale_to_float(l.block_type, packed.block_scales.data() + at * block_bytes) == 1.0f,
            "block scale of row %ld", static_cast<long>(row));
    }
  }
}

void check_matrix(const Matrix& m, const Layout& l) {
  const Result want = quantize_plainly(m, l);
  const int64_t unit = l.group_n == kTile ? kTile : kPanelRows;
  for (Isa isa : isas()) {
    m.source->protect();
    check_same(quantize(m, l, false, isa, m.n), want, "canonical", m, l, isa);
    Result packed = quantize(m, l, true, isa, m.n);
    check_padding(packed, m, l);
    check_same(quantize(m, l, true, isa, unit), packed, "chunked", m, l, isa);
    Result unpacked = want;
    std::fill(unpacked.codes.begin(), unpacked.codes.end(), uint8_t{0xee});
    std::fill(unpacked.scales.begin(), unpacked.scales.end(), -1.0f);
    std::fill(unpacked.block_scales.begin(), unpacked.block_scales.end(), uint8_t{0xee});
    unpack_panels(l.shape({m.n}, m.k), packed.parts(), unpacked.parts());
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

template <typename T>
void append(std::vector<T>* to, const std::vector<T>& from) {
  to->insert(to->end(), from.begin(), from.end());
}

Result joined(Result first, const Result& second) {
  append(&first.codes, second.codes);
  append(&first.scales, second.scales);
  append(&first.block_scales, second.block_scales);
  return first;
}

void test_fused_members_unpack() {
  Random random(2);
  const Matrix a = make_matrix(ElementType::kBFloat16, 20, 100, random);
  const Matrix b = make_matrix(ElementType::kBFloat16, 35, 100, random);
  for (const Layout& l : layouts()) {
    const Isa isa = detect_isa();
    Result packed = joined(quantize(a, l, true, isa, a.n), quantize(b, l, true, isa, b.n));
    const Result want = joined(quantize_plainly(a, l), quantize_plainly(b, l));
    Result got = want;
    std::fill(got.codes.begin(), got.codes.end(), uint8_t{0xee});
    unpack_panels(l.shape({20, 35}, 100), packed.parts(), got.parts());
    check_same(got, want, "fused", a, l, isa);
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

// Codes that are found by comparison, at and around every value between two of them.
void test_ties() {
  for (WeightFormat format : {WeightFormat::kNF4, WeightFormat::kE2M1, WeightFormat::kInt2}) {
    std::vector<float> values = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e30f, -1e30f};
    for (int i = 0; i < 16; ++i) {
      for (int j = i; j < 16; ++j) {
        const bool is_nf4 = format == WeightFormat::kNF4;
        const float a = is_nf4 ? kNF4Values[i] : e2m1_to_float(static_cast<unsigned>(i));
        const float b = is_nf4 ? kNF4Values[j] : e2m1_to_float(static_cast<unsigned>(j));
        const float middle = (a + b) / 2;
        for (float v : {middle, std::nextafter(middle, -1e3f), std::nextafter(middle, 1e3f)})
          values.push_back(v);
      }
    }
    std::vector<uint8_t> codes(values.size());
    for (Isa isa : isas()) {
      const auto count = static_cast<int64_t>(values.size());
      quantize_kernels(isa).encode(values.data(), ElementType::kFloat32, count, format, 1.0f, codes.data());
      for (size_t i = 0; i < values.size(); ++i) {
        CHECK(codes[i] == plain_code(values[i], 1.0f, format), "%s %s: %.9g", isa_name(isa),
              format_name(format), static_cast<double>(values[i]));
      }
    }
  }
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
    const QuantizeKernels kernels = quantize_kernels(isa);
    const auto count = static_cast<int64_t>(values.size());
    kernels.encode(values.data(), ElementType::kFloat32, count, WeightFormat::kE4M3, 1.0f, codes.data());
    for (size_t i = 0; i < values.size(); ++i) {
      CHECK(codes[i] == nearest_e4m3(static_cast<double>(values[i])), "%s: %.9g", isa_name(isa),
            static_cast<double>(values[i]));
    }
  }
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::test_number_formats();
  fdq::test::test_e4m3_midpoints();
  fdq::test::test_ties();
  fdq::test::test_shapes();
  fdq::test::test_fused_members_unpack();
  fdq::test::test_non_finite();
  return fdq_test::finish("quantize_test");
}
