// The table of an instruction set that multiplies float32. Included after its policy, like the kernels.
#pragma once

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

// `e4m3_x_factor`: see LinearKernels.
LinearKernels float_kernels(float e4m3_x_factor) {
  LinearKernels kernels{};
  kernels.token_tile = 1;
  kernels.e4m3_x_factor = e4m3_x_factor;
  kernels.convert = kConvertX;
  kernels.panels = run_panels_of_format;
  kernels.rows = run_rows_of_format;
  return kernels;
}

}  // namespace
}  // namespace fdq
