// The activation quantizer, emulated, byte for byte against the CPU kernels.
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/number_formats.h"
#include "cpu/quantize.h"
#include "cuda/divide.cuh"
#include "cuda/emulator/emulator.h"
#include "fdq/cuda.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

constexpr uint8_t kPoison = 0xcd;

struct Case {
  ElementType element;
  ActivationRule rule;
  int64_t tokens, k, x_stride, offset;  // offset: elements by which x is misaligned
};

// Values by row: plain, zeros, subnormals, huge, ties of both formats, one outlier, both zeros.
float draw_value(ElementType element, int64_t row, int64_t k, Random& random) {
  float value = random.normal();
  switch (row % 7) {
    case 1:
      value = 0.0f;
      break;
    case 2:
      value *= element == ElementType::kFloat16 ? 1e-7f : 1e-39f;
      break;
    case 3:
      value *= element == ElementType::kFloat16 ? 16000.0f : 5e37f;
      break;
    case 4:  // the largest is 448 or 127 times a power of two, so that quotients are short
      value =
          k % 128 == 0 ? (row % 2 == 0 ? 448.0f : 127.0f) : static_cast<float>(random.below(1793) - 896) / 8;
      break;
    case 5:
      value *= k % 97 == 5 ? 300.0f : 1e-3f;
      break;
    case 6:
      value = k % 3 == 0 ? -0.0f : k % 3 == 1 ? 0.0f : value;
      break;
    default:
      break;
  }
  return value;
}

// Stores the value as `element` and returns what then stands there.
float store_value(float value, ElementType element, void* target) {
  if (element == ElementType::kFloat32) {
    std::memcpy(target, &value, sizeof value);
    return value;
  }
  const bool is_half = element == ElementType::kFloat16;
  const uint16_t bits = is_half ? emu::float_to_float16(value) : float_to_bfloat16(value);
  std::memcpy(target, &bits, sizeof bits);
  return is_half ? float16_to_float(bits) : bfloat16_to_float(bits);
}

int64_t size_of(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

struct Expected {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

// One run of values that share a scale.
void quantize_run(const float* x, int64_t count, const Case& c, float static_scale, uint8_t* codes,
                  float* scale) {
  const bool is_int8 = c.rule == ActivationRule::kInt8Token || c.rule == ActivationRule::kInt8Static;
  const WeightFormat format = is_int8 ? WeightFormat::kInt8 : WeightFormat::kE4M3;
  const QuantizeKernels kernels = quantize_kernels_scalar();
  *scale = is_static(c.rule)
               ? static_scale
               : scale_of(bits_float(kernels.max_magnitude(x, ElementType::kFloat32, count)), format);
  kernels.encode(x, ElementType::kFloat32, count, format, *scale, codes);
}

void check_case(const Case& c, uint64_t seed) {
  Random random(seed);
  emu::set_seed(seed);
  const int64_t size = size_of(c.element);
  Guarded memory(static_cast<size_t>((c.offset + (c.tokens - 1) * c.x_stride + c.k) * size));
  uint8_t* x = memory.bytes() + c.offset * size;
  std::vector<float> wide(static_cast<size_t>(c.tokens * c.k));
  for (int64_t row = 0; row < c.tokens; ++row) {
    for (int64_t k = 0; k < c.k; ++k) {
      wide[static_cast<size_t>(row * c.k + k)] =
          store_value(draw_value(c.element, row, k, random), c.element, x + (row * c.x_stride + k) * size);
    }
  }
  const bool is_grouped = c.rule == ActivationRule::kE4M3Group128;
  const int64_t code_stride = round_up(c.k, 16) + 16 * random.below(3);
  const int64_t scale_stride = round_up(c.tokens, 4) + 4 * random.below(2);
  const int64_t num_scales = is_grouped ? ceil_div(c.k, kTile) * scale_stride : c.tokens;
  Guarded codes(static_cast<size_t>(c.tokens * code_stride)), scales(static_cast<size_t>(num_scales * 4));
  std::memset(codes.bytes(), kPoison, codes.size());
  std::memset(scales.bytes(), kPoison, scales.size());
  constexpr float kStaticScale = 0.0123f;
  const cuda::Error error = cuda::quantize_activations(
      {x, c.element, c.tokens, c.k, c.x_stride, c.rule, kStaticScale, codes.bytes(), code_stride,
       is_static(c.rule) ? nullptr : scales.floats(), scale_stride},
      nullptr);
  CHECK(error == nullptr, "%s", error);

  const int64_t run = is_grouped ? kTile : c.k;
  std::vector<uint8_t> expected(static_cast<size_t>(c.k));
  for (int64_t row = 0; row < c.tokens; ++row) {
    for (int64_t k = 0; k < c.k; k += run) {
      float scale;
      quantize_run(&wide[static_cast<size_t>(row * c.k + k)], std::min(run, c.k - k), c, kStaticScale,
                   &expected[static_cast<size_t>(k)], &scale);
      if (is_static(c.rule)) continue;
      const float got = scales.floats()[is_grouped ? k / kTile * scale_stride + row : row];
      CHECK(float_bits(got) == float_bits(scale), "scale of token %ld, k %ld: %g, not %g (rule %d, k %ld)",
            static_cast<long>(row), static_cast<long>(k), static_cast<double>(got),
            static_cast<double>(scale), static_cast<int>(c.rule), static_cast<long>(c.k));
    }
    const uint8_t* got = codes.bytes() + row * code_stride;
    for (int64_t k = 0; k < code_stride; ++k) {
      const int code = k < c.k ? expected[static_cast<size_t>(k)] : 0;
      CHECK(got[k] == code, "code of token %ld, k %ld: %d, not %d (rule %d, element %d, k %ld)",
            static_cast<long>(row), static_cast<long>(k), got[k], code, static_cast<int>(c.rule),
            static_cast<int>(c.element), static_cast<long>(c.k));
    }
  }
  for (int64_t group = 0; is_grouped && group < ceil_div(c.k, kTile); ++group) {
    for (int64_t token = c.tokens; token < scale_stride; ++token) {
      CHECK(scales.bytes()[(group * scale_stride + token) * 4] == kPoison,
            "a scale beyond the tokens was written");
    }
  }
}

void test_shapes() {
  constexpr ActivationRule kRules[] = {ActivationRule::kE4M3Group128, ActivationRule::kE4M3Token,
                                       ActivationRule::kInt8Token, ActivationRule::kE4M3Static,
                                       ActivationRule::kInt8Static};
  constexpr int64_t kDepths[] = {1, 7, 16, 127, 128, 129, 256, 300, 513, 1024, 2056};
  uint64_t seed = 1;
  for (const ElementType element : {ElementType::kBFloat16, ElementType::kFloat16, ElementType::kFloat32}) {
    for (const ActivationRule rule : kRules) {
      Random random(seed);
      for (const int64_t k : kDepths) {
        const int64_t stride = random.below(2) == 0 ? k : round_up(k, 8) + 8 * random.below(3);
        check_case({element, rule, 1 + random.below(15), k, stride, random.below(3) == 0 ? 1 : 0}, seed++);
      }
    }
    // More than a thread keeps in registers.
    check_case({element, ActivationRule::kE4M3Token, 3, 8192 + 3000, 8192 + 3000, 0}, seed++);
    check_case({element, ActivationRule::kInt8Token, 2, 8192 + 2049, 8192 + 2049, 0}, seed++);
  }
}

// float32 to 16 bits: bytes, zeros up to the stride and nothing beyond.
void test_conversion() {
  uint64_t seed = 1000;
  for (const ElementType element : {ElementType::kBFloat16, ElementType::kFloat16}) {
    for (const int64_t k : {1, 7, 8, 9, 64, 300, 2056}) {
      Random random(++seed);
      emu::set_seed(seed);
      const int64_t tokens = 1 + random.below(9), offset = random.below(2);
      const int64_t x_stride = k + random.below(6), y_stride = round_up(k, 8) + 8 * random.below(2);
      Guarded memory(static_cast<size_t>((offset + (tokens - 1) * x_stride + k) * 4));
      Guarded y(static_cast<size_t>(tokens * y_stride * 2));
      std::memset(y.bytes(), kPoison, y.size());
      float* x = memory.floats() + offset;
      for (int64_t i = 0; i < (tokens - 1) * x_stride + k; ++i) {
        x[i] = draw_value(element, i / x_stride, i % x_stride, random);
      }
      const cuda::Error error =
          cuda::convert_activations({x, tokens, k, x_stride, y.bytes(), element, y_stride}, nullptr);
      CHECK(error == nullptr, "%s", error);
      const auto* got = reinterpret_cast<const uint16_t*>(y.bytes());
      for (int64_t i = 0; i < tokens * y_stride; ++i) {
        uint32_t expected = 0;  // store_value may write four bytes
        if (i % y_stride < k) store_value(x[i / y_stride * x_stride + i % y_stride], element, &expected);
        CHECK(got[i] == expected, "element %ld of rows of %ld: %x, not %x", static_cast<long>(i),
              static_cast<long>(y_stride), got[i], expected);
      }
    }
  }
  uint16_t y[16];
  const float x[8] = {};
  const auto refuse = [&](const cuda::ConvertArgs& args, const char* text) {
    const cuda::Error error = cuda::convert_activations(args, nullptr);
    CHECK(error != nullptr && std::strstr(error, text) != nullptr, "expected '%s', got '%s'", text, error);
  };
  auto* rows = reinterpret_cast<uint16_t*>(round_up(reinterpret_cast<int64_t>(y), 16));
  refuse({x, 1, 8, 4, rows, ElementType::kBFloat16, 8}, "impossible shape");
  refuse({x, 1, 8, 8, rows, ElementType::kBFloat16, 12}, "multiples of 16");
  refuse({x, 1, 8, 8, rows + 1, ElementType::kBFloat16, 8}, "multiples of 16");
  refuse({x, 1, 8, 8, rows, ElementType::kFloat32, 8}, "bfloat16 or float16");
}

// One quotient; with quotients known to be small it is the same.
float quotient_of(const cuda::Divider& divide, float value, long* wrong) {
  float any[1] = {value}, small[1] = {value};
  divide.divide_all<false>(any);
  divide.divide_all<true>(small);
  *wrong += std::abs(any[0]) < 0x1p20f && float_bits(any[0]) != float_bits(small[0]) ? 1 : 0;
  return any[0];
}

// float32 inputs have all their bits: random ones by random divisors.
void test_divider_of_floats() {
  Random random(12);
  long wrong = 0;
  constexpr int kCount = 20000000;
  for (int i = 0; i < kCount; ++i) {
    const auto draw = [&](uint32_t lowest, uint32_t range) {
      const auto exponent = lowest + static_cast<uint32_t>(random.below(range));
      return bits_float(exponent << 23 | (static_cast<uint32_t>(random.next() >> 33) & 0x7fffffu));
    };
    const float divisor = draw(40, 170), value = divisor * draw(127 - 19, 30);
    if (!(value < 3e38f)) continue;
    const float expected = value / divisor, got = quotient_of(cuda::Divider(divisor), value, &wrong);
    wrong += expected >= 0x1p-20f && expected < 0x1p20f && float_bits(got) != float_bits(expected) ? 1 : 0;
  }
  CHECK(wrong == 0, "%ld quotients are wrong", wrong);
}

// Every bfloat16 magnitude by many divisors, against the division of the CPU.
void test_divider() {
  Random random(11);
  long wrong = 0, checked = 0;
  for (int i = 0; i < 1500; ++i) {
    uint32_t bits = static_cast<uint32_t>(random.next() >> 33) % 0x7f800000u;
    if (i % 3 != 0) bits = (100 + static_cast<uint32_t>(random.below(50))) << 23 | (bits & 0x7fffffu);
    if (i % 50 == 0) bits |= 0x7fffffu;
    if (i % 50 == 1) bits &= ~0x7fffffu;
    const float divisor = bits_float(bits == 0 ? 1u : bits);
    const cuda::Divider divide(divisor);
    for (uint32_t x = 0; x < 0x7f80; x += 1) {
      const float value = bfloat16_to_float(static_cast<uint16_t>(x));
      const float expected = value / divisor, got = quotient_of(divide, value, &wrong);
      if (expected > 1e6f) break;
      wrong += float_bits(quotient_of(divide, -value, &wrong)) == (float_bits(got) | 0x80000000u) ? 0 : 1;
      const bool is_small = expected < 0x1p-20f;
      ++checked;
      wrong += is_small ? (got >= 0x1p-19f ? 1 : 0) : (float_bits(got) != float_bits(expected) ? 1 : 0);
    }
  }
  CHECK(wrong == 0 && checked > 10000000, "%ld of %ld quotients are wrong", wrong, checked);
}

void test_refusals() {
  uint8_t memory[64];
  float scale[8];
  const auto refuse = [&](const cuda::ActivationArgs& args, const char* text) {
    const cuda::Error error = cuda::quantize_activations(args, nullptr);
    CHECK(error != nullptr && std::strstr(error, text) != nullptr, "expected '%s', got '%s'", text, error);
  };
  auto* codes = reinterpret_cast<uint8_t*>(round_up(reinterpret_cast<int64_t>(memory), 16));
  constexpr ElementType kB = ElementType::kBFloat16;
  constexpr ActivationRule kG = ActivationRule::kE4M3Group128;
  refuse({memory, kB, 1, 8, 8, kG, 1, codes, 8, scale, 4}, "multiples of 16");
  refuse({memory, kB, 1, 8, 8, kG, 1, codes + 1, 16, scale, 4}, "multiples of 16");
  refuse({memory, kB, 5, 8, 8, kG, 1, codes, 16, scale, 4}, "stride");
  refuse({memory, kB, 1, 8, 4, kG, 1, codes, 16, scale, 4}, "impossible shape");
  refuse({memory, kB, 1, 8, 8, ActivationRule::kNone, 1, codes, 16, scale, 4}, "without a rule");
  CHECK(cuda::quantize_activations({nullptr, kB, 0, 8, 8, kG, 1, codes, 16, scale, 4}, nullptr) == nullptr,
        "no tokens");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_divider();
  test_divider_of_floats();
  test_conversion();
  test_refusals();
  test_shapes();
  return fdq_test::finish("cuda_activations_test");
}
