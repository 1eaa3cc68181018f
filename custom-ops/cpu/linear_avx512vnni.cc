// int8 activations times int8 or int4 codes with AVX-512 VNNI
#include <cstdint>

#include "cpu/linear.h"
#include "cpu/linear_vec_avx512.h"

namespace fdq {
namespace {

// What linear_blocks.h wants of a policy, of which only the sharing of scales and codes is used here.
using Element = uint8_t;
struct Weights {
  void store(Element* p) const;
};
template <WeightFormat F>
struct Decoder;

}  // namespace
}  // namespace fdq

#include "cpu/linear_quads.h"

namespace fdq {

LinearKernels linear_kernels_avx512vnni() {
  LinearKernels kernels{};
  kernels.int8_x = true;
  kernels.token_tile = 1;
  kernels.e4m3_x_factor = 1.0f;
  kernels.panels = run_quads_of_format;
  return kernels;
}

}  // namespace fdq
