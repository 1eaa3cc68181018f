#include "cpu/linear.h"

#include <algorithm>
#include <numeric>

#include "cpu/linear_plan.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

constexpr int64_t kItemsPerThread = 8;
constexpr int64_t kPanelUnit = 4;  // panels that kernels run side by side
constexpr int64_t kRowUnit = 16;
constexpr int64_t kItemBytes =
    256 * 1024;  // of weights that stay in the second level while tokens are run over them

LinearKernels float_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return linear_kernels_avx512();
  if (isa == Isa::kAvx2) return linear_kernels_avx2();
#else
  (void)isa;
#endif
  return linear_kernels_scalar();
}

LinearKernels choose_kernels(Isa isa, bool exact_in_bfloat16) {
#if defined(__x86_64__)
  if (exact_in_bfloat16 && isa == Isa::kAmx) return linear_kernels_amx();
  if (exact_in_bfloat16 && isa == Isa::kAvx512Bf16) return linear_kernels_avx512bf16();
#else
  (void)exact_in_bfloat16;
#endif
  return float_kernels(isa);
}

constexpr float kNoScale = 1.0f;  // of formats whose block scales are all there is

bool in_panels(WeightFormat format) { return format >= WeightFormat::kInt8; }

bool is_rounded(ActivationRule rule) { return rule != ActivationRule::kNone; }

// Integers times integers: sums that floats would hold exactly too.
bool multiplies_integers(const LinearWeight& weight, ActivationRule rule) {
  const WeightFormat format = weight.shape.format;
  const bool symmetric = weight.zero_points == nullptr;
  return (rule == ActivationRule::kInt8Token || rule == ActivationRule::kInt8Static) && symmetric &&
         (format == WeightFormat::kInt8 || format == WeightFormat::kInt4);
}

void plan_panels(LinearPlan* plan) {
  const WeightShape& shape = plan->weight.shape;
  const int64_t groups = num_groups(shape.k, shape.group_k);
  const int64_t tiles_k = ceil_div(shape.k, kTile);
  const float* scales = plan->weight.scales;
  int64_t column = 0;
  for (int64_t rows : shape.member_rows) {
    for (int64_t row = 0; row < rows; row += kPanelRows) {
      Panel panel;
      panel.column = column + row;
      panel.rows = static_cast<int>(std::min<int64_t>(rows - row, kPanelRows));
      panel.scales = shape.group_n < 0        ? &kNoScale
                     : shape.group_n == kTile ? scales + row / kTile * tiles_k
                                              : scales;
      if (shape.group_n == 1) scales += groups * kPanelRows;
      plan->panels.push_back(panel);
    }
    if (shape.group_n == kTile) scales += ceil_div(rows, kTile) * tiles_k;
    if (shape.group_n == 0) ++scales;
    column += rows;
  }
}

// k summed before a scale is applied. Blocks with narrow scales are decoded whole into the first level cache.
int64_t choose_block_k(const LinearPlan& plan) {
  const WeightShape& shape = plan.weight.shape;
  if (shape.group_k != 0) return std::gcd<int64_t>(kTile, shape.group_k);
  const bool grouped_x = plan.activation.rule == ActivationRule::kE4M3Group128;
  return grouped_x || shape.block_k != 0 ? kTile : kMaxBlockK;
}

void plan_panel_job(LinearPlan* plan) {
  const WeightShape& shape = plan->weight.shape;
  PanelJob& job = plan->panel_job;
  job.format = shape.format;
  job.codes = static_cast<const uint8_t*>(plan->weight.data);
  job.panel_bytes = panel_bytes(shape.format, shape.k);
  job.panels = plan->panels.data();
  job.block_k = choose_block_k(*plan);
  job.k_end = std::min(round_up(shape.k, job.block_k), padded_k(shape.k));
  job.group_blocks = shape.group_k == 0 ? ceil_div(job.k_end, job.block_k) : shape.group_k / job.block_k;
  job.tile_scales = shape.group_n != 1;
  job.block_scales = plan->weight.block_scales;
  job.block_type = shape.block_type;
  job.block_columns = shape.block_k;
  job.row_blocks = num_blocks(shape.k, shape.block_k);
  job.zero_points = plan->weight.zero_points;
  job.groups = num_groups(shape.k, shape.group_k);
  job.group_k = shape.group_k == 0 ? job.k_end : shape.group_k;
  for (int i = 0; i < 16; ++i) {
    plan->table[i] = plan->round_x ? bfloat16_to_float(float_to_bfloat16(kNF4Values[i])) : kNF4Values[i];
  }
  job.table = plan->table;
  job.bias = plan->weight.bias;
  job.n = plan->n;
}

void plan_row_job(LinearPlan* plan) {
  RowJob& job = plan->row_job;
  job.format = plan->weight.shape.format;
  job.weight = static_cast<const uint8_t*>(plan->weight.data);
  job.k = plan->weight.shape.k;
  job.x_stride = round_up(job.k, kRowAlign);
  job.bias = plan->weight.bias;
  job.n = plan->n;
}

// Runs kernel(first, last) over ranges of `unit`s: enough ranges to even out threads, each at most `most`
// units.
template <typename Kernel>
void run_ranges(int64_t count, int64_t unit, int64_t most, const Parallel& parallel, const Kernel& kernel) {
  const int64_t units = ceil_div(count, unit);
  const int64_t even = ceil_div(units, kItemsPerThread * parallel.num_threads);
  const int64_t step = std::max<int64_t>(1, std::min(even, most)) * unit;
  parallel(ceil_div(count, step), [&](int64_t i) { kernel(i * step, std::min(count, (i + 1) * step)); });
}

}  // namespace

LinearPlan* make_linear_plan(const LinearWeight& weight, const LinearActivation& activation,
                             ComputeType compute, Isa isa) {
  auto* plan = new LinearPlan;
  plan->weight = weight;
  plan->activation = activation;
  plan->n = std::accumulate(weight.shape.member_rows.begin(), weight.shape.member_rows.end(), int64_t{0});
  plan->panels_format = in_panels(weight.shape.format);
  plan->round_x = compute == ComputeType::kBFloat16;
  // Rounded activations and all values of codes but those of nf4 are exact in bfloat16. A float32 or float16
  // weight is not.
  const WeightFormat format = weight.shape.format;
  const bool rounded = is_rounded(activation.rule) && plan->panels_format && format != WeightFormat::kNF4;
  const bool exact = plan->panels_format || format == WeightFormat::kBFloat16;
  plan->kernels = choose_kernels(isa, exact && (plan->round_x || rounded));
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16 && multiplies_integers(weight, activation.rule)) {
    plan->kernels = linear_kernels_avx512vnni();
  }
#endif
  if (plan->panels_format) {
    plan_panels(plan);
    plan_panel_job(plan);
  } else {
    plan_row_job(plan);
  }
  return plan;
}

void free_linear_plan(LinearPlan* plan) { delete plan; }

void run_linear(const LinearPlan& plan, const float* x, int64_t tokens, float* y, const Parallel& parallel) {
  if (tokens <= 0) return;
  const PreparedX prepared = prepare_x(plan, x, tokens, parallel);
  if (plan.panels_format) {
    PanelJob job = plan.panel_job;
    job.x = prepared.data;
    job.x_scales = prepared.scales;
    job.x_scale_stride = prepared.scale_stride;
    job.x_offsets = prepared.offsets;
    job.x_tokens = prepared.tokens;
    job.tokens = tokens;
    job.y = y;
    const auto count = static_cast<int64_t>(plan.panels.size());
    run_ranges(count, kPanelUnit, count, parallel,
               [&](int64_t first, int64_t last) { plan.kernels.panels(job, first, last); });
    return;
  }
  RowJob job = plan.row_job;
  job.x = prepared.data;
  job.x_tokens = prepared.tokens;
  job.tokens = tokens;
  job.y = y;
  const int64_t row_bytes = job.k * (job.format == WeightFormat::kFloat32 ? 4 : 2);
  const int64_t most = tokens == 1 ? job.n : kItemBytes / (row_bytes * kRowUnit);
  run_ranges(job.n, kRowUnit, most, parallel,
             [&](int64_t first, int64_t last) { plan.kernels.rows(job, first, last); });
}

}  // namespace fdq
