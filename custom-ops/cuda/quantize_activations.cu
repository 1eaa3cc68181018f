// Activations to codes: e4m3 a group of 128 or a token, int8 a token. Bound by memory: 16-byte loads, four
// of them under way in each lane.
#include "cuda/device.cuh"
#include "cuda/divide.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/values.cuh"

namespace fdq::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / ptx::kWarp;
constexpr int kUnroll = 2;  // units under way
constexpr int kGroupLanes = kTile / (2 * kPerLane);
constexpr int kUnit = ptx::kWarp / kGroupLanes * kTile;
constexpr int kKept = 4;  // steps of a token that a thread keeps in registers

struct ActivationJob {
  const void* x;
  int64_t tokens, k, x_stride;
  uint8_t* codes;
  int64_t code_stride;
  float* scales;
  int64_t scale_stride;
  float static_scale;
};

// The largest magnitude as bits of the stored format, whose order is that of the numbers.
template <ElementType T>
__device__ __forceinline__ uint32_t largest_bits(const Values<T>& values) {
  uint32_t largest = 0;
  if constexpr (T == ElementType::kFloat32) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const uint32_t magnitude = values.bits(i) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
  } else {
#pragma unroll
    for (const uint32_t pair : values.quad[0].word) largest = ptx::max_pair(largest, pair & 0x7fff7fffu);
    const uint32_t first = largest & 0xffffu, second = largest >> 16;
    return first > second ? first : second;
  }
}

template <ElementType T, bool Int8>
__device__ __forceinline__ float scale_of_bits(uint32_t largest) {
  const float value = T == ElementType::kFloat32    ? bit_cast<float>(largest)
                      : T == ElementType::kBFloat16 ? ptx::from_bfloat16(largest)
                                                    : ptx::from_float16(static_cast<uint16_t>(largest));
  const float scale = ptx::divide(value, Int8 ? 127.0f : 448.0f);
  return scale == 0.0f ? 1.0f : scale;
}

__device__ __forceinline__ uint32_t to_int8(float quotient) {
  const float rounded = ptx::round_to_even(quotient);
  const float limited = rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded;
  return static_cast<uint32_t>(static_cast<int32_t>(limited)) & 0xffu;
}

// Writes the codes of 8 values; values beyond the row's end are 0 and so are their codes. `Static`: the scale
// was not made from these values, so that quotients can be of any size.
template <ElementType T, bool Int8, bool Static>
__device__ __forceinline__ void store_codes(const Values<T>& values, const Divider& divide, uint8_t* codes) {
  float quotients[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) quotients[i] = values[i];
  divide.divide_all<!Static>(quotients);
  uint32_t words[2];
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    const float* four = quotients + 4 * w;
    if (Int8) {
      words[w] = to_int8(four[0]) | to_int8(four[1]) << 8 | to_int8(four[2]) << 16 | to_int8(four[3]) << 24;
    } else {
      words[w] = ptx::to_e4m3_pair(four[0], four[1]) | ptx::to_e4m3_pair(four[2], four[3]) << 16;
    }
  }
  ptx::store_pair(codes, words[0], words[1]);
}

// A scale for each group of 128, or one that is known. A warp takes kUnroll units of four groups; a lane has
// 8 values of either half of its group.
template <ElementType T, bool Int8, bool Static, bool Whole>
__global__ void __launch_bounds__(kThreads) quantize_groups(ActivationJob job) {
  const auto units = static_cast<uint32_t>((job.code_stride + kUnit - 1) / kUnit);
  const uint32_t first = (blockIdx.x * kWarps + static_cast<uint32_t>(ptx::warp())) * kUnroll;
  const int lane = ptx::lane();
  const auto* x = static_cast<const Stored<T>*>(job.x);
  Values<T> values[kUnroll][2];
  int64_t tokens[kUnroll], ks[kUnroll];
  uint32_t token_of = first / units, unit_of = first % units;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t token = token_of;
    const int64_t k =
        static_cast<int64_t>(unit_of) * kUnit + lane / kGroupLanes * kTile + lane % kGroupLanes * kPerLane;
    values[u][0] = values[u][1] = {};
    if (token < job.tokens) {
      values[u][0] = load_values<T, Whole>(x + token * job.x_stride, k, job.k);
      values[u][1] = load_values<T, Whole>(x + token * job.x_stride, k + kTile / 2, job.k);
    }
    tokens[u] = token;
    ks[u] = k;
    if (++unit_of == units) {
      unit_of = 0;
      ++token_of;
    }
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t token = tokens[u], k = ks[u];
    float scale = job.static_scale;
    if (!Static) {
      const uint32_t lower = largest_bits(values[u][0]), upper = largest_bits(values[u][1]);
      scale = scale_of_bits<T, Int8>(ptx::reduce_max<kGroupLanes>(lower > upper ? lower : upper));
      if (token < job.tokens && lane % kGroupLanes == 0 && k < job.k) {
        job.scales[k / kTile * job.scale_stride + token] = scale;
      }
    }
    if (token >= job.tokens) continue;
    const Divider divide(scale);
    uint8_t* codes = job.codes + token * job.code_stride + k;
    if (k < job.code_stride) store_codes<T, Int8, Static>(values[u][0], divide, codes);
    if (k + kTile / 2 < job.code_stride)
      store_codes<T, Int8, Static>(values[u][1], divide, codes + kTile / 2);
  }
}

// One scale a token; a block takes a token. What fits is kept in registers, the rest is read again.
template <ElementType T, bool Int8, bool Whole>
__global__ void __launch_bounds__(kThreads) quantize_tokens(ActivationJob job) {
  const int64_t token = blockIdx.x;
  const Stored<T>* row = static_cast<const Stored<T>*>(job.x) + token * job.x_stride;
  const int64_t start = static_cast<int64_t>(threadIdx.x) * kPerLane;
  constexpr int64_t kStep = kThreads * kPerLane;
  Values<T> kept[kKept];
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) kept[i] = load_values<T, Whole>(row, start + i * kStep, job.k);
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const uint32_t bits = largest_bits(kept[i]);
    largest = bits > largest ? bits : largest;
  }
  for (int64_t k = start + kKept * kStep; k < job.k; k += kStep) {
    const uint32_t bits = largest_bits(load_values<T, Whole>(row, k, job.k));
    largest = bits > largest ? bits : largest;
  }
  auto* shared = reinterpret_cast<uint32_t*>(shared_memory());
  largest = ptx::reduce_max(largest);
  if (ptx::lane() == 0) shared[threadIdx.x / ptx::kWarp] = largest;
  ptx::sync_block();
  largest = ptx::reduce_max<kWarps>(shared[ptx::lane() % kWarps]);
  const float scale = scale_of_bits<T, Int8>(largest);
  if (threadIdx.x == 0) job.scales[token] = scale;
  const Divider divide(scale);
  uint8_t* codes = job.codes + token * job.code_stride;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int64_t k = start + i * kStep;
    if (k < job.code_stride) store_codes<T, Int8, false>(kept[i], divide, codes + k);
  }
  for (int64_t k = start + kKept * kStep; k < job.code_stride; k += kStep) {
    store_codes<T, Int8, false>(load_values<T, Whole>(row, k, job.k), divide, codes + k);
  }
}

template <ElementType T, bool Whole>
Error launch_rule(ActivationRule rule, const ActivationJob& job, void* stream) {
  const int64_t warps = ceil_div(job.tokens * ceil_div(job.code_stride, kUnit), kUnroll);
  const LaunchShape groups{dim3(static_cast<unsigned>(ceil_div(warps, kWarps))), dim3(kThreads)};
  const LaunchShape tokens{dim3(static_cast<unsigned>(job.tokens)), dim3(kThreads),
                           kWarps * sizeof(uint32_t)};
  switch (rule) {
    case ActivationRule::kE4M3Group128:
      return launch(quantize_groups<T, false, false, Whole>, groups, stream, job);
    case ActivationRule::kE4M3Static:
      return launch(quantize_groups<T, false, true, Whole>, groups, stream, job);
    case ActivationRule::kInt8Static:
      return launch(quantize_groups<T, true, true, Whole>, groups, stream, job);
    case ActivationRule::kE4M3Token:
      return launch(quantize_tokens<T, false, Whole>, tokens, stream, job);
    case ActivationRule::kInt8Token:
      return launch(quantize_tokens<T, true, Whole>, tokens, stream, job);
    default:
      return "activations without a rule are not quantized";
  }
}

template <ElementType T>
Error launch_element(bool is_whole, ActivationRule rule, const ActivationJob& job, void* stream) {
  return is_whole ? launch_rule<T, true>(rule, job, stream) : launch_rule<T, false>(rule, job, stream);
}

Error check(const ActivationArgs& args) {
  if (args.tokens < 0 || args.k <= 0 || args.x_stride < args.k)
    return "the activations have an impossible shape";
  if (args.code_stride < args.k || args.code_stride % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.codes) % 16 != 0) {
    return "rows of activation codes must be multiples of 16 bytes";
  }
  if (args.rule == ActivationRule::kE4M3Group128 &&
      (args.scale_stride < args.tokens || args.scale_stride % 4 != 0)) {
    return "scales of groups need a stride that is a multiple of 4 and holds all tokens";
  }
  return nullptr;
}

}  // namespace

Error quantize_activations(const ActivationArgs& args, void* stream) {
  const Error error = check(args);
  if (error != nullptr || args.tokens == 0) return error;
  ActivationJob job{};
  job.x = args.x;
  job.tokens = args.tokens;
  job.k = args.k;
  job.x_stride = args.x_stride;
  job.codes = static_cast<uint8_t*>(args.codes);
  job.code_stride = args.code_stride;
  job.scales = args.scales;
  job.scale_stride = args.scale_stride;
  job.static_scale = args.static_scale;
  const int64_t per_quad = args.element == ElementType::kFloat32 ? 4 : 8;
  const bool is_whole = reinterpret_cast<uintptr_t>(args.x) % 16 == 0 && args.x_stride % per_quad == 0;
  switch (args.element) {
    case ElementType::kBFloat16:
      return launch_element<ElementType::kBFloat16>(is_whole, args.rule, job, stream);
    case ElementType::kFloat16:
      return launch_element<ElementType::kFloat16>(is_whole, args.rule, job, stream);
    default:
      return launch_element<ElementType::kFloat32>(is_whole, args.rule, job, stream);
  }
}

}  // namespace fdq::cuda
