#include "cpu/linear_ops_scalar.h"
// The kernels are written over the policy above.
#include "cpu/linear_convert.h"
#include "cpu/linear_panels.h"
#include "cpu/linear_rows.h"

namespace fdq {
namespace {

void run_rows_of_format(const RowJob& job, int64_t first, int64_t last) {
  if (job.format == WeightFormat::kBFloat16) return run_rows<WeightFormat::kBFloat16>(job, first, last);
  if (job.format == WeightFormat::kFloat16) return run_rows<WeightFormat::kFloat16>(job, first, last);
  run_rows<WeightFormat::kFloat32>(job, first, last);
}

}  // namespace

LinearKernels linear_kernels_scalar() {
  LinearKernels kernels{};
  kernels.token_tile = 1;
  kernels.e4m3_x_factor = 1.0f;
  kernels.convert = kConvertX;
  kernels.panels = run_panels_of_format;
  kernels.rows = run_rows_of_format;
  return kernels;
}

}  // namespace fdq
