#include "cpu/swiglu.h"

#include "fdq/ops.h"

namespace fdq {
namespace {

// Work below which another thread costs more than it saves.
constexpr int64_t kElementsPerItem = 16384;

SwigluKernels kernels_of(Isa isa) {
  if (isa >= Isa::kAvx512) return swiglu_kernels_avx512();
  return isa == Isa::kAvx2 ? swiglu_kernels_avx2() : swiglu_kernels_scalar();
}

}  // namespace

void swiglu(const float* x, int64_t tokens, int64_t width, float* y, Isa isa, const Parallel& parallel) {
  if (tokens == 0 || width == 0) return;
  const SwigluKernels kernels = kernels_of(isa);
  const int64_t per_item = width >= kElementsPerItem ? 1 : kElementsPerItem / width;
  parallel(ceil_div(tokens, per_item), [&](int64_t item) {
    const int64_t last = (item + 1) * per_item < tokens ? (item + 1) * per_item : tokens;
    for (int64_t t = item * per_item; t < last; ++t) kernels.row(x + t * 2 * width, width, y + t * width);
  });
}

}  // namespace fdq
