// The weight quantizer of the device, emulated, byte for byte against the quantizer of the CPU.
#include <cmath>
#include <vector>

#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "fdq/cuda.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

constexpr uint64_t kAllFinite = UINT64_MAX;

struct Case {
  WeightFormat format;
  ElementType element;
  int group_n, group_k;
  int64_t n, k;
};

int64_t element_bytes(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

void put(uint8_t* at, ElementType element, float value) {
  if (element == ElementType::kFloat32) {
    std::memcpy(at, &value, sizeof value);
    return;
  }
  const uint16_t bits =
      element == ElementType::kFloat16 ? emu::float_to_float16(value) : float_to_bfloat16(value);
  std::memcpy(at, &bits, sizeof bits);
}

// Ordinary values, runs of zeros, ties, subnormal and large numbers.
float draw(Random& random, int64_t row, int64_t k) {
  switch ((row * 7 + k / 32) % 9) {
    case 0:
      return 0.0f;
    case 1:
      return static_cast<float>(random.below(15) - 7) / 2;
    case 2:
      return random.normal() * 1e-40f;
    case 3:
      return random.normal() * 9000.0f;
    case 4:
      return random.below(2) == 0 ? -0.0f : 0x1p-14f;
    default:
      return random.normal() * 0.02f;
  }
}

int64_t scale_count(const Case& c) {
  if (c.group_n == 0) return 1;
  if (c.group_n == kTile) return ceil_div(c.n, kTile) * ceil_div(c.k, kTile);
  return num_panels(c.n) * kPanelRows * num_groups(c.k, c.group_k);
}

struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

Quantized quantize_on_cpu(const Case& c, const uint8_t* source) {
  Quantized out{std::vector<uint8_t>(static_cast<size_t>(num_panels(c.n) * panel_bytes(c.format, c.k))),
                std::vector<float>(static_cast<size_t>(scale_count(c)))};
  QuantizeArgs args{};
  args.source = source;
  args.element = c.element;
  args.n = args.rows = c.n;
  args.k = c.k;
  args.format = c.format;
  args.group_n = c.group_n;
  args.group_k = c.group_k;
  args.weight = out.codes.data();
  args.scales = out.scales.data();
  args.packed = true;
  if (c.group_n == 0) {
    float largest = 0;
    CHECK(!measure_rows(args, detect_isa(), &largest).found, "measured a value that is not finite");
    out.scales[0] = tensor_scale(c.format, largest);
  }
  CHECK(!quantize_rows(args, detect_isa()).found, "found a value that is not finite");
  return out;
}

void check_case(const Case& c, uint64_t seed) {
  Random random(seed);
  emu::set_seed(seed);
  Guarded source(static_cast<size_t>(c.n * c.k * element_bytes(c.element)));
  for (int64_t row = 0; row < c.n; ++row) {
    for (int64_t k = 0; k < c.k; ++k) {
      put(source.bytes() + (row * c.k + k) * element_bytes(c.element), c.element, draw(random, row, k));
    }
  }
  source.protect();
  const Quantized want = quantize_on_cpu(c, source.bytes());
  const int64_t scales_made = c.group_n == 0 ? num_panels(c.n) * kPanelRows : scale_count(c);
  Guarded codes(want.codes.size()), scales(static_cast<size_t>(scales_made * 4)), panels(want.codes.size());
  std::memset(codes.bytes(), 0xcd, codes.size());
  std::memset(scales.bytes(), 0xcd, scales.size());
  uint64_t non_finite = kAllFinite;
  const cuda::Error error = cuda::quantize_weight({source.bytes(), c.element, c.format, c.n, c.k, c.group_n,
                                                   c.group_k, codes.bytes(), scales.floats(), &non_finite},
                                                  nullptr);
  CHECK(error == nullptr && non_finite == kAllFinite, "%s", error == nullptr ? "not finite" : error);
  CHECK(cuda::repack_weight({c.format, c.n, c.k, true, codes.bytes(), panels.bytes()}, nullptr) == nullptr,
        "repacking");
  const auto describe = [&](const char* part) {
    CHECK(false, "%s differ: format %d, element %d, scales %d x %d, %ld x %ld", part,
          static_cast<int>(c.format), static_cast<int>(c.element), c.group_n, c.group_k,
          static_cast<long>(c.n), static_cast<long>(c.k));
  };
  if (std::memcmp(panels.bytes(), want.codes.data(), want.codes.size()) != 0) describe("codes");
  for (int64_t i = 0; i < scales_made; ++i) {
    const float expected = want.scales[static_cast<size_t>(c.group_n == 0 ? 0 : i)];
    CHECK(std::memcmp(scales.floats() + i, &expected, sizeof expected) == 0, "scale %ld is %g, not %g",
          static_cast<long>(i), static_cast<double>(scales.floats()[i]), static_cast<double>(expected));
  }
}

void test_shapes() {
  struct Granularity {
    int group_n, group_k;
  };
  constexpr Granularity kAll[] = {{1, 0}, {1, 32}, {1, 64}, {1, 128}, {0, 0}, {kTile, kTile}};
  constexpr WeightFormat kFormats[] = {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kE4M3};
  constexpr ElementType kElements[] = {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16};
  uint64_t seed = 1;
  for (const WeightFormat format : kFormats) {
    for (const Granularity& each : kAll) {
      // The CPU has tiles and one scale a tensor in e4m3 alone.
      if (format != WeightFormat::kE4M3 && each.group_n != 1) continue;
      if (format == WeightFormat::kE4M3 && each.group_n == 1 && each.group_k != 0) continue;
      for (const ElementType element : kElements) {
        Random random(seed);
        check_case(
            {format, element, each.group_n, each.group_k, 1 + random.below(150), 1 + random.below(300)},
            seed++);
      }
      check_case({format, ElementType::kBFloat16, each.group_n, each.group_k, 3, 2500}, seed++);
    }
  }
}

void test_non_finite() {
  std::vector<float> source(20 * 50, 1.0f);
  source[700] = INFINITY;
  source[333] = -NAN;
  source[999] = -INFINITY;
  Guarded codes(2 * 16 * 64), scales(32 * 4);
  uint64_t found = kAllFinite;
  const cuda::Error error = cuda::quantize_weight({source.data(), ElementType::kFloat32, WeightFormat::kInt8,
                                                   20, 50, 1, 0, codes.bytes(), scales.floats(), &found},
                                                  nullptr);
  CHECK(error == nullptr && found == 333, "found %lu", static_cast<unsigned long>(found));
}

void test_refusals() {
  Guarded memory(4096);
  const auto refuse = [&](WeightFormat format, int group_n, int group_k, const char* text) {
    uint64_t found = kAllFinite;
    const cuda::Error error =
        cuda::quantize_weight({memory.bytes(), ElementType::kFloat32, format, 4, 4, group_n, group_k,
                               memory.bytes(), memory.floats(), &found},
                              nullptr);
    CHECK(error != nullptr && std::strstr(error, text) != nullptr, "expected '%s'", text);
  };
  refuse(WeightFormat::kNF4, 1, 64, "only e4m3");
  refuse(WeightFormat::kInt8, 1, 48, "multiple of 32");
  refuse(WeightFormat::kE4M3, kTile, 64, "tiles of 128");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_shapes();
  test_non_finite();
  test_refusals();
  return fdq_test::finish("cuda_quantize_weight_test");
}
