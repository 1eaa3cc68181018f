// The int8 and int4 products, emulated, against double precision: every kernel on ragged shapes, with weights
// that went through the repack kernel.
#include <cmath>
#include <vector>

#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "cuda/layout.h"
#include "cuda/weight_only.cuh"
#include "cuda_workspace.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

using cuda::Kernel;
using cuda::WeightOnlyArgs;
using cuda::WeightOnlyKernel;

struct Case {
  Kernel kernel;
  int major;
  WeightFormat format;
  int group_k;
  bool has_zero_points;
  ElementType input, output;
  int64_t tokens, n, k;
  int64_t x_padding, y_padding;  // elements between rows
  bool has_bias;
};

uint16_t encode(float value, ElementType element) {
  return element == ElementType::kFloat16 ? emu::float_to_float16(value) : float_to_bfloat16(value);
}
double decode(uint16_t bits, ElementType element) {
  return static_cast<double>(element == ElementType::kFloat16 ? float16_to_float(bits)
                                                              : bfloat16_to_float(bits));
}

// Operands in guarded memory. What no kernel may use is poison: x's padding, scales past the last group.
class Problem {
 public:
  Problem(const Case& c, Random& random)
      : case_(c),
        groups(num_groups(c.k, c.group_k)),
        x(static_cast<size_t>(
            round_up(((c.tokens - 1) * x_stride() + c.k) * 2, c.kernel == Kernel::kMma ? 2 : 16))),
        codes(static_cast<size_t>(num_panels(c.n) * panel_bytes(c.format, c.k))),
        scales(static_cast<size_t>(num_panels(c.n) * groups * kPanelRows * 4)),
        zero_points(static_cast<size_t>(num_panels(c.n) * groups * kPanelRows)),
        bias(static_cast<size_t>(c.n * 4)),
        values_(static_cast<size_t>(c.n * c.k)) {
    std::memset(x.bytes(), 0xff, x.size());
    for (int64_t token = 0; token < c.tokens; ++token) {
      for (int64_t k = 0; k < c.k; ++k) x_at(token, k) = encode(random.normal(), c.input);
    }
    for (size_t i = 0; i < scales.size() / 4; ++i) {
      scales.floats()[i] = 0.001f * static_cast<float>(1 + random.below(100));
    }
    for (size_t i = 0; i < zero_points.size(); ++i) {
      zero_points.bytes()[i] = static_cast<uint8_t>(random.below(17) - 8);
    }
    for (int64_t i = 0; i < c.n; ++i) bias.floats()[i] = random.normal();
    Guarded panels(codes.size());
    std::memset(panels.bytes(), 0, panels.size());
    for (int64_t row = 0; row < c.n; ++row) {
      for (int64_t k = 0; k < c.k; ++k) set_code(panels.bytes(), row, k, random);
    }
    const cuda::Error error =
        cuda::repack_weight({c.format, c.n, c.k, false, panels.bytes(), codes.bytes()}, nullptr);
    CHECK(error == nullptr, "%s", error);
  }

  int64_t x_stride() const { return case_.k + case_.x_padding; }
  bool is_zeroed() const { return case_.has_zero_points; }

  struct Element {
    double value, magnitude;  // the sum, and that of the products' magnitudes
  };
  Element expect(int64_t token, int64_t row) const {
    Element sum{0, 0};
    for (int64_t k = 0; k < case_.k; ++k) {
      const int64_t group = case_.group_k == 0 ? 0 : k / case_.group_k;
      const int64_t at = (row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows;
      const int zero = is_zeroed() ? static_cast<int8_t>(zero_points.bytes()[at]) : 0;
      const double product = decode(x_at(token, k), case_.input) *
                             (values_[static_cast<size_t>(row * case_.k + k)] - zero) *
                             static_cast<double>(scales.floats()[at]);
      sum.value += product;
      sum.magnitude += std::abs(product);
    }
    if (case_.has_bias) {
      sum.value += static_cast<double>(bias.floats()[row]);
      sum.magnitude += std::abs(static_cast<double>(bias.floats()[row]));
    }
    return sum;
  }

 private:
  uint16_t& x_at(int64_t token, int64_t k) const {
    return reinterpret_cast<uint16_t*>(x.bytes())[token * x_stride() + k];
  }
  void set_code(uint8_t* panels, int64_t row, int64_t k, Random& random) {
    const bool is_int4 = case_.format == WeightFormat::kInt4;
    const auto code = static_cast<int>(random.below(is_int4 ? 16 : 256));
    const cuda::Place place = cuda::place_of(cuda::Layout::kPanels, case_.format, padded_k(case_.k),
                                             {static_cast<int>(row % 16), k});
    panels[row / 16 * panel_bytes(case_.format, case_.k) + place.byte] |=
        static_cast<uint8_t>(code << place.shift);
    values_[static_cast<size_t>(row * case_.k + k)] =
        is_int4 ? static_cast<int8_t>(code < 8 ? code : code - 16) : static_cast<int8_t>(code);
  }
  const Case case_;

 public:
  const int64_t groups;
  Guarded x, codes, scales, zero_points, bias;

 private:
  std::vector<int8_t> values_;
};

int64_t element_bytes(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

std::vector<uint8_t> run(const Case& c, const Problem& problem) {
  WeightOnlyArgs args{};
  args.x = problem.x.bytes();
  args.x_element = c.input;
  args.tokens = c.tokens;
  args.x_stride = problem.x_stride();
  args.weight = {c.format,
                 c.n,
                 c.k,
                 1,
                 c.group_k,
                 problem.codes.bytes(),
                 problem.scales.floats(),
                 c.has_zero_points ? reinterpret_cast<const int8_t*>(problem.zero_points.bytes()) : nullptr};
  args.bias = c.has_bias ? problem.bias.floats() : nullptr;
  args.y_element = c.output;
  args.y_stride = c.n + c.y_padding;
  args.kernel = c.kernel;
  const int repeats = c.n * c.k < 100000 ? 2 : 1;
  return run_product(args, &cuda::weight_only_workspace, &cuda::weight_only_linear, repeats);
}

void check_case(const Case& c, uint64_t seed) {
  Random random(seed);
  emu::set_seed(seed);
  emu::device().major = c.major;
  const Problem problem(c, random);
  const std::vector<uint8_t> output = run(c, problem);
  if (output.empty()) return;
  // Codes less zero points are exact, products of them with x too. The emulated products round once in 16 k,
  // a tensor core at most 16 times; groups and parts add a few roundings; the output is rounded once.
  const double output_error = c.output == ElementType::kFloat32   ? 0x1p-24
                              : c.output == ElementType::kFloat16 ? 0x1p-11
                                                                  : 0x1p-8;
  const double sum_error = (static_cast<double>(ceil_div(c.k, 16) + 2 * problem.groups) + 32) * 0x1p-24;
  const int64_t stride = c.n + c.y_padding;
  for (int64_t token = 0; token < c.tokens; ++token) {
    for (int64_t row = 0; row < stride; ++row) {
      const uint8_t* at = &output[static_cast<size_t>((token * stride + row) * element_bytes(c.output))];
      if (row >= c.n) {
        CHECK(*at == kPoison, "padding of y was written at token %ld", static_cast<long>(token));
        continue;
      }
      const Problem::Element expected = problem.expect(token, row);
      const double got = c.output == ElementType::kFloat32
                             ? static_cast<double>(*reinterpret_cast<const float*>(at))
                             : decode(*reinterpret_cast<const uint16_t*>(at), c.output);
      const double allowed =
          expected.magnitude * sum_error + std::abs(expected.value) * output_error + 0x1p-24;
      CHECK(std::abs(got - expected.value) <= allowed,
            "kernel %d on %d, format %d:g%d zero %d, x %d, y %d, %ld x %ld x %ld: y[%ld, %ld] is %.9g, not"
            " %.9g +- %.3g",
            static_cast<int>(c.kernel), c.major, static_cast<int>(c.format), c.group_k, c.has_zero_points,
            static_cast<int>(c.input), static_cast<int>(c.output), static_cast<long>(c.tokens),
            static_cast<long>(c.n), static_cast<long>(c.k), static_cast<long>(token), static_cast<long>(row),
            got, expected.value, allowed);
    }
  }
}

struct Target {
  Kernel kernel;
  int major;
  int64_t most_tokens;
  int cases;
};
constexpr Target kTargets[] = {{Kernel::kStreaming, 9, 16, 14}, {Kernel::kStreaming, 9, 64, 8},
                               {Kernel::kStreaming, 9, 200, 6}, {Kernel::kWarpgroup, 9, 300, 12},
                               {Kernel::kMma, 8, 16, 14},       {Kernel::kMma, 8, 150, 12}};

// Shapes in which every combination of format, group and type comes up.
void test_shapes() {
  constexpr int kGroups[] = {0, 32, 64, 128, 192};
  constexpr int kOddGroups[] = {96, 160, 224};
  constexpr ElementType kOutputs[] = {ElementType::kBFloat16, ElementType::kFloat16, ElementType::kFloat32};
  uint64_t seed = 1;
  for (const Target& target : kTargets) {
    Random random(seed);
    emu::device() = {target.major, 0, 3, 227 * 1024};
    for (int i = 0; i < target.cases; ++i) {
      Case c{};
      c.kernel = target.kernel;
      c.major = target.major;
      c.format = i % 2 == 0 ? WeightFormat::kInt4 : WeightFormat::kInt8;
      c.group_k = target.kernel == Kernel::kMma && i % 3 == 2 ? kOddGroups[i / 3 % 3] : kGroups[i % 5];
      c.has_zero_points = i % 4 == 0;
      c.input = i % 3 == 0 ? ElementType::kFloat16 : ElementType::kBFloat16;
      c.output = kOutputs[i / 2 % 3];
      c.tokens = i == 0 ? target.most_tokens : 1 + random.below(target.most_tokens);
      c.n = 1 + random.below(i % 3 == 0 ? 500 : 150);
      c.k = 1 + random.below(i % 4 == 1 || i % 5 == 0 ? 1400 : 500);
      c.x_padding = target.kernel == Kernel::kMma && i % 2 == 0 ? random.below(3) : (8 - c.k % 8) % 8;
      c.y_padding = i % 4 < 2 ? (8 - c.n % 8) % 8 : random.below(9);
      c.has_bias = random.below(2) == 0;
      check_case(c, seed++);
    }
  }
}

Case example(const Target& target, int64_t tokens, int64_t n = 150) {
  Case c{};
  c.kernel = target.kernel;
  c.major = target.major;
  c.format = WeightFormat::kInt4;
  c.group_k = 128;
  c.input = ElementType::kBFloat16;
  c.output = ElementType::kFloat32;
  c.tokens = tokens;
  c.n = n;
  c.k = 1096;
  c.has_bias = true;
  return c;
}

// A token's result is the same bits, whatever is beside it.
void test_batch_invariance() {
  struct Batch {
    Target target;
    int64_t all;
    std::vector<int64_t> some;
    int64_t n = 150;
  };
  for (const Batch& batch : {Batch{kTargets[1], 64, {1, 9, 20}}, Batch{kTargets[1], 40, {16, 32}, 300},
                             Batch{kTargets[5], 64, {1, 9, 20}}, Batch{kTargets[2], 200, {65, 140}},
                             Batch{kTargets[3], 200, {65, 140}}}) {
    emu::device() = {batch.target.major, 0, 5, 227 * 1024};
    Random random(77);
    const Case all = example(batch.target, batch.all, batch.n);
    const Problem problem(all, random);
    const std::vector<uint8_t> whole = run(all, problem);
    for (const int64_t tokens : batch.some) {
      const std::vector<uint8_t> part = run(example(batch.target, tokens, batch.n), problem);
      CHECK(!part.empty() && part.size() <= whole.size() &&
                std::memcmp(part.data(), whole.data(), part.size()) == 0,
            "the first %ld tokens differ from the same among %ld", static_cast<long>(tokens),
            static_cast<long>(batch.all));
    }
  }
}

// An even number of tiles of rows: two blocks bring x to each other.
void test_clusters() {
  uint64_t seed = 500;
  struct Sizes {
    Target target;
    int64_t tokens, n, k;
  };
  for (const int multiprocessors : {2, 5}) {
    for (const Sizes& sizes : {Sizes{kTargets[3], 140, 500, 520}, Sizes{kTargets[0], 16, 400, 700},
                               Sizes{kTargets[1], 24, 500, 1300}, Sizes{kTargets[1], 64, 300, 700},
                               Sizes{kTargets[2], 140, 500, 520}}) {
      emu::device() = {9, 0, multiprocessors, 227 * 1024};
      Case c = example(sizes.target, sizes.tokens, sizes.n);
      c.format = seed % 2 == 0 ? WeightFormat::kInt4 : WeightFormat::kInt8;
      c.k = sizes.k;
      c.x_padding = (8 - c.k % 8) % 8;
      c.output = ElementType::kBFloat16;
      c.y_padding = 4;
      check_case(c, seed++);
    }
  }
}
}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_shapes();
  test_clusters();
  test_batch_invariance();
  return fdq_test::finish("cuda_weight_only_test");
}
