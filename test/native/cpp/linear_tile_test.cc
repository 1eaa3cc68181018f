// The tile kernels over emulated tiles: they run on machines that have none.
#include "linear_tile_emulated.h"
// The kernels are written over the tiles above.
#include "cpu/linear_convert.h"
#include "cpu/linear_tiles.h"
#include "linear_case.h"

namespace fdq::test {
namespace {

LinearKernels emulated_kernels() {
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

bool runs_on_tiles(const Case& c) {
  if (c.shape.format == WeightFormat::kFloat32 || c.shape.format == WeightFormat::kFloat16) return false;
  if (c.compute == ComputeType::kBFloat16) return true;
  return c.panels() && c.rule != ActivationRule::kNone && c.shape.format != WeightFormat::kNF4;
}

void check_emulated(const std::vector<int64_t>& rows, int64_t k, const std::vector<int64_t>& batches,
                    Random& random) {
  for (const Case& c : all_formats(rows, k, k % 2 == 0)) {
    if (!runs_on_tiles(c)) continue;
    check_plan(c, Isa::kAmx, batches, random, [&](const Weight& weight) {
      Plan plan = make_plan(c, weight, Isa::kScalar);
      plan->kernels = emulated_kernels();
      return plan;
    });
  }
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::Random random(5);
  fdq::test::check_emulated({1}, 1, {1, 2}, random);
  fdq::test::check_emulated({15}, 33, {1, 3, 16}, random);
  fdq::test::check_emulated({17, 1, 48}, 100, {1, 2, 15, 16, 17, 31, 32, 33}, random);
  fdq::test::check_emulated({65}, 257, {1, 20, 40}, random);
  fdq::test::check_emulated({31}, 64, {1, 255, 256, 257, 300}, random);
  return fdq_test::finish("linear_tile_test");
}
