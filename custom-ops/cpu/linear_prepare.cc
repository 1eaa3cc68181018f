#include <algorithm>
#include <cstring>

#include "cpu/linear_plan.h"
#include "cpu/number_formats.h"
#include "cpu/scratch.h"

namespace fdq {
namespace {

constexpr int64_t kParallelElements = 1 << 15;  // of x; fewer are prepared faster than threads are woken

thread_local Scratch t_x;
thread_local Scratch t_scales;

struct Destination {
  void* data;
  bool bfloat16;

  void zero(int64_t index, int64_t count) const {
    if (bfloat16) {
      std::memset(static_cast<uint16_t*>(data) + index, 0, static_cast<size_t>(count) * 2);
    } else {
      std::memset(static_cast<float*>(data) + index, 0, static_cast<size_t>(count) * 4);
    }
  }
  void* at(int64_t index) const { return static_cast<char*>(data) + index * (bfloat16 ? 2 : 4); }
};

// e4m3 codes of up to 128 consecutive k of one token. Returns their scale.
float quantize_group(const float* x, int64_t count, uint8_t* codes) {
  float scale;
  quantize_activation_e4m3(x, 1, count, codes, &scale);
  return scale;
}

void prepare_panel_token(const LinearPlan& plan, const float* x, int64_t token, int64_t tokens,
                         int64_t x_tokens, const Destination& to, float* scales) {
  const PanelJob& job = plan.panel_job;
  const int64_t k = plan.weight.shape.k;
  const bool quantized = plan.rule == ActivationRule::kE4M3Group128;
  const float factor = job.format == WeightFormat::kE4M3 ? plan.kernels.e4m3_x_factor : 1.0f;
  const ConvertX& convert = plan.kernels.convert;
  uint8_t codes[kTile];
  float values[kTile];
  for (int64_t group = 0; group * kTile < job.k_end; ++group) {
    const int64_t start = group * kTile;
    const int64_t count = std::min<int64_t>(kTile, k - start);
    const float* source = x + start;
    if (quantized) {
      scales[group * tokens + token] = quantize_group(source, count, codes);
    } else if (factor != 1.0f) {
      for (int64_t i = 0; i < count; ++i) values[i] = source[i] * factor;
      source = values;
    }
    const int64_t end = std::min(start + kTile, job.k_end);
    for (int64_t part = start, count = 0; part < end; part += count) {
      const int64_t block = part / job.block_k * job.block_k;
      const int64_t length = std::min(job.block_k, job.k_end - block);
      count = std::min(block + length, end) - part;
      const int64_t filled = std::clamp<int64_t>(k - part, 0, count);
      const int64_t index = block * x_tokens + token * length + (part - block);
      if (quantized) {
        convert.decode_e4m3(codes + (part - start), filled, factor, to.at(index));
      } else {
        convert.round(source + (part - start), filled, plan.round_x, to.at(index));
      }
      to.zero(index + filled, count - filled);
    }
  }
}

void prepare_row_token(const LinearPlan& plan, const float* x, int64_t token, const Destination& to) {
  const RowJob& job = plan.row_job;
  const bool quantized = plan.rule == ActivationRule::kE4M3Group128;
  uint8_t codes[kTile];
  float values[kTile];
  for (int64_t start = 0; start < job.x_stride; start += kTile) {
    const int64_t length = std::min<int64_t>(kTile, job.x_stride - start);
    const int64_t count = std::clamp<int64_t>(job.k - start, 0, length);
    const float* source = x + start;
    if (quantized && count > 0) {
      const float scale = quantize_group(source, count, codes);
      for (int64_t i = 0; i < count; ++i) values[i] = e4m3_to_float(codes[i]) * scale;
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
  PreparedX prepared{};
  prepared.tokens = round_up(tokens, plan.kernels.token_tile);
  const Destination to{t_x.bytes(prepared.tokens * stride * (plan.kernels.bfloat16 ? 2 : 4)),
                       plan.kernels.bfloat16};
  prepared.data = to.data;
  float* scales = nullptr;
  if (plan.panels_format && plan.rule == ActivationRule::kE4M3Group128) {
    scales = static_cast<float*>(
        t_scales.bytes(ceil_div(k, kTile) * tokens * static_cast<int64_t>(sizeof(float))));
    prepared.scales = scales;
  }
  const auto prepare = [&](int64_t token) {
    if (token >= tokens) return zero_token(plan, token, prepared.tokens, to);
    if (plan.panels_format) {
      return prepare_panel_token(plan, x + token * k, token, tokens, prepared.tokens, to, scales);
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
