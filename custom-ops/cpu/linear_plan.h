// What make_linear_plan keeps, and the preparation of x.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/linear.h"

namespace fdq {

class LinearPlan {
 public:
  LinearWeight weight;
  LinearActivation activation{ActivationRule::kNone};
  bool panels_format = false;
  bool round_x = false;  // to bfloat16 before the product
  int64_t n = 0;
  LinearKernels kernels{};
  PanelJob panel_job{};  // all but x, tokens and y
  RowJob row_job{};
  std::vector<Panel> panels;
  float table[16] = {};  // of nf4
};

struct PreparedX {
  const void* data;
  const float* scales;
  int64_t scale_stride;
  const int32_t* offsets;
  int64_t tokens;  // rounded up to LinearKernels::token_tile
};

// Writes x in the layout the plan's kernel reads, into memory of the calling thread that the next call
// reuses.
PreparedX prepare_x(const LinearPlan& plan, const float* x, int64_t tokens, const Parallel& parallel);

}  // namespace fdq
