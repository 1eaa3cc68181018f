// Weights of every format with guard pages behind them, and the checks that each kernel must pass: values
// near a double-precision reference, and bits that do not depend on the batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "cpu/linear_plan.h"
#include "cpu/number_formats.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

struct Case {
  WeightShape shape;
  ActivationRule rule;
  ComputeType compute;
  bool bias;
  bool zero_points = false;
  float x_scale = 0.03f;  // of the static rules: some values saturate

  int64_t n() const {
    return std::accumulate(shape.member_rows.begin(), shape.member_rows.end(), int64_t{0});
  }
  bool panels() const { return shape.format >= WeightFormat::kInt8; }
  bool rounds_to_int8() const {
    return rule == ActivationRule::kInt8Token || rule == ActivationRule::kInt8Static;
  }
  std::string describe(Isa isa) const {
    static const char* const kRules[] = {"", " e4m3 group", " e4m3", " int8", " e4m3 static", " int8 static"};
    std::string rows;
    for (int64_t r : shape.member_rows) rows += std::to_string(r) + " ";
    return std::string(isa_name(isa)) + " " + format_name(shape.format) + (zero_points ? " zeros" : "") +
           " rows " + rows + "k " + std::to_string(shape.k) + " group " + std::to_string(shape.group_n) +
           "x" + std::to_string(shape.group_k) + " block " + std::to_string(shape.block_k) +
           kRules[static_cast<int>(rule)] + (compute == ComputeType::kFloat32 ? "" : " bf16");
  }
};

// A weight with guard pages behind everything, and its exact values.
struct Weight {
  std::unique_ptr<Guarded> data, scales, bias, blocks, zeros;
  std::vector<double> values;  // [n, k]
  LinearWeight linear;
};

// The value of a random code that is a number.
double random_code(const Case& c, Random& random, uint8_t* code) {
  *code = static_cast<uint8_t>(random.next() >> 20);
  switch (c.shape.format) {
    case WeightFormat::kInt8:
      return static_cast<double>(static_cast<int8_t>(*code));
    case WeightFormat::kInt4:
      return nibble_to_int(*code &= 15);
    case WeightFormat::kInt2:
      return int2_to_float(*code &= 3);
    case WeightFormat::kNF4: {
      const float value = kNF4Values[*code &= 15];
      return c.compute == ComputeType::kFloat32 ? value : bfloat16_to_float(float_to_bfloat16(value));
    }
    case WeightFormat::kE2M1:
      return e2m1_to_float(*code &= 15);
    default:
      if ((*code & 0x7f) == 0x7f) *code ^= 1;
      return e4m3_to_float(*code);
  }
}

// A narrow scale with as many significant bits as the formats allow: near 1, and some that are 0, subnormal
// or far away. Returns its value.
double random_block_scale(BlockScaleType type, Random& random, uint8_t* out) {
  const uint64_t bits = random.next() >> 20;
  const bool is_special = random.below(8) == 0;
  if (type == BlockScaleType::kE4M3) *out = static_cast<uint8_t>(is_special ? bits % 8 : 0x20 + bits % 0x20);
  if (type == BlockScaleType::kE8M0) *out = static_cast<uint8_t>(is_special ? bits % 4 : 122 + bits % 8);
  if (type == BlockScaleType::kBFloat16) {
    out[0] = static_cast<uint8_t>(is_special ? 0 : bits & 0xfc);
    out[1] = is_special ? 0 : 0x3f;
  }
  return block_scale_to_float(type, out);
}

// Fills one member and adds its values.
struct MemberFiller {
  const Case& c;
  Random& random;
  uint8_t* codes;
  float* scales;
  uint8_t* blocks;
  int8_t* zeros;

  int64_t lane(int64_t row, int64_t column, int64_t columns) const {
    return (row / kPanelRows * columns + column) * kPanelRows + row % kPanelRows;
  }
  float* scale_at(int64_t row, int64_t k) const {
    const WeightShape& s = c.shape;
    const int64_t groups = num_groups(s.k, s.group_k), group = s.group_k == 0 ? 0 : k / s.group_k;
    if (s.group_n == 1) return scales + lane(row, group, groups);
    return s.group_n == 0 ? scales : scales + row / kTile * groups + group;
  }
  void fill(int64_t rows, std::vector<double>* values) const {
    const WeightShape& s = c.shape;
    const int per = codes_per_byte(s.format), bits = 8 / per;
    const int64_t groups = num_groups(s.k, s.group_k), row_blocks = num_blocks(s.k, s.block_k);
    for (int64_t row = 0; row < rows; ++row) {
      double block = 1.0, zero = 0.0, scale = 1.0;
      uint8_t* panel = codes + row / kPanelRows * panel_bytes(s.format, s.k);
      for (int64_t k = 0; k < s.k; ++k) {
        if (s.group_n >= 0 && k % 32 == 0) {
          float* at = scale_at(row, k);
          if (*at == 1.0f) *at = std::ldexp(1.0f + 0.37f * static_cast<float>(random.below(100)) / 100, -7);
          scale = static_cast<double>(*at);
        }
        if (c.zero_points && (s.group_k == 0 ? k == 0 : k % s.group_k == 0)) {
          int8_t* at = zeros + lane(row, s.group_k == 0 ? 0 : k / s.group_k, groups);
          zero = *at = static_cast<int8_t>(random.below(17) - 8);
        }
        if (s.block_k != 0 && k % s.block_k == 0) {
          const int64_t at = lane(row, k / s.block_k, row_blocks) * block_scale_bytes(s.block_type);
          block = random_block_scale(s.block_type, random, blocks + at);
        }
        uint8_t code;
        const double value = random_code(c, random, &code);
        panel[(k / (2 * per) * kPanelRows + row % kPanelRows) * 2 + k % 2] |=
            static_cast<uint8_t>(code << (k / 2 % per * bits));
        values->push_back((value - zero) * block * scale);
      }
    }
  }
};

void fill_panels(const Case& c, Random& random, Weight* weight) {
  const WeightShape& s = c.shape;
  const int64_t groups = num_groups(s.k, s.group_k);
  const int64_t block_bytes = num_blocks(s.k, s.block_k) * kPanelRows * block_scale_bytes(s.block_type);
  const auto num_scales = [&](int64_t rows) -> int64_t {
    if (s.group_n < 1) return s.group_n + 1;
    return s.group_n == 1 ? num_panels(rows) * groups * kPanelRows : ceil_div(rows, kTile) * groups;
  };
  int64_t panels = 0, scales = 0;
  for (int64_t rows : s.member_rows) {
    panels += num_panels(rows);
    scales += num_scales(rows);
  }
  weight->data = std::make_unique<Guarded>(static_cast<size_t>(panels * panel_bytes(s.format, s.k)));
  weight->scales = std::make_unique<Guarded>(static_cast<size_t>(scales) * 4);
  weight->blocks = std::make_unique<Guarded>(static_cast<size_t>(panels * block_bytes));
  weight->zeros = std::make_unique<Guarded>(static_cast<size_t>(c.zero_points ? scales : 0));
  std::memset(weight->data->bytes(), 0, weight->data->size());
  std::memset(weight->blocks->bytes(), 0, weight->blocks->size());
  std::memset(weight->zeros->bytes(), 0, weight->zeros->size());
  std::fill_n(weight->scales->floats(), scales, 1.0f);
  MemberFiller member{c,
                      random,
                      weight->data->bytes(),
                      weight->scales->floats(),
                      weight->blocks->bytes(),
                      reinterpret_cast<int8_t*>(weight->zeros->bytes())};
  for (int64_t rows : s.member_rows) {
    member.fill(rows, &weight->values);
    member.codes += num_panels(rows) * panel_bytes(s.format, s.k);
    member.scales += num_scales(rows);
    member.zeros += c.zero_points ? num_scales(rows) : 0;
    member.blocks += num_panels(rows) * block_bytes;
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
  weight.linear.block_scales = c.shape.block_k != 0 ? weight.blocks->bytes() : nullptr;
  weight.linear.zero_points = c.zero_points ? reinterpret_cast<int8_t*>(weight.zeros->bytes()) : nullptr;
  weight.linear.bias = nullptr;
  if (c.bias) {
    weight.bias = std::make_unique<Guarded>(static_cast<size_t>(c.n()) * 4);
    for (int64_t i = 0; i < c.n(); ++i) weight.bias->floats()[i] = random.normal();
    weight.linear.bias = weight.bias->floats();
  }
  return weight;
}

// What `count` values of a token become under the rule, in place.
void round_values(const Case& c, double* values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  float scale = static_cast<float>(largest) / (c.rounds_to_int8() ? 127.0f : 448.0f);
  if (scale == 0.0f) scale = 1.0f;
  if (is_static(c.rule)) scale = c.x_scale;
  for (int64_t i = 0; i < count; ++i) {
    const float quotient = static_cast<float>(values[i]) / scale;
    const float code = c.rounds_to_int8() ? std::clamp(std::nearbyint(quotient), -127.0f, 127.0f)
                                          : e4m3_to_float(float_to_e4m3(quotient));
    values[i] = static_cast<double>(code) * static_cast<double>(scale);
  }
}

// x as the rule and the compute type change it.
std::vector<double> effective_x(const Case& c, const std::vector<float>& x, int64_t tokens) {
  std::vector<double> values(x.begin(), x.end());
  const int64_t k = c.shape.k;
  const int64_t group = c.rule == ActivationRule::kE4M3Group128 ? kTile : k;
  for (int64_t i = 0; i < tokens && c.rule != ActivationRule::kNone; ++i) {
    for (int64_t start = 0; start < k; start += group) {
      round_values(c, values.data() + i * k + start, std::min(group, k - start));
    }
  }
  // In panels the rounded codes are multiplied, before their scale.
  if (c.compute == ComputeType::kBFloat16 && !(c.panels() && c.rule != ActivationRule::kNone)) {
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
        const double product =
            x[static_cast<size_t>(t * k + i)] * weight.values[static_cast<size_t>(r * k + i)];
        sum += product;
        size += std::fabs(product);
      }
      const double limit = size * 2e-6 + 1e-30;
      const double error = std::fabs(sum - static_cast<double>(y[t * n + r]));
      CHECK(error <= limit, "%s: token %ld of %ld row %ld: %.9g instead of %.9g (limit %.2g)",
            c.describe(isa).c_str(), static_cast<long>(t), static_cast<long>(tokens), static_cast<long>(r),
            static_cast<double>(y[t * n + r]), sum, limit);
    }
  }
}

using Plan = std::unique_ptr<LinearPlan, void (*)(LinearPlan*)>;

Plan make_plan(const Case& c, const Weight& weight, Isa isa) {
  return Plan(make_linear_plan(weight.linear, {c.rule, c.x_scale}, c.compute, isa), free_linear_plan);
}

// Outputs end before a guard page and are poisoned, so each must be written and nothing behind them.
std::vector<float> run(const LinearPlan& plan, const Case& c, const float* x, int64_t tokens, int threads) {
  Guarded y(static_cast<size_t>(tokens * c.n()) * 4);
  std::memset(y.bytes(), 0xff, y.size());
  run_linear(plan, x, tokens, y.floats(), parallel_on(&threads));
  return std::vector<float>(y.floats(), y.floats() + tokens * c.n());
}

// `make` gives the plan for a weight. `isa` names it in messages.
template <typename MakePlan>
void check_plan(const Case& c, Isa isa, const std::vector<int64_t>& batches, Random& random,
                const MakePlan& make) {
  const Weight weight = make_weight(c, random);
  const Plan plan = make(weight);
  const int64_t most = *std::max_element(batches.begin(), batches.end());
  const int64_t n = c.n(), k = c.shape.k;
  std::vector<float> x(static_cast<size_t>(most * k));
  for (float& value : x) value = random.normal();
  std::vector<float> alone(static_cast<size_t>(most * n));
  for (int64_t t = 0; t < most; ++t) {
    const std::vector<float> y = run(*plan, c, x.data() + t * k, 1, 1);
    std::copy(y.begin(), y.end(), alone.begin() + t * n);
  }
  check_values(c, isa, weight, effective_x(c, x, most), std::min<int64_t>(most, 8), alone.data());
  for (int64_t tokens : batches) {
    const int64_t first = random.below(most - tokens + 1);
    const std::vector<float> y =
        run(*plan, c, x.data() + first * k, tokens, 1 + static_cast<int>(tokens % 3));
    const size_t bytes = y.size() * sizeof(float);
    CHECK(std::memcmp(y.data(), alone.data() + first * n, bytes) == 0, "%s: %ld tokens differ from one",
          c.describe(isa).c_str(), static_cast<long>(tokens));
  }
}

inline void check_case(const Case& c, Isa isa, const std::vector<int64_t>& batches, Random& random) {
  check_plan(c, isa, batches, random, [&](const Weight& weight) { return make_plan(c, weight, isa); });
}

// The formats whose codes have narrow scales or zero points.
std::vector<Case> scaled_formats(const std::vector<int64_t>& rows, int64_t k, ComputeType compute,
                                 bool bias) {
  using F = WeightFormat;
  using B = BlockScaleType;
  const WeightShape shapes[] = {
      {F::kE2M1, rows, k, 0, 0, B::kE4M3, 16},      {F::kE2M1, rows, k, -1, 0, B::kE8M0, 32},
      {F::kE2M1, rows, k, 1, 64, B::kE4M3, 16},     {F::kE2M1, rows, k, 1, 0, B::kBFloat16, 32},
      {F::kInt2, rows, k, -1, 0, B::kBFloat16, 64}, {F::kInt2, rows, k, 0, 0, B::kE8M0, 16}};
  std::vector<Case> cases;
  for (const WeightShape& shape : shapes) cases.push_back({shape, ActivationRule::kNone, compute, bias});
  for (int group : {0, 32, 96, 128, 256}) {
    cases.push_back({{F::kInt4, rows, k, 1, group}, ActivationRule::kNone, compute, bias, true});
  }
  cases.push_back({shapes[0], ActivationRule::kInt8Token, compute, bias});
  cases.push_back({{F::kInt4, rows, k, 1, 64}, ActivationRule::kInt8Token, compute, bias, true});
  return cases;
}

// Every rule for x, with formats that are used under it.
std::vector<Case> rounded_inputs(const std::vector<int64_t>& rows, int64_t k, ComputeType compute,
                                 bool bias) {
  using F = WeightFormat;
  using R = ActivationRule;
  const std::vector<std::pair<WeightShape, R>> pairs = {
      {{F::kE4M3, rows, k, 128, 128}, R::kE4M3Group128}, {{F::kE4M3, rows, k, 1, 32}, R::kE4M3Group128},
      {{F::kE4M3, rows, k, 1, 0}, R::kE4M3Group128},     {{F::kInt4, rows, k, 1, 64}, R::kE4M3Group128},
      {{F::kBFloat16, rows, k, 1, 0}, R::kE4M3Group128}, {{F::kE4M3, rows, k, 0, 0}, R::kE4M3Token},
      {{F::kE4M3, rows, k, 1, 0}, R::kE4M3Static},       {{F::kInt4, rows, k, 1, 0}, R::kE4M3Token},
      {{F::kInt8, rows, k, 1, 0}, R::kInt8Token},        {{F::kInt8, rows, k, 1, 0}, R::kInt8Static},
      {{F::kInt8, rows, k, 1, 64}, R::kInt8Token},       {{F::kInt4, rows, k, 1, 0}, R::kInt8Token},
      {{F::kInt4, rows, k, 1, 128}, R::kInt8Token},      {{F::kNF4, rows, k, 1, 64}, R::kInt8Token},
      {{F::kBFloat16, rows, k, 1, 0}, R::kInt8Token},    {{F::kFloat32, rows, k, 1, 0}, R::kE4M3Static}};
  std::vector<Case> cases;
  for (const auto& [shape, rule] : pairs) cases.push_back({shape, rule, compute, bias});
  return cases;
}

inline std::vector<Case> all_formats(const std::vector<int64_t>& rows, int64_t k, bool bias) {
  using F = WeightFormat;
  std::vector<Case> cases;
  const auto append = [&](const std::vector<Case>& more) {
    cases.insert(cases.end(), more.begin(), more.end());
  };
  for (ComputeType compute : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (F format : {F::kFloat32, F::kFloat16, F::kBFloat16, F::kInt8, F::kInt4, F::kE4M3, F::kNF4}) {
      const std::vector<int> groups =
          format < F::kInt8 ? std::vector<int>{0} : std::vector<int>{0, 32, 64, 96, 128, 256};
      for (int group : groups)
        cases.push_back({{format, rows, k, 1, group}, ActivationRule::kNone, compute, bias});
    }
    cases.push_back({{F::kE4M3, rows, k, 128, 128}, ActivationRule::kNone, compute, bias});
    cases.push_back({{F::kE4M3, rows, k, 0, 0}, ActivationRule::kNone, compute, bias});
    append(scaled_formats(rows, k, compute, bias));
    append(rounded_inputs(rows, k, compute, bias));
  }
  return cases;
}

}  // namespace
}  // namespace fdq::test
