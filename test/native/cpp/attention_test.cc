// paged_attention against double precision, over odd shapes, both cache types and every instruction set.
#include "attention_case.h"
#include "check.h"

namespace fdq_test {
namespace {

// Keys rounded to bfloat16 may fall on the other side of a tie than the reference's; one such step of one key
// entry moves a score by 2^-8 of a product.
constexpr double kToleranceFloat32 = 2e-5;
constexpr double kToleranceBFloat16 = 4e-3;
// Queries rounded to 8 bits move scores by up to 2^-9 of the sum of their products' magnitudes, rounded
// weights an output by 2^-9 of the values it averages.
constexpr double kToleranceRounded = 1.2e-2;

double tolerance_of(const AttentionShape& shape, fdq::Isa isa) {
  if (shape.type == fdq::KvType::kFloat32) return kToleranceFloat32;
  const bool rounded = shape.compute == fdq::ComputeType::kBFloat16 && isa >= fdq::Isa::kAvx512Bf16;
  return rounded ? kToleranceRounded : kToleranceBFloat16;
}

void compare(const AttentionShape& shape, const std::vector<int64_t>& lengths, int64_t chunk) {
  AttentionCase problem(shape, lengths, 7);
  std::vector<std::vector<double>> expected;
  for (const Sequence& s : problem.sequences()) expected.push_back(problem.reference(s));
  for (fdq::Isa isa : machine_isas()) {
    problem.clear();
    for (bool more = true; more;) {
      std::vector<StepItem> items;
      for (size_t i = 0; i < lengths.size(); ++i) {
        const Sequence& s = problem.sequences()[i];
        if (s.done < s.length) items.push_back({static_cast<int>(i), std::min(chunk, s.length - s.done)});
      }
      more = !items.empty();
      if (more) problem.step(items, isa, 2);
    }
    const double tolerance = tolerance_of(shape, isa);
    for (size_t i = 0; i < lengths.size(); ++i) {
      double worst = 0;
      const std::vector<float>& got = problem.sequences()[i].output;
      for (size_t j = 0; j < got.size(); ++j) {
        const double error = std::fabs(got[j] - expected[i][j]);
        worst = error <= worst ? worst : error;  // NaN counts as worst
        if (std::isnan(error)) worst = INFINITY;
      }
      CHECK(worst < tolerance,
            "%s compute %d heads %d/%d dim %d window %d rotary %d%s norms %d type %d length %d: %g",
            fdq::isa_name(isa), static_cast<int>(shape.compute), static_cast<int>(shape.num_heads),
            static_cast<int>(shape.num_kv_heads), static_cast<int>(shape.head_dim),
            static_cast<int>(shape.window), static_cast<int>(shape.rotary_dim),
            shape.interleaved ? " interleaved" : "", shape.norms, static_cast<int>(shape.type),
            static_cast<int>(lengths[i]), worst);
    }
  }
}

void run(fdq::KvType type, fdq::ComputeType compute) {
  for (int64_t head_dim : {1, 7, 16, 20, 48, 64, 80, 128}) {
    for (int64_t ratio : {1, 2, 3, 8}) {
      const int64_t even = head_dim / 2 * 2;
      const int64_t kv_heads = ratio == 8 ? 1 : 2;
      const int64_t heads = ratio * kv_heads;
      compare({heads, kv_heads, head_dim, 0, even, false, true, type, compute}, {1, 17, 150}, 1000);
      compare({heads, kv_heads, head_dim, 5, head_dim / 4 * 2, true, false, type, compute}, {33, 140}, 40);
    }
  }
}

void run_windows() {
  for (int64_t window : {1, 16, 100, 129, 500}) {
    compare({4, 2, 32, window, 32, false, true, fdq::KvType::kFloat32}, {300, 64, 131}, 77);
    compare({4, 1, 24, window, 0, false, false, fdq::KvType::kBFloat16}, {270}, 1000);
    compare({4, 1, 24, window, 0, false, false, fdq::KvType::kBFloat16, fdq::ComputeType::kBFloat16}, {270},
            1000);
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  using fdq::ComputeType;
  using fdq::KvType;
  fdq_test::run(KvType::kFloat32, ComputeType::kFloat32);
  fdq_test::run(KvType::kBFloat16, ComputeType::kFloat32);
  // The other instruction sets do the same under either.
  if (fdq::detect_isa() >= fdq::Isa::kAvx512Bf16) fdq_test::run(KvType::kBFloat16, ComputeType::kBFloat16);
  fdq_test::run_windows();
  return fdq_test::finish("attention");
}
