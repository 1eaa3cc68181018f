#include <algorithm>
#include <cstring>

#include "cpu/linear_plan.h"
#include "cpu/number_formats.h"
#include "cpu/quantize.h"
#include "cpu/scratch.h"

namespace fdq {
namespace {

constexpr int64_t kParallelElements = 1 << 15;  // of x; fewer are prepared faster than threads are woken

thread_local Scratch t_x;
thread_local Scratch t_scales;
thread_local Scratch t_offsets;

struct Destination {
  void* data;
  int64_t element_bytes;

  void* at(int64_t index) const { return static_cast<char*>(data) + index * element_bytes; }
  void zero(int64_t index, int64_t count) const {
    std::memset(at(index), 0, static_cast<size_t>(count * element_bytes));
  }
};

// What is added to the products of int8 codes because the codes of weights are raised to be unsigned.
int32_t offset_of(const PanelJob& job, const uint8_t* codes, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<int8_t>(codes[i]);
  return -sum * (job.format == WeightFormat::kInt4 ? 8 : 128);
}

// Where the scales and offsets of tokens go.
struct TokenSums {
  float* scales = nullptr;
  int64_t scale_stride = 0;
  int32_t* offsets = nullptr;
};

// Codes of activations. A scale is of 128 consecutive k, of a token, or of the checkpoint.
class Rounding {
 public:
  explicit Rounding(const LinearActivation& activation) : activation_(activation) {}

  bool active() const { return activation_.rule != ActivationRule::kNone; }
  bool grouped() const { return activation_.rule == ActivationRule::kE4M3Group128; }
  bool to_int8() const {
    return activation_.rule == ActivationRule::kInt8Token || activation_.rule == ActivationRule::kInt8Static;
  }

  // The scale that `count` values share: a group of a token, or all of it.
  float scale(const float* x, int64_t count) const {
    if (is_static(activation_.rule)) return activation_.scale;
    const uint32_t magnitude = kernels().max_magnitude(x, ElementType::kFloat32, count);
    return scale_of(bits_float(magnitude), format());
  }
  void encode(const float* x, int64_t count, float scale, uint8_t* codes) const {
    kernels().encode(x, ElementType::kFloat32, count, format(), scale, codes);
  }
  float decode(uint8_t code) const {
    return to_int8() ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_float(code);
  }

 private:
  WeightFormat format() const { return to_int8() ? WeightFormat::kInt8 : WeightFormat::kE4M3; }
  static const QuantizeKernels& kernels() {
    static const QuantizeKernels best = quantize_kernels(detect_isa());
    return best;
  }
  const LinearActivation& activation_;
};

void prepare_panel_token(const LinearPlan& plan, const float* x, int64_t token, int64_t x_tokens,
                         const Destination& to, const TokenSums& sums) {
  const PanelJob& job = plan.panel_job;
  const int64_t k = plan.weight.shape.k;
  const Rounding rounding(plan.activation);
  const bool quantized = rounding.active();
  const float factor = job.format == WeightFormat::kE4M3 ? plan.kernels.e4m3_x_factor : 1.0f;
  const ConvertX& convert = plan.kernels.convert;
  float scale = 1.0f;
  if (quantized && !rounding.grouped()) sums.scales[token] = scale = rounding.scale(x, k);
  uint8_t codes[kTile];
  float values[kTile];
  for (int64_t group = 0; group * kTile < job.k_end; ++group) {
    const int64_t start = group * kTile;
    const int64_t filled_group = std::min<int64_t>(kTile, k - start);
    const float* source = x + start;
    if (quantized) {
      if (rounding.grouped()) {
        sums.scales[group * sums.scale_stride + token] = scale = rounding.scale(source, filled_group);
      }
      rounding.encode(source, filled_group, scale, codes);
    } else if (factor != 1.0f) {
      for (int64_t i = 0; i < filled_group; ++i) values[i] = source[i] * factor;
      source = values;
    }
    const int64_t end = std::min(start + kTile, job.k_end);
    for (int64_t part = start, count = 0; part < end; part += count) {
      const int64_t block = part / job.block_k * job.block_k;
      const int64_t length = std::min(job.block_k, job.k_end - block);
      count = std::min(block + length, end) - part;
      const int64_t filled = std::clamp<int64_t>(k - part, 0, count);
      const int64_t index = block * x_tokens + token * length + (part - block);
      if (sums.offsets != nullptr) {
        int32_t& offset = sums.offsets[block / job.block_k * x_tokens + token];
        offset = (part == block ? 0 : offset) + offset_of(job, codes + (part - start), filled);
        std::memcpy(to.at(index), codes + (part - start), static_cast<size_t>(filled));
      } else if (quantized) {
        const auto decode = rounding.to_int8() ? convert.decode_int8 : convert.decode_e4m3;
        decode(codes + (part - start), filled, factor, to.at(index));
      } else {
        convert.round(source + (part - start), filled, plan.round_x, to.at(index));
      }
      to.zero(index + filled, count - filled);
    }
  }
}

void prepare_row_token(const LinearPlan& plan, const float* x, int64_t token, const Destination& to) {
  const RowJob& job = plan.row_job;
  const Rounding rounding(plan.activation);
  float scale = 1.0f;
  if (rounding.active() && !rounding.grouped()) scale = rounding.scale(x, job.k);
  uint8_t codes[kTile];
  float values[kTile];
  for (int64_t start = 0; start < job.x_stride; start += kTile) {
    const int64_t length = std::min<int64_t>(kTile, job.x_stride - start);
    const int64_t count = std::clamp<int64_t>(job.k - start, 0, length);
    const float* source = x + start;
    if (rounding.active() && count > 0) {
      if (rounding.grouped()) scale = rounding.scale(source, count);
      rounding.encode(source, count, scale, codes);
      for (int64_t i = 0; i < count; ++i) values[i] = rounding.decode(codes[i]) * scale;
      source = values;
    }
    if (!plan.kernels.paired_rows) {
      const int64_t index = token * job.x_stride + start;
      plan.kernels.convert.round(source, count, plan.round_x, to.at(index));
      to.zero(index + count, length - count);
      continue;
    }
    constexpr int64_t kTokens = 16;
    uint16_t* out =
        static_cast<uint16_t*>(to.data) + token / kTokens * kTokens * job.x_stride + token % kTokens * 2;
    for (int64_t i = 0; i < length; ++i) {
      const int64_t at = start + i;
      out[at / 2 * kTokens * 2 + at % 2] = i < count ? float_to_bfloat16(source[i]) : uint16_t{0};
    }
  }
}

void zero_token(const LinearPlan& plan, int64_t token, int64_t x_tokens, const Destination& to) {
  if (!plan.panels_format) {
    constexpr int64_t kTokens = 16;
    const int64_t base = token / kTokens * kTokens * plan.row_job.x_stride + token % kTokens * 2;
    for (int64_t k = 0; k < plan.row_job.x_stride; k += 2) to.zero(base + k * kTokens, 2);
    return;
  }
  const PanelJob& job = plan.panel_job;
  for (int64_t block = 0; block < job.k_end; block += job.block_k) {
    const int64_t length = std::min(job.block_k, job.k_end - block);
    to.zero(block * x_tokens + token * length, length);
  }
}

}  // namespace

PreparedX prepare_x(const LinearPlan& plan, const float* x, int64_t tokens, const Parallel& parallel) {
  const int64_t k = plan.weight.shape.k;
  const int64_t stride = plan.panels_format ? plan.panel_job.k_end : plan.row_job.x_stride;
  const int64_t element_bytes = plan.kernels.int8_x ? 1 : plan.kernels.bfloat16 ? 2 : 4;
  PreparedX prepared{};
  prepared.tokens = round_up(tokens, plan.kernels.token_tile);
  const Destination to{t_x.bytes(prepared.tokens * stride * element_bytes), element_bytes};
  prepared.data = to.data;
  TokenSums sums;
  if (plan.panels_format && plan.activation.rule != ActivationRule::kNone) {
    const bool grouped = plan.activation.rule == ActivationRule::kE4M3Group128;
    sums.scale_stride = prepared.scale_stride = grouped ? tokens : 0;
    prepared.scales = sums.scales = t_scales.floats((grouped ? ceil_div(k, kTile) : 1) * tokens);
  }
  if (plan.kernels.int8_x) {
    const int64_t count = ceil_div(stride, plan.panel_job.block_k) * prepared.tokens;
    sums.offsets = static_cast<int32_t*>(t_offsets.bytes(count * static_cast<int64_t>(sizeof(int32_t))));
    prepared.offsets = sums.offsets;
  }
  const auto prepare = [&](int64_t token) {
    if (token >= tokens) return zero_token(plan, token, prepared.tokens, to);
    if (plan.panels_format) {
      return prepare_panel_token(plan, x + token * k, token, prepared.tokens, to, sums);
    }
    prepare_row_token(plan, x + token * k, token, to);
  };
  if (tokens == 1 || tokens * k < kParallelElements) {
    for (int64_t token = 0; token < prepared.tokens; ++token) prepare(token);
  } else {
    parallel(prepared.tokens, prepare);
  }
  return prepared;
}

}  // namespace fdq
