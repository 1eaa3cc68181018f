// Weights of every format with guard pages behind them, and the checks that each kernel must pass: values
// near a double-precision reference, and bits that do not depend on the batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

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

  int64_t n() const {
    return std::accumulate(shape.member_rows.begin(), shape.member_rows.end(), int64_t{0});
  }
  bool panels() const { return shape.format >= WeightFormat::kInt8; }
  std::string describe(Isa isa) const {
    std::string rows;
    for (int64_t r : shape.member_rows) rows += std::to_string(r) + " ";
    return std::string(isa_name(isa)) + " " + format_name(shape.format) + " rows " + rows + "k " +
           std::to_string(shape.k) + " group " + std::to_string(shape.group_n) + "x" +
           std::to_string(shape.group_k) + (rule == ActivationRule::kNone ? "" : " e4m3") +
           (compute == ComputeType::kFloat32 ? "" : " bf16");
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
    scales += s.group_n == 1 ? num_panels(rows) * groups * kPanelRows
                             : ceil_div(rows, kTile) * ceil_div(s.k, kTile);
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
          value = s.format == WeightFormat::kInt8 ? static_cast<double>(static_cast<int8_t>(code))
                                                  : e4m3_to_float(code);
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
      values[static_cast<size_t>(i)] =
          static_cast<double>(e4m3_to_float(codes[static_cast<size_t>(i)])) * scale;
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
  return Plan(make_linear_plan(weight.linear, c.rule, c.compute, isa), free_linear_plan);
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

std::vector<Case> all_formats(std::vector<int64_t> rows, int64_t k, bool bias) {
  std::vector<Case> cases;
  for (ComputeType compute : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    for (int format = 0; format <= static_cast<int>(WeightFormat::kE4M3); ++format) {
      const auto f = static_cast<WeightFormat>(format);
      const std::vector<int> groups =
          f < WeightFormat::kInt8 ? std::vector<int>{0} : std::vector<int>{0, 32, 64, 96, 128, 256};
      for (int group : groups)
        cases.push_back({{f, rows, k, 1, group}, ActivationRule::kNone, compute, bias});
    }
    cases.push_back({{WeightFormat::kE4M3, rows, k, 128, 128}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kE4M3, rows, k, 128, 128}, ActivationRule::kNone, compute, bias});
    cases.push_back({{WeightFormat::kE4M3, rows, k, 1, 32}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kInt4, rows, k, 1, 64}, ActivationRule::kE4M3Group128, compute, bias});
    cases.push_back({{WeightFormat::kBFloat16, rows, k, 1, 0}, ActivationRule::kE4M3Group128, compute, bias});
  }
  return cases;
}

}  // namespace
}  // namespace fdq::test
