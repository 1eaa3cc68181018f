// Conversions between number formats as the emulated kernels make them, for every code.
#include <cmath>

#include "check.h"
#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "cuda/ptx/convert.cuh"

namespace fdq::test {
namespace {

using namespace fdq::ptx;

template <bool kFloat16>
void check_fragments(uint32_t code) {
  const auto first = [](uint32_t pair) { return kFloat16 ? first_float16(pair) : first_bfloat16(pair); };
  const auto second = [](uint32_t pair) { return kFloat16 ? second_float16(pair) : second_bfloat16(pair); };
  uint32_t a[4];
  int8_to_fragment<kFloat16>(code | (255 - code) << 8 | code << 16, code << 24, a);
  const float value = static_cast<int8_t>(code);
  CHECK(first(a[0]) == value && second(a[0]) == value, "int8 %u", code);
  CHECK(first(a[1]) == -1 - value && second(a[3]) == value, "int8 %u", code);
  for (const int zero : {0, -8, 7, 119}) {
    const uint32_t offsets[2] = {int4_offset<kFloat16>(zero), int4_offset<kFloat16>(0)};
    int4_to_fragment<kFloat16>(code | (15 - code % 16) << 16 | code << 20, offsets, a);
    const auto low = static_cast<float>(nibble_to_int(code));
    const auto high = static_cast<float>(nibble_to_int(code >> 4)), z = static_cast<float>(zero);
    CHECK(first(a[0]) == low - z, "int4 %u", code);
    CHECK(second(a[0]) == static_cast<float>(nibble_to_int(15 - code % 16)) - z, "int4 %u", code);
    CHECK(first(a[1]) == high && second(a[1]) == low, "int4 %u", code);
    CHECK(second(a[2]) == high - z, "int4 %u", code);
  }
}

void test_conversions() {
  for (uint32_t code = 0; code < 256; ++code) {
    check_fragments<false>(code);
    check_fragments<true>(code);
    const uint32_t pair = e4m3_to_float16_pair(code | 0x3800);
    const float expected = e4m3_to_float(static_cast<uint8_t>(code));
    CHECK(first_float16(pair) == expected || (std::isnan(expected) && std::isnan(first_float16(pair))),
          "e4m3 %u", code);
    CHECK(second_float16(pair) == 1.0f, "e4m3 %u in the lower half", code);
  }
  for (uint32_t half = 0; half < 0x7c01; ++half) {
    const float value = float16_to_float(static_cast<uint16_t>(half));
    CHECK(emu::float_to_float16(value) == half, "float16 %x", half);
    if (half >= 0x7c00) continue;
    const float next = float16_to_float(static_cast<uint16_t>(half + 1));
    const float middle = half == 0x7bff ? 65520.0f : value + (next - value) / 2;
    CHECK(emu::float_to_float16(-middle) == (0x8000u | (half % 2 == 0 ? half : half + 1)), "float16 tie %x",
          half);
  }
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::test_conversions();
  return fdq_test::finish("cuda_conversions_test");
}
