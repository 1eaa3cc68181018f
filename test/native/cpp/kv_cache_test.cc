// Quantized KV pools: the bytes writing leaves, attention over them against double precision, and what each
// type costs where one key among thousands must be found.
#include "attention_case.h"
#include "check.h"

namespace fdq_test {
namespace {

using fdq::ComputeType;
using fdq::KvType;

constexpr KvType kTypes[] = {KvType::kInt8, KvType::kFp8, KvType::kInt4};

// Runs every sequence to its end, `chunk` tokens a step.
void run_all(AttentionCase& problem, int64_t chunk, fdq::Isa isa) {
  for (bool more = true; more;) {
    std::vector<StepItem> items;
    for (size_t i = 0; i < problem.sequences().size(); ++i) {
      const Sequence& s = problem.sequences()[i];
      if (s.done < s.length) items.push_back({static_cast<int>(i), std::min(chunk, s.length - s.done)});
    }
    more = !items.empty();
    if (more) problem.step(items, isa, 2);
  }
}

// Keys are neither normalized nor rotated here, so what is stored is known to the bit.
void check_written(KvType type, int64_t head_dim, fdq::Isa isa) {
  const AttentionShape shape{4, 2, head_dim, 0, 0, false, false, type};
  AttentionCase problem(shape, {37, 16}, 3);
  const int64_t width = problem.width();
  std::vector<float>& qkv = problem.sequences()[0].qkv;
  const int64_t first_key = shape.num_heads * head_dim;
  for (int64_t d = 0; d < head_dim; ++d) {
    qkv[static_cast<size_t>(first_key + d)] = 0.0f;                              // amax 0
    qkv[static_cast<size_t>(width + first_key + d)] = d == 0 ? 1e-45f : 0.0f;    // a scale that underflows
    qkv[static_cast<size_t>(2 * width + first_key + d)] = 1e-44f * (d % 3 - 1);  // a denormal scale
    qkv[static_cast<size_t>(3 * width + first_key + d)] = d == 0 ? 254.0f : d - 0.5f * (d % 2);  // ties
    qkv[static_cast<size_t>(4 * width + first_key + d)] = d % 2 == 0 ? 3e38f : -3e38f;
  }
  run_all(problem, 7, isa);
  int wrong = 0;
  for (const Sequence& s : problem.sequences()) {
    for (int64_t t = 0; t < s.length; ++t) {
      for (int64_t h = 0; h < 2 * shape.num_kv_heads; ++h) {
        const float* x = s.qkv.data() + t * width + first_key + h * head_dim;
        const KvHead expected = quantize_kv_head(type, x, head_dim);
        const KvHead got = problem.stored(s, t, h % shape.num_kv_heads, h >= shape.num_kv_heads);
        if (got.codes != expected.codes || got.scale != expected.scale) ++wrong;
      }
    }
  }
  CHECK(wrong == 0, "%s type %d dim %d: %d heads are not as quantized by the reference", fdq::isa_name(isa),
        static_cast<int>(type), static_cast<int>(head_dim), wrong);
}

// A NaN or an infinity makes the head's scale NaN, so that everything that sees it is NaN.
void check_non_finite(KvType type, float bad, fdq::Isa isa) {
  AttentionCase problem({1, 1, 20, 0, 0, false, false, type}, {3}, 3);
  Sequence& s = problem.sequences()[0];
  s.qkv[static_cast<size_t>(problem.width() + 20 + 17)] = bad;  // an entry of token 1's key
  problem.step({{0, 3}}, isa, 1);
  CHECK(std::isnan(problem.stored(s, 1, 0, false).scale), "%s", fdq::isa_name(isa));
  CHECK(std::isfinite(s.output[0]) && std::isnan(s.output[20]) && std::isnan(s.output[40]), "%s",
        fdq::isa_name(isa));
}

// Float32 sums over exact codes; queries and weights rounded to bfloat16 under that compute type.
double tolerance_of(const AttentionShape& shape, fdq::Isa isa) {
  const bool rounded = shape.compute == ComputeType::kBFloat16 && isa >= fdq::Isa::kAvx512Bf16;
  return rounded ? 1.5e-2 : 2e-5;
}

void compare(const AttentionShape& shape, const std::vector<int64_t>& lengths, int64_t chunk) {
  AttentionCase problem(shape, lengths, 7);
  for (fdq::Isa isa : machine_isas()) {
    problem.clear();
    run_all(problem, chunk, isa);
    double worst = 0;
    for (const Sequence& s : problem.sequences()) {
      const std::vector<double> expected = problem.reference(s);
      for (size_t j = 0; j < expected.size(); ++j) {
        const double error = std::fabs(static_cast<double>(s.output[j]) - expected[j]);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
    CHECK(worst < tolerance_of(shape, isa), "%s type %d compute %d heads %d/%d dim %d window %d: %g",
          fdq::isa_name(isa), static_cast<int>(shape.type), static_cast<int>(shape.compute),
          static_cast<int>(shape.num_heads), static_cast<int>(shape.num_kv_heads),
          static_cast<int>(shape.head_dim), static_cast<int>(shape.window), worst);
  }
}

void compare_shapes(KvType type) {
  for (ComputeType compute : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (int64_t head_dim : {1, 7, 16, 33, 64, 80, 128}) {
      const int64_t even = head_dim / 2 * 2;
      compare({6, 2, head_dim, 0, even, false, true, type, compute}, {1, 17, 150}, 1000);
      compare({8, 1, head_dim, 5, even / 4 * 2, true, false, type, compute}, {33, 140}, 40);
      compare({2, 2, head_dim, 129, 0, false, false, type, compute}, {270}, 1);
    }
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  for (fdq::KvType type : fdq_test::kTypes) {
    for (fdq::Isa isa : fdq_test::machine_isas()) {
      for (int64_t head_dim : {1, 7, 16, 20, 64, 127, 128}) fdq_test::check_written(type, head_dim, isa);
      for (float bad : {NAN, INFINITY, -INFINITY}) fdq_test::check_non_finite(type, bad, isa);
    }
    fdq_test::compare_shapes(type);
  }
  return fdq_test::finish("kv_cache");
}
