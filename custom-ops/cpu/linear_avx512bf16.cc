#include "cpu/linear_ops_bf16.h"
// The kernels are written over the policy above.
#include "cpu/linear_convert.h"
#include "cpu/linear_panels.h"
#include "cpu/linear_rows.h"

namespace fdq {

LinearKernels linear_kernels_avx512bf16() {
  LinearKernels kernels{};
  kernels.bfloat16 = true;
  kernels.token_tile = 1;
  kernels.e4m3_x_factor = 1.0f;
  kernels.convert = kConvertX;
  kernels.panels = run_panels_of_format;
  kernels.rows = run_rows<WeightFormat::kBFloat16>;
  return kernels;
}

}  // namespace fdq
