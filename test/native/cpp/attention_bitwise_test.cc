// A query's output depends, to the bit, on nothing but itself and what it sees: not on how the prefill was
// cut, on the other sequences of a step, on threads, on stale or foreign contents of the pool.
#include "attention_case.h"
#include "check.h"

namespace fdq_test {
namespace {

using fdq::KvType;

using Outputs = std::vector<std::vector<float>>;

Outputs collect(AttentionCase& problem) {
  Outputs outputs;
  for (const Sequence& s : problem.sequences()) outputs.push_back(s.output);
  return outputs;
}

bool same(const Outputs& a, const Outputs& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  }
  return true;
}

// Every sequence on its own, in chunks of `chunk` tokens.
void run_alone(AttentionCase& problem, int64_t chunk, fdq::Isa isa, int threads) {
  for (size_t i = 0; i < problem.sequences().size(); ++i) {
    const Sequence& s = problem.sequences()[i];
    while (s.done < s.length)
      problem.step({{static_cast<int>(i), std::min(chunk, s.length - s.done)}}, isa, threads);
  }
}

// Random chunks of a random subset of the sequences in each step, in random order.
void run_mixed(AttentionCase& problem, uint32_t seed, fdq::Isa isa, int threads) {
  std::mt19937 random(seed);
  for (;;) {
    std::vector<StepItem> items;
    bool left = false;
    for (size_t i = 0; i < problem.sequences().size(); ++i) {
      const Sequence& s = problem.sequences()[i];
      left = left || s.done < s.length;
      if (s.done == s.length || random() % 4 == 0) continue;
      const int64_t most = random() % 2 == 0 ? 1 : 90;
      items.push_back({static_cast<int>(i), std::min<int64_t>(s.length - s.done, 1 + random() % most)});
    }
    if (!left) return;
    std::shuffle(items.begin(), items.end(), random);
    if (!items.empty()) problem.step(items, isa, threads);
  }
}

void check_shape(const AttentionShape& shape, fdq::Isa isa) {
  AttentionCase problem(shape, {1, 130, 270, 17, 64}, 11);
  run_alone(problem, 1000, isa, 1);
  const Outputs whole = collect(problem);
  const char* name = fdq::isa_name(isa);
  for (const std::vector<float>& output : whole) {
    CHECK(std::all_of(output.begin(), output.end(), [](float v) { return std::isfinite(v); }), "%s", name);
  }
  const auto expect_same = [&](const char* what, int detail) {
    CHECK(same(whole, collect(problem)), "%s %s %d: heads %d/%d dim %d window %d type %d compute %d", name,
          what, detail, static_cast<int>(shape.num_heads), static_cast<int>(shape.num_kv_heads),
          static_cast<int>(shape.head_dim), static_cast<int>(shape.window), static_cast<int>(shape.type),
          static_cast<int>(shape.compute));
  };
  for (int64_t chunk : {1, 3, 16, 127, 128, 129}) {
    problem.clear();
    run_alone(problem, chunk, isa, 2);
    expect_same("chunk", static_cast<int>(chunk));
  }
  for (int threads : {1, 3}) {
    problem.clear();
    run_mixed(problem, static_cast<uint32_t>(threads), isa, threads);
    expect_same("mixed, threads", threads);
  }
  problem.clear();
  std::vector<StepItem> everything;
  for (size_t i = 0; i < problem.sequences().size(); ++i) {
    everything.push_back({static_cast<int>(i), problem.sequences()[i].length});
  }
  problem.step(everything, isa, 3);
  expect_same("all at once", 0);
}

// A token whose key and value are infinite or NaN spoils only the queries that see it.
void check_later_tokens(const AttentionShape& shape, fdq::Isa isa) {
  constexpr int64_t kLength = 200, kBad = 140;
  AttentionCase clean(shape, {kLength}, 5), spoiled(shape, {kLength}, 5);
  const int64_t width = spoiled.width();
  for (int64_t i = 0; i < width; ++i) {
    spoiled.sequences()[0].qkv[static_cast<size_t>(kBad * width + i)] = i % 2 == 0 ? INFINITY : NAN;
  }
  clean.step({{0, kLength}}, isa, 2);
  spoiled.step({{0, kLength}}, isa, 2);
  const float* a = clean.sequences()[0].output.data();
  const float* b = spoiled.sequences()[0].output.data();
  const size_t row = static_cast<size_t>(clean.out_width());
  CHECK(std::memcmp(a, b, kBad * row * sizeof(float)) == 0, "%s: earlier queries changed",
        fdq::isa_name(isa));
  CHECK(std::isnan(b[kBad * row]), "%s: the bad token's own output is %g", fdq::isa_name(isa),
        static_cast<double>(b[kBad * row]));
  const int64_t past = shape.window > 0 ? kBad + shape.window : kLength;
  CHECK(std::memcmp(a + past * row, b + past * row,
                    static_cast<size_t>(kLength - past) * row * sizeof(float)) == 0,
        "%s: queries past the window changed", fdq::isa_name(isa));
}

void check_float(fdq::Isa isa) {
  // The reference is slow and has no tiles to get wrong; two shapes do.
  for (int64_t window : {0, 20, 1, 150}) {
    if (isa == fdq::Isa::kScalar && window != 0) continue;
    check_shape({2, 1, 64, window, 64, false, true, KvType::kFloat32}, isa);
    check_shape({6, 2, 20, window, 8, true, true, KvType::kBFloat16}, isa);
  }
  check_later_tokens({4, 2, 32, 0, 0, false, false, KvType::kFloat32}, isa);
  check_later_tokens({3, 1, 16, 30, 0, false, false, KvType::kBFloat16}, isa);
  if (isa == fdq::Isa::kScalar) return;
  check_shape({8, 1, 7, 0, 6, false, false, KvType::kBFloat16}, isa);
  check_shape({10, 2, 32, 33, 32, false, false, KvType::kBFloat16}, isa);
  check_shape({2, 2, 128, 0, 128, false, true, KvType::kBFloat16}, isa);
}

// Odd windows and odd heads, whose pairs are cut; groups of 1, 3 and 8 rows a token.
void check_bfloat16(fdq::Isa isa) {
  constexpr auto kType = KvType::kBFloat16;
  constexpr auto kCompute = fdq::ComputeType::kBFloat16;
  for (int64_t window : {0, 20, 1, 33, 150}) {
    check_shape({6, 2, 20, window, 8, true, true, kType, kCompute}, isa);
    check_shape({2, 2, 64, window, 64, false, true, kType, kCompute}, isa);
  }
  check_shape({8, 1, 7, 0, 6, false, false, kType, kCompute}, isa);
  check_shape({2, 2, 128, 0, 128, false, true, kType, kCompute}, isa);
  check_later_tokens({4, 2, 32, 0, 0, false, false, kType, kCompute}, isa);
  check_later_tokens({3, 1, 16, 30, 0, false, false, kType, kCompute}, isa);
  check_later_tokens({3, 1, 16, 31, 0, false, false, kType, kCompute}, isa);
}

// Quantized pools: groups of 3, 8 and 1 rows a token, odd heads and windows, with both products.
void check_quantized(fdq::Isa isa) {
  for (KvType type : {KvType::kInt8, KvType::kFp8, KvType::kInt4}) {
    const auto compute =
        isa >= fdq::Isa::kAvx512Bf16 ? fdq::ComputeType::kBFloat16 : fdq::ComputeType::kFloat32;
    check_shape({6, 2, 20, 33, 8, true, true, type, compute}, isa);
    check_later_tokens({4, 2, 32, 0, 0, false, false, type, compute}, isa);
    check_later_tokens({3, 1, 17, 31, 0, false, false, type, compute}, isa);
    if (isa == fdq::Isa::kScalar) continue;
    check_shape({8, 1, 7, 0, 6, false, false, type, compute}, isa);
    check_shape({2, 2, 128, 150, 128, false, true, type, compute}, isa);
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  for (fdq::Isa isa : fdq_test::machine_isas()) {
    if (isa <= fdq::Isa::kAvx512) fdq_test::check_float(isa);  // later sets share AVX-512's code
    if (isa == fdq::Isa::kAvx512Bf16) fdq_test::check_bfloat16(isa);
    if (isa <= fdq::Isa::kAvx512Bf16) fdq_test::check_quantized(isa);
  }
  return fdq_test::finish("attention_bitwise");
}
