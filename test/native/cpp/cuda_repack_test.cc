// The layouts of weights on the device: the kernel, emulated, against the CPU's panels, and the promises of
// fdq/cuda.h about registers.
#include <vector>

#include "cpu/pack.h"
#include "cuda/emulator/emulator.h"
#include "cuda/layout.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

using cuda::Layout;

constexpr WeightFormat kFormats[] = {WeightFormat::kE4M3, WeightFormat::kInt8, WeightFormat::kInt4};

uint8_t read_code(const uint8_t* panel, const cuda::Place& place, WeightFormat format) {
  return static_cast<uint8_t>(panel[place.byte] >> place.shift & ((1 << cuda::code_bits(format)) - 1));
}

// place_of and code_of are inverse, and kPanels is the layout of the CPU.
void test_places() {
  Random random(5);
  for (const WeightFormat format : kFormats) {
    for (const int64_t padded : {64, 128, 320}) {
      std::vector<uint8_t> panel(static_cast<size_t>(kPanelRows * padded / codes_per_byte(format)));
      for (uint8_t& byte : panel) byte = static_cast<uint8_t>(random.below(256));
      for (const Layout layout : {Layout::kPanels, cuda::device_layout(format)}) {
        const int per_unit = cuda::codes_per_unit(format);
        for (int row = 0; row < kPanelRows; ++row) {
          for (int64_t k = 0; k < padded; ++k) {
            const cuda::Place place = cuda::place_of(layout, format, padded, {row, k});
            const int64_t index = (place.byte * 8 + place.shift) / cuda::code_bits(format);
            const cuda::Code code =
                cuda::code_of(layout, format, padded, index / per_unit, static_cast<int>(index % per_unit));
            CHECK(code.row == row && code.k == k, "row %d, k %ld", row, static_cast<long>(k));
            if (layout != Layout::kPanels) continue;
            CHECK(read_code(panel.data(), place, format) == read_panel_code(format, panel.data(), row, k),
                  "panel code of row %d, k %ld", row, static_cast<long>(k));
          }
        }
      }
    }
  }
}

// The words of lane 4 g + t hold what the A operand of m16n8k16 wants.
void test_fragments() {
  for (int lane = 0; lane < 32; ++lane) {
    for (int reg = 0; reg < 4; ++reg) {
      for (int pair = 0; pair < 2; ++pair) {
        const int row = lane / 4 + reg % 2 * 8;
        for (int step = 0; step < 4; ++step) {
          const int64_t k = step * 16 + reg / 2 * 8 + lane % 4 * 2 + pair;
          const cuda::Place four =
              cuda::place_of(Layout::kFragments, WeightFormat::kInt4, 128, {row, 64 + k});
          CHECK(four.byte * 8 + four.shift == (512 + lane * 16 + step * 4) * 8 + 4 * reg + 16 * pair,
                "int4 of lane %d, register %d", lane, reg);
          const cuda::Place eight =
              cuda::place_of(Layout::kFragments, WeightFormat::kInt8, 128, {row, 64 + k});
          CHECK(eight.byte ==
                    1024 + step / 2 * 512 + lane * 16 + step % 2 * 8 + reg / 2 * 4 + 2 * pair + reg % 2,
                "int8 of lane %d, register %d", lane, reg);
        }
      }
    }
  }
}

void test_kernel() {
  Random random(9);
  for (const WeightFormat format : kFormats) {
    for (int i = 0; i < 6; ++i) {
      const int64_t n = 1 + random.below(70), k = 1 + random.below(400);
      const auto bytes = static_cast<size_t>(num_panels(n) * panel_bytes(format, k));
      Guarded panels(bytes), device(bytes), back(bytes);
      for (size_t b = 0; b < bytes; ++b) panels.bytes()[b] = static_cast<uint8_t>(random.below(256));
      emu::set_seed(static_cast<uint64_t>(i) + 1);
      CHECK(cuda::repack_weight({format, n, k, false, panels.bytes(), device.bytes()}, nullptr) == nullptr,
            "repack");
      CHECK(cuda::repack_weight({format, n, k, true, device.bytes(), back.bytes()}, nullptr) == nullptr,
            "repack back");
      CHECK(std::memcmp(panels.bytes(), back.bytes(), bytes) == 0, "n %ld, k %ld do not come back",
            static_cast<long>(n), static_cast<long>(k));
      const int64_t padded = padded_k(k), panel = panel_bytes(format, k);
      for (int64_t row = 0; row < round_up(n, kPanelRows); ++row) {
        for (int64_t column = 0; column < padded; ++column) {
          const cuda::Code code{static_cast<int>(row % kPanelRows), column};
          const cuda::Place place = cuda::place_of(cuda::device_layout(format), format, padded, code);
          const uint8_t* at = device.bytes() + row / kPanelRows * panel;
          CHECK(read_code(at, place, format) ==
                    read_panel_code(format, panels.bytes() + row / kPanelRows * panel, code.row, column),
                "row %ld, k %ld", static_cast<long>(row), static_cast<long>(column));
        }
      }
    }
  }
  CHECK(cuda::repack_weight({WeightFormat::kNF4, 1, 1, false, nullptr, nullptr}, nullptr) != nullptr, "nf4");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_places();
  test_fragments();
  test_kernel();
  return fdq_test::finish("cuda_repack_test");
}
