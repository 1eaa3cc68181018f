// Every instruction set of this machine against a double-precision reference, and bitwise against itself: a
// token's output must not depend on the tokens beside it, on the number of threads or on the fusing of layers.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "cpu/linear_plan.h"
#include "cpu/number_formats.h"
#include "cpu/pack.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

struct Case {
  WeightShape shape;
  ActivationRule rule;
  ComputeType compute;
  bool bias;

  int64_t n() const { return std::accumulate(shape.member_rows.begin(), shape.member_rows.end(), int64_t{0}); }
  bool panels() const { return shape.format >= WeightFormat::kInt8; }
  std::string describe(Isa isa) const {
    std::string rows;
    for (int64_t r : shape.member_rows) rows += std::to_string(r) + " ";
    return std::string(isa_name(isa)) + " " + format_name(shape.format) + " rows " + rows + "k " +
           std::to_string(shape.k) + " group " + std::to_string(shape.group_n) + "x" + std::to_string(shape.group_k) +
           (rule == ActivationRule::kNone ? "" : " e4m3") + (compute == ComputeType::kFloat32 ? "" : " bf16");
  }
};

// A weight with guard pages behind everything, and its exact values.
struct Weight {
  std::unique_ptr<Guarded> data, scales, bias;
  std::vector<double> values;  // [n, k]
  LinearWeight linear;
};

void fill_panels(const Case& c, Random& random, Weight* weight) {
  const WeightShape& s = c.shape;
  const bool nibbles = s.format == WeightFormat::kInt4;
  const int64_t panel_bytes = kPanelRows * padded_k(s.k) / (nibbles ? 2 : 1);
  const int64_t groups = num_groups(s.k, s.group_k);
  int64_t panels = 0, scales = 0;
  for (int64_t rows : s.member_rows) {
    panels += num_panels(rows);
    scales += s.group_n == 1 ? num_panels(rows) * groups * kPanelRows : ceil_div(rows, kTile) * ceil_div(s.k, kTile);
  }
  weight->data = std::make_unique<Guarded>(static_cast<size_t>(panels * panel_bytes));
  weight->scales = std::make_unique<Guarded>(static_cast<size_t>(scales) * 4);
  std::memset(weight->data->bytes(), 0, weight->data->size());
  for (int64_t i = 0; i < scales; ++i) weight->scales->floats()[i] = 1.0f;
  uint8_t* panel_base = weight->data->bytes();
  float* scale_base = weight->scales->floats();
  for (int64_t rows : s.member_rows) {
    for (int64_t i = 0; i < (s.group_n == 1 ? rows * groups : ceil_div(rows, kTile) * groups); ++i) {
      const int64_t at = s.group_n == 1 ? (i / groups / 16 * groups + i % groups) * 16 + i / groups % 16 : i;
      scale_base[at] = std::ldexp(1.0f + 0.37f * static_cast<float>(random.below(100)) / 100, -7);
    }
    for (int64_t row = 0; row < rows; ++row) {
      uint8_t* panel = panel_base + row / kPanelRows * panel_bytes;
      for (int64_t k = 0; k < s.k; ++k) {
        uint8_t code = static_cast<uint8_t>(random.next() >> 20);
        double value;
        const int64_t r = row % kPanelRows;
        if (nibbles) {
          code &= 15;
          panel[(k / 4 * kPanelRows + r) * 2 + k % 2] |= static_cast<uint8_t>(code << (k % 4 / 2 * 4));
          value = nibble_to_int(code);
        } else {
          if (s.format == WeightFormat::kE4M3 && (code & 0x7f) == 0x7f) code ^= 1;
          panel[(k / 2 * kPanelRows + r) * 2 + k % 2] = code;
          value = s.format == WeightFormat::kInt8 ? static_cast<double>(static_cast<int8_t>(code)) : e4m3_to_float(code);
        }
        const int64_t group = s.group_k == 0 ? 0 : k / s.group_k;
        const float scale = s.group_n == 1 ? scale_base[(row / 16 * groups + group) * 16 + r]
                                           : scale_base[row / kTile * groups + group];
        weight->values.push_back(value * static_cast<double>(scale));
      }
    }
    panel_base += num_panels(rows) * panel_bytes;
    scale_base += s.group_n == 1 ? num_panels(rows) * groups * 16 : ceil_div(rows, kTile) * groups;
  }
}

void fill_rows(const Case& c, Random& random, Weight* weight) {
  const int64_t count = c.n() * c.shape.k;
  const int64_t bytes = c.shape.format == WeightFormat::kFloat32 ? 4 : 2;
  weight->data = std::make_unique<Guarded>(static_cast<size_t>(count * bytes));
  for (int64_t i = 0; i < count; ++i) {
    float value = random.normal();
    uint8_t* out = weight->data->bytes() + i * bytes;
    if (c.shape.format == WeightFormat::kFloat32) {
      std::memcpy(out, &value, 4);
    } else {
      uint16_t bits = float_to_bfloat16(value);
      if (c.shape.format == WeightFormat::kFloat16) {
        bits = static_cast<uint16_t>((random.next() >> 30 & 0x8fffu) + 0x3000u * (random.next() >> 33 & 1u));
        value = float16_to_float(bits);
      } else {
        value = bfloat16_to_float(bits);
      }
      std::memcpy(out, &bits, 2);
    }
    weight->values.push_back(value);
  }
}

Weight make_weight(const Case& c, Random& random) {
  Weight weight;
  if (c.panels()) {
    fill_panels(c, random, &weight);
  } else {
    fill_rows(c, random, &weight);
  }
  weight.linear.shape = c.shape;
  weight.linear.data = weight.data->bytes();
  weight.linear.scales = weight.scales ? weight.scales->floats() : nullptr;
  weight.linear.bias = nullptr;
  if (c.bias) {
    weight.bias = std::make_unique<Guarded>(static_cast<size_t>(c.n()) * 4);
    for (int64_t i = 0; i < c.n(); ++i) weight.bias->floats()[i] = random.normal();
    weight.linear.bias = weight.bias->floats();
  }
  return weight;
}

// x as the rule and the compute type change it.
std::vector<double> effective_x(const Case& c, const std::vector<float>& x, int64_t tokens) {
  std::vector<double> values(x.begin(), x.end());
  if (c.rule == ActivationRule::kE4M3Group128) {
    const int64_t groups = ceil_div(c.shape.k, kTile);
    std::vector<uint8_t> codes(x.size());
    std::vector<float> scales(static_cast<size_t>(tokens * groups));
    quantize_activation_e4m3(x.data(), tokens, c.shape.k, codes.data(), scales.data());
    for (int64_t i = 0; i < tokens * c.shape.k; ++i) {
      const float scale = scales[static_cast<size_t>(i / c.shape.k * groups + i % c.shape.k / kTile)];
      values[static_cast<size_t>(i)] = static_cast<double>(e4m3_to_float(codes[static_cast<size_t>(i)])) * scale;
    }
  }
  // In panels the rounded codes are multiplied, before their scale.
  if (c.compute == ComputeType::kBFloat16 && !(c.panels() && c.rule == ActivationRule::kE4M3Group128)) {
    for (double& value : values) value = bfloat16_to_float(float_to_bfloat16(static_cast<float>(value)));
  }
  return values;
}

void check_values(const Case& c, Isa isa, const Weight& weight, const std::vector<double>& x, int64_t tokens,
                  const float* y) {
  const int64_t n = c.n(), k = c.shape.k;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < n; ++r) {
      double sum = c.bias ? static_cast<double>(weight.linear.bias[r]) : 0.0;
      double size = std::fabs(sum);
      for (int64_t i = 0; i < k; ++i) {
        const double product = x[static_cast<size_t>(t * k + i)] * weight.values[static_cast<size_t>(r * k + i)];
        sum += product;
        size += std::fabs(product);
      }
      const double limit = size * 2e-6 + 1e-30;
      const double error = std::fabs(sum - static_cast<double>(y[t * n + r]));
      CHECK(error <= limit, "%s: token %ld of %ld row %ld: %.9g instead of %.9g (limit %.2g)", c.describe(isa).c_str(),
            static_cast<long>(t), static_cast<long>(tokens), static_cast<long>(r), static_cast<double>(y[t * n + r]),
            sum, limit);
    }
  }
}

using Plan = std::unique_ptr<LinearPlan, void (*)(LinearPlan*)>;

Plan make_plan(const Case& c, const Weight& weight, Isa isa) {
  return Plan(make_linear_plan(weight.linear, c.rule, c.compute, isa), free_linear_plan);
}

// Outputs end before a guard page and are poisoned, so each must be written and nothing behind them.
std::vector<float> run(const LinearPlan& plan, const Case& c, const float* x, int64_t tokens, int threads) {
  Guarded y(static_cast<size_t>(tokens * c.n()) * 4);
  std::memset(y.bytes(), 0xff, y.size());
  run_linear(plan, x, tokens, y.floats(), parallel_on(&threads));
  return std::vector<float>(y.floats(), y.floats() + tokens * c.n());
}

void check_case(const Case& c, Isa isa, const std::vector<int64_t>& batches, Random& random) {
  const Weight weight = make_weight(c, random);
  const Plan plan = make_plan(c, weight, isa);
  const int64_t most = *std::max_element(batches.begin(), batches.end());
  const int64_t n = c.n(), k = c.shape.k;
  std::vector<float> x(static_cast<size_t>(most * k));
  for (float& value : x) value = random.normal();
  Guarded guarded_x(x.size() * 4);
  std::vector<float> alone(static_cast<size_t>(most * n));
  for (int64_t t = 0; t < most; ++t) {
    const std::vector<float> y = run(*plan, c, x.data() + t * k, 1, 1);
    std::copy(y.begin(), y.end(), alone.begin() + t * n);
  }
  check_values(c, isa, weight, effective_x(c, x, most), std::min<int64_t>(most, 8), alone.data());
  for (int64_t tokens : batches) {
    const int64_t first = random.below(most - tokens + 1);
    const std::vector<float> y = run(*plan, c, x.data() + first * k, tokens, 1 + static_cast<int>(tokens % 3));
    const size_t bytes = y.size() * sizeof(float);
    CHECK(std::memcmp(y.data(), alone.data() + first * n, bytes) == 0, "%s: %ld tokens differ from one",
          c.describe(isa).c_str(), static_cast<long>(tokens));
  }
}

std::vector<Case> all_formats(std::vector<int64_t> rows, int64_t k, bool bias) {
  std::vector<Case> cases;
  for (ComputeType compute : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (int format = 0; format <= static_cast<int>(WeightFormat::kE4M3); ++format) {
      const auto f = static_cast<WeightFormat>(format);
      const std::vector<int> groups =
          f < WeightFormat::kInt8 ? std::vector<int>{0} : std::vector<int>{0, 32, 64, 96, 128, 256};
      for (int group : groups) cases.push_back({{f, rows, k, 1, group}, ActivationRule::kNone, compute, bias});
    }
    cases.push_back({{WeightFormat::kE4M3, rows, k, 128, 128}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kE4M3, rows, k, 128, 128}, ActivationRule::kNone, compute, bias});
    cases.push_back({{WeightFormat::kE4M3, rows, k, 1, 32}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kInt4, rows, k, 1, 64}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kBFloat16, rows, k, 1, 0}, ActivationRule::kE4M3Group128, compute, bias});
  }
  return cases;
}

void test_shapes() {
  const std::vector<int64_t> sizes = {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 200, 257};
  Random random(1);
  for (Isa isa : isas()) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t k = sizes[i], n = sizes[(i * 7 + 5) % sizes.size()];
      for (const Case& c : all_formats({n}, k, i % 2 == 0)) check_case(c, isa, {1, 2, 3, 5, 8, 9, 13}, random);
    }
    for (const Case& c : all_formats({33, 1, 16, 130}, 384, true)) check_case(c, isa, {1, 4, 17}, random);
    for (const Case& c : all_formats({257, 64}, 1000, false)) check_case(c, isa, {1, 7, 20}, random);
  }
}

void test_every_batch() {
  Random random(2);
  std::vector<int64_t> batches;
  for (int64_t t = 1; t <= 40; ++t) batches.push_back(t);
  for (int64_t t : {64, 100, 239, 240, 241, 300, 512}) batches.push_back(t);
  for (Isa isa : isas()) {
    for (const Case& c : all_formats({80, 37}, 200, true)) check_case(c, isa, batches, random);
  }
}

// As-stored weights lie in a file at any byte.
void test_misaligned_rows() {
  Random random(3);
  for (Isa isa : isas()) {
    for (Case c : all_formats({21}, 77, false)) {
      if (c.panels()) continue;
      Weight weight = make_weight(c, random);
      std::vector<float> x(5 * 77);
      for (float& value : x) value = random.normal();
      const std::vector<float> expected = run(*make_plan(c, weight, isa), c, x.data(), 5, 1);
      for (int64_t shift = 1; shift < 4; ++shift) {
        Guarded moved(weight.data->size() + static_cast<size_t>(shift));
        std::memcpy(moved.bytes(), weight.data->bytes(), weight.data->size());
        weight.linear.data = moved.bytes();
        const std::vector<float> y = run(*make_plan(c, weight, isa), c, x.data(), 5, 1);
        CHECK(std::memcmp(y.data(), expected.data(), y.size() * 4) == 0, "%s moved by %ld", c.describe(isa).c_str(),
              static_cast<long>(shift));
      }
    }
  }
}

// A fused layer gives the bits of its members.
void test_fused_members() {
  Random random(4);
  for (Isa isa : isas()) {
    for (const Case& c : all_formats({40, 24, 16}, 160, false)) {
      if (!c.panels()) continue;
      const Weight weight = make_weight(c, random);
      std::vector<float> x(3 * 160);
      for (float& value : x) value = random.normal();
      const std::vector<float> fused = run(*make_plan(c, weight, isa), c, x.data(), 3, 2);
      Case second = c;
      second.shape.member_rows = {24};
      Weight member;
      member.linear = weight.linear;
      member.linear.shape = second.shape;
      const int64_t panel_bytes = 16 * padded_k(160) / (c.shape.format == WeightFormat::kInt4 ? 2 : 1);
      member.linear.data = weight.data->bytes() + 3 * panel_bytes;
      member.linear.scales += c.shape.group_n == 1 ? 3 * 16 * num_groups(160, c.shape.group_k) : 2;
      const std::vector<float> y = run(*make_plan(second, member, isa), second, x.data(), 3, 1);
      for (int64_t t = 0; t < 3; ++t) {
        CHECK(std::memcmp(y.data() + t * 24, fused.data() + t * 80 + 40, 24 * 4) == 0, "%s", c.describe(isa).c_str());
      }
    }
  }
}

void test_isa_names() {
  for (int i = 0; i <= static_cast<int>(Isa::kAmx); ++i) {
    Isa isa;
    CHECK(parse_isa(isa_name(static_cast<Isa>(i)), &isa) && isa == static_cast<Isa>(i), "isa %d", i);
  }
  Isa isa;
  CHECK(!parse_isa("avx1024", &isa) && !parse_isa("", &isa), "unknown names are refused");
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::test_isa_names();
  fdq::test::test_shapes();
  fdq::test::test_every_batch();
  fdq::test::test_misaligned_rows();
  fdq::test::test_fused_members();
  return fdq_test::finish("linear_test");
}
