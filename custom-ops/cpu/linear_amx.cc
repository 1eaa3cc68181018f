#include "cpu/linear_ops_bf16.h"

namespace fdq {
namespace {

// Instructions by hand: gcc 12's intrinsics declare neither all of the configuration nor the memory tiles
// read.
struct Tiles {
  struct alignas(64) Configuration {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Configuration) == 64, "the instruction reads 64 bytes");

  static void configure() {
    const Configuration configuration;
    __asm__ volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
  }
  static void release() { __asm__ volatile("tilerelease" : : : "memory"); }
  template <int T>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T) : "memory");
  }
  template <int T>
  static void load(const void* base, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B) : "memory");
  }
  template <int T>
  static void store(void* base, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride), "i"(T) : "memory");
  }
};

}  // namespace
}  // namespace fdq

// The kernels are written over the tiles and the policy above.
#include "cpu/linear_convert.h"
#include "cpu/linear_tiles.h"

namespace fdq {

LinearKernels linear_kernels_amx() {
  LinearKernels kernels{};
  kernels.bfloat16 = true;
  kernels.token_tile = kTileSide;
  kernels.paired_rows = true;
  kernels.e4m3_x_factor = 1.0f;
  kernels.convert = kConvertX;
  kernels.panels = run_tile_panels;
  kernels.rows = run_tile_rows;
  return kernels;
}

}  // namespace fdq
