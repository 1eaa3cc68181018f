// The e4m3 products, emulated, against double precision: every kernel on ragged shapes.
#include <cmath>
#include <vector>

#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "cuda/fp8_linear.cuh"
#include "cuda_workspace.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

using cuda::Fp8Kernel;
using cuda::Fp8LinearArgs;
using cuda::Kernel;

struct Case {
  Kernel kernel;
  int major, minor;
  int64_t tokens, n, k;
  ActivationRule rule;
  ElementType output;
  bool has_bias;
  int64_t y_padding;  // elements between rows of y
};

uint8_t draw_code(Random& random) {
  const auto code = static_cast<uint8_t>(random.next() >> 40);
  return (code & 0x7f) == 0x7f ? 0x38 : code;  // not a number
}

float draw_scale(Random& random) {
  return std::exp2(static_cast<float>(random.below(9)) - 6) *
         (1 + 0.01f * static_cast<float>(random.below(90)));
}

// Operands in guarded memory, as the kernels take them.
class Problem {
 public:
  Problem(const Case& c, Random& random)
      : case_(c),
        x_stride(round_up(c.k, 16) + 16 * random.below(2)),
        scale_stride(round_up(c.tokens, 4) + 4 * random.below(2)),
        k_groups(ceil_div(c.k, kTile)),
        x(static_cast<size_t>(c.tokens * x_stride)),
        w(static_cast<size_t>(round_up(c.n, kPanelRows) * padded_k(c.k))),
        x_scales(static_cast<size_t>((is_grouped() ? k_groups * scale_stride : c.tokens) * 4)),
        w_scales(static_cast<size_t>(
            (is_grouped() ? ceil_div(c.n, kTile) * k_groups : round_up(c.n, kPanelRows)) * 4)),
        bias(static_cast<size_t>(c.n * 4)) {
    std::memset(x.bytes(), 0, x.size());
    std::memset(w.bytes(), 0, w.size());
    fill(x.bytes(), c.tokens, x_stride, random);
    fill(w.bytes(), c.n, padded_k(c.k), random);
    for (size_t i = 0; i < x_scales.size() / 4; ++i) x_scales.floats()[i] = draw_scale(random);
    for (size_t i = 0; i < w_scales.size() / 4; ++i) w_scales.floats()[i] = draw_scale(random);
    for (int64_t i = 0; i < c.n; ++i) bias.floats()[i] = random.normal() * 100;
  }

  bool is_grouped() const { return case_.rule == ActivationRule::kE4M3Group128; }

  struct Element {
    double value, magnitude;  // the sum, and that of the products' magnitudes
  };
  Element expect(int64_t token, int64_t row) const {
    Element sum{0, 0};
    for (int64_t k = 0; k < case_.k; ++k) {
      double scale = 1;
      if (is_grouped()) {
        scale = static_cast<double>(x_scales.floats()[k / kTile * scale_stride + token]) *
                static_cast<double>(w_scales.floats()[row / kTile * k_groups + k / kTile]);
      }
      const double product = static_cast<double>(e4m3_to_float(x.bytes()[token * x_stride + k])) *
                             static_cast<double>(e4m3_to_float(w.bytes()[row * padded_k(case_.k) + k])) *
                             scale;
      sum.value += product;
      sum.magnitude += std::abs(product);
    }
    if (!is_grouped()) {
      const float x_scale =
          case_.rule == ActivationRule::kE4M3Static ? kStaticScale : x_scales.floats()[token];
      const double scale = static_cast<double>(x_scale) * static_cast<double>(w_scales.floats()[row]);
      sum.value *= scale;
      sum.magnitude *= scale;
    }
    if (case_.has_bias) {
      sum.value += static_cast<double>(bias.floats()[row]);
      sum.magnitude += std::abs(static_cast<double>(bias.floats()[row]));
    }
    return sum;
  }

  static constexpr float kStaticScale = 0.037f;

 private:
  void fill(uint8_t* codes, int64_t rows, int64_t stride, Random& random) const {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < case_.k; ++k) codes[row * stride + k] = draw_code(random);
    }
  }
  const Case case_;

 public:
  const int64_t x_stride, scale_stride, k_groups;
  Guarded x, w, x_scales, w_scales, bias;
};

int64_t element_bytes(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

double read_output(const uint8_t* y, ElementType element, int64_t index) {
  if (element == ElementType::kFloat32) return static_cast<double>(reinterpret_cast<const float*>(y)[index]);
  const uint16_t bits = reinterpret_cast<const uint16_t*>(y)[index];
  return static_cast<double>(element == ElementType::kFloat16 ? float16_to_float(bits)
                                                              : bfloat16_to_float(bits));
}

std::vector<uint8_t> run(const Case& c, const Problem& problem) {
  cuda::Fp8LinearArgs args{};
  args.x = problem.x.bytes();
  args.x_scales = problem.x_scales.floats();
  args.x_scale_stride = problem.scale_stride;
  args.rule = c.rule;
  args.static_scale = Problem::kStaticScale;
  args.tokens = c.tokens;
  args.x_stride = problem.x_stride;
  args.weight = {WeightFormat::kE4M3,
                 c.n,
                 c.k,
                 problem.is_grouped() ? kTile : 1,
                 problem.is_grouped() ? kTile : 0,
                 problem.w.bytes(),
                 problem.w_scales.floats(),
                 nullptr};
  args.bias = c.has_bias ? problem.bias.floats() : nullptr;
  args.y_element = c.output;
  args.y_stride = c.n + c.y_padding;
  args.kernel = c.kernel;
  return run_product(args, &cuda::fp8_linear_workspace, &cuda::fp8_linear, 2);
}

void check_case(const Case& c, uint64_t seed) {
  Random random(seed);
  emu::set_seed(seed);
  emu::device().major = c.major;
  emu::device().minor = c.minor;
  const Problem problem(c, random);
  const std::vector<uint8_t> output = run(c, problem);
  if (output.empty()) return;
  // Products of e4m3 are exact in float32. Sums of a block of 128 take at most 128 roundings of 2^-24 of the
  // magnitudes, those of blocks and the scales a few more; the output is rounded once.
  const double output_error = c.output == ElementType::kFloat32   ? 0x1p-24
                              : c.output == ElementType::kFloat16 ? 0x1p-11
                                                                  : 0x1p-8;
  const double sum_error = (128 + static_cast<double>(ceil_div(c.k, kTile)) + 8) * 0x1p-24;
  const int64_t stride = c.n + c.y_padding;
  for (int64_t token = 0; token < c.tokens; ++token) {
    for (int64_t row = 0; row < stride; ++row) {
      const int64_t index = token * stride + row;
      if (row >= c.n) {
        CHECK(output[static_cast<size_t>(index * element_bytes(c.output))] == kPoison,
              "padding of y was written at token %ld", static_cast<long>(token));
        continue;
      }
      const Problem::Element expected = problem.expect(token, row);
      double value = expected.value;
      if (c.output == ElementType::kFloat16 && std::abs(value) > 65504)
        value = std::copysign(INFINITY, value);
      const double got = read_output(output.data(), c.output, index);
      const bool is_infinite = std::isinf(value) || std::isinf(got);
      const double allowed = expected.magnitude * sum_error + std::abs(expected.value) * output_error;
      CHECK(is_infinite ? std::abs(expected.value) > 65000 : std::abs(got - value) <= allowed,
            "kernel %d on %d.%d, %ld x %ld x %ld, rule %d, output %d: y[%ld, %ld] is %.9g, not %.9g +- %.3g",
            static_cast<int>(c.kernel), c.major, c.minor, static_cast<long>(c.tokens), static_cast<long>(c.n),
            static_cast<long>(c.k), static_cast<int>(c.rule), static_cast<int>(c.output),
            static_cast<long>(token), static_cast<long>(row), got, value, allowed);
    }
  }
}

struct Target {
  Kernel kernel;
  int major, minor;
  int64_t most_tokens;
};
constexpr Target kTargets[] = {{Kernel::kStreaming, 9, 0, 64},
                               {Kernel::kWarpgroup, 9, 0, 300},
                               {Kernel::kStreaming, 8, 9, 32},
                               {Kernel::kMma, 8, 0, 300}};

void test_shapes() {
  constexpr ActivationRule kRules[] = {ActivationRule::kE4M3Group128, ActivationRule::kE4M3Token,
                                       ActivationRule::kE4M3Static};
  constexpr ElementType kOutputs[] = {ElementType::kBFloat16, ElementType::kFloat16, ElementType::kFloat32};
  uint64_t seed = 1;
  for (const Target& target : kTargets) {
    Random random(seed);
    emu::device() = {target.major, target.minor, 3, 227 * 1024};
    for (int i = 0; i < 18; ++i) {
      const int64_t tokens = i == 0 ? 1 : i == 1 ? target.most_tokens : 1 + random.below(target.most_tokens);
      const int64_t n = 1 + random.below(i % 3 == 0 ? 700 : 200);
      const int64_t k = 1 + random.below(i % 4 == 0 ? 1500 : 400);
      check_case({target.kernel, target.major, target.minor, tokens, n, k, kRules[i % 3], kOutputs[i / 3 % 3],
                  random.below(2) == 0, i % 2 == 0 ? (16 - n % 16) % 16 : random.below(9)},
                 seed++);
    }
  }
}

// Every tile of the warpgroup kernel, and two blocks that share what they copy.
void test_tiles() {
  uint64_t seed = 1000;
  for (const int multiprocessors : {1, 4, 40}) {
    for (const int64_t tokens : {65, 128, 200, 256}) {
      const auto tile = cuda::choose_warpgroup_tile(tokens, 256, false, multiprocessors);
      CHECK(tile.tokens == 64 || tile.tokens == 128 || tile.tokens == 256, "a tile of %d tokens",
            tile.tokens);
      Random random(seed);
      const Case c{Kernel::kWarpgroup,     9,     0, tokens, 256, 300, ActivationRule::kE4M3Group128,
                   ElementType::kBFloat16, false, 0};
      emu::device() = {9, 0, multiprocessors, 227 * 1024};
      check_case(c, seed++);
    }
  }
}

// A tile of which a dozen blocks have parts.
void test_parts() {
  uint64_t seed = 2000;
  emu::device() = {9, 0, 40, 227 * 1024};
  for (const int64_t tokens : {3, 33}) {
    check_case({Kernel::kStreaming, 9, 0, tokens, 40, 6000, ActivationRule::kE4M3Group128,
                ElementType::kFloat32, false, 0},
               seed++);
  }
}

// Tiles one after the other in a block, with an even and an odd number of blocks of 128 k; two blocks that
// share W, or x, or nothing; both large tiles.
void test_many_tiles() {
  struct Shape {
    int64_t tokens, n, k;
    ElementType output;
    int tile_tokens;
  };
  constexpr Shape kShapes[] = {{250, 390, 128, ElementType::kFloat32, 128},
                               {120, 390, 380, ElementType::kBFloat16, 128},
                               {500, 390, 250, ElementType::kFloat16, 256},
                               {500, 300, 129, ElementType::kBFloat16, 256}};
  uint64_t seed = 3000;
  emu::device() = {9, 0, 2, 227 * 1024};
  for (const Shape& each : kShapes) {
    const auto tile =
        cuda::choose_warpgroup_tile(each.tokens, each.n, each.output == ElementType::kFloat32, 2);
    CHECK(tile.tokens == each.tile_tokens, "a tile of %d tokens for %ld", tile.tokens,
          static_cast<long>(each.tokens));
    const ActivationRule rule = each.k > 300 ? ActivationRule::kE4M3Token : ActivationRule::kE4M3Group128;
    check_case({Kernel::kWarpgroup, 9, 0, each.tokens, each.n, each.k, rule, each.output, each.k > 128, 0},
               seed++);
  }
}

// A token's result is the same bits, whatever is beside it.
void test_batch_invariance() {
  for (const Target& target : {kTargets[0], kTargets[2]}) {
    const Case all{target.kernel,
                   target.major,
                   target.minor,
                   target.most_tokens,
                   150,
                   1100,
                   ActivationRule::kE4M3Group128,
                   ElementType::kFloat32,
                   true,
                   0};
    Random random(77);
    emu::device() = {target.major, target.minor, 5, 227 * 1024};
    const Problem problem(all, random);
    const std::vector<uint8_t> whole = run(all, problem);
    for (const int64_t tokens : {1, 9, 20}) {
      Case some = all;
      some.tokens = tokens;
      const std::vector<uint8_t> part = run(some, problem);
      CHECK(!part.empty() && part.size() <= whole.size() &&
                std::memcmp(part.data(), whole.data(), part.size()) == 0,
            "the first %ld tokens differ from the same among %ld", static_cast<long>(tokens),
            static_cast<long>(all.tokens));
    }
  }
}
}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_shapes();
  test_tiles();
  test_parts();
  test_many_tiles();
  test_batch_invariance();
  return fdq_test::finish("cuda_fp8_linear_test");
}
