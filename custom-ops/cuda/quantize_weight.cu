// Quantizes a matrix to int8, int4 or e4m3 in the layout of the device: magnitudes into the places of the
// scales, then the scales, then codes. Maxima are the same in any order, and both divisions are rounded to
// nearest, so the bytes are those of the CPU.
#include "cuda/device.cuh"
#include "cuda/layout.h"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/warp.cuh"

namespace fdq::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / ptx::kWarp;
constexpr int64_t kSpan = 1024;  // k of a warp that measures, or the groups that reach it
constexpr uint32_t kInfinityBits = 0x7f800000u;

struct QuantizeJob {
  const void* source;
  int64_t n, k;
  int group_n;
  int64_t group_k, groups;  // group_k: k where there is a scale a row
  int64_t span, spans;      // of a row
  uint8_t* codes;
  int64_t padded, panel_units, units;
  float* scales;
  int64_t scale_count;
  float largest_code;
  uint64_t* non_finite;
};

template <ElementType T>
__device__ __forceinline__ float load_value(const QuantizeJob& job, int64_t row, int64_t k) {
  const int64_t at = row * job.k + k;
  if constexpr (T == ElementType::kFloat32) return static_cast<const float*>(job.source)[at];
  const uint16_t bits = static_cast<const uint16_t*>(job.source)[at];
  return T == ElementType::kFloat16 ? ptx::from_float16(bits) : ptx::from_bfloat16(bits);
}

__device__ __forceinline__ int64_t group_at(const QuantizeJob& job, int64_t k) {
  return static_cast<uint32_t>(k) / static_cast<uint32_t>(job.group_k);
}
__device__ __forceinline__ int64_t place_of_scale(const QuantizeJob& job, int64_t row, int64_t group) {
  if (job.group_n == 0) return 0;
  if (job.group_n == kTile) return row / kTile * job.groups + group;
  return (row / kPanelRows * job.groups + group) * kPanelRows + row % kPanelRows;
}

__global__ void __launch_bounds__(kThreads) clear_scales(QuantizeJob job) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < job.scale_count) job.scales[index] = 0.0f;
}

// Leaves the largest magnitude of each group, as bits, where its scale will be. A warp takes a span of a row.
template <ElementType T>
__global__ void __launch_bounds__(kThreads) measure_weight(QuantizeJob job) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + ptx::warp();
  if (index >= job.n * job.spans) return;
  const int64_t row = index / job.spans, first = index % job.spans * job.span;
  const int64_t end = first + job.span < job.k ? first + job.span : job.k;
  for (int64_t start = first; start < end; start += job.group_k) {
    const int64_t stop = start + job.group_k < end ? start + job.group_k : end;
    uint32_t largest = 0;
    for (int64_t k = start + ptx::lane(); k < stop; k += ptx::kWarp) {
      const uint32_t bits = bit_cast<uint32_t>(load_value<T>(job, row, k)) & 0x7fffffffu;
      if (bits >= kInfinityBits) ptx::atomic_min(job.non_finite, static_cast<uint64_t>(row * job.k + k));
      largest = bits > largest ? bits : largest;
    }
    largest = ptx::reduce_max(largest);
    if (ptx::lane() == 0) {
      ptx::atomic_max(
          reinterpret_cast<uint32_t*>(job.scales) + place_of_scale(job, row, group_at(job, start)), largest);
    }
  }
}

__device__ __forceinline__ float scale_of(const QuantizeJob& job, float largest) {
  const float scale = ptx::divide(largest, job.largest_code);
  return scale == 0.0f ? 1.0f : scale;
}

// Magnitudes to scales; those of rows past the last are 0 and become 1.
__global__ void __launch_bounds__(kThreads) finish_scales(QuantizeJob job) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < job.scale_count) job.scales[index] = scale_of(job, job.scales[index]);
}
// One scale for all rows, by one block.
__global__ void __launch_bounds__(kThreads) spread_scale(QuantizeJob job) {
  const float scale = scale_of(job, job.scales[0]);
  ptx::sync_block();
  for (int64_t i = threadIdx.x; i < job.scale_count; i += kThreads) job.scales[i] = scale;
}

template <WeightFormat F>
__device__ __forceinline__ uint32_t encode(float quotient, float largest) {
  if constexpr (F == WeightFormat::kE4M3) {
    return ptx::to_e4m3_pair(quotient, 0.0f) & 0xffu;
  } else {
    const float rounded = ptx::round_to_even(quotient);
    const float limited = rounded > largest ? largest : rounded < -largest ? -largest : rounded;
    return static_cast<uint32_t>(static_cast<int32_t>(limited)) & ((1u << code_bits(F)) - 1);
  }
}

// A thread makes 16 bytes.
template <ElementType T, WeightFormat F>
__global__ void __launch_bounds__(kThreads) encode_weight(QuantizeJob job) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= job.units) return;
  const int64_t panel = index / job.panel_units, unit = index % job.panel_units;
  constexpr int kPerWord = 32 / code_bits(F);
  ptx::Quad out;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = 0;
    // A word has codes of at most 16 neighbouring k, and groups begin at multiples of 32.
    const int64_t group = group_at(job, code_of(device_layout(F), F, job.padded, unit, word * kPerWord).k);
#pragma unroll
    for (int i = 0; i < kPerWord; ++i) {
      const Code code = code_of(device_layout(F), F, job.padded, unit, word * kPerWord + i);
      const int64_t row = panel * kPanelRows + code.row;
      if (row >= job.n || code.k >= job.k) continue;
      const float scale = job.scales[place_of_scale(job, row, group)];
      bits |= encode<F>(ptx::divide(load_value<T>(job, row, code.k), scale), job.largest_code)
              << i * code_bits(F);
    }
    out.word[word] = bits;
  }
  ptx::store_quad(job.codes + index * kUnitBytes, out);
}

LaunchShape blocks_of(int64_t count, int each) {
  return {dim3(static_cast<unsigned>(ceil_div(count, each))), dim3(kThreads)};
}

template <ElementType T>
Error run(const QuantizeJob& job, WeightFormat format, void* stream) {
  if (const Error error = launch(clear_scales, blocks_of(job.scale_count, kThreads), stream, job))
    return error;
  if (const Error error = launch(measure_weight<T>, blocks_of(job.n * job.spans, kWarps), stream, job)) {
    return error;
  }
  const Error error = job.group_n == 0
                          ? launch(spread_scale, blocks_of(1, 1), stream, job)
                          : launch(finish_scales, blocks_of(job.scale_count, kThreads), stream, job);
  if (error != nullptr) return error;
  const LaunchShape shape = blocks_of(job.units, kThreads);
  if (format == WeightFormat::kInt4) return launch(encode_weight<T, WeightFormat::kInt4>, shape, stream, job);
  if (format == WeightFormat::kInt8) return launch(encode_weight<T, WeightFormat::kInt8>, shape, stream, job);
  return launch(encode_weight<T, WeightFormat::kE4M3>, shape, stream, job);
}

Error check(const QuantizeWeightArgs& args) {
  if (args.format != WeightFormat::kE4M3 && args.format != WeightFormat::kInt8 &&
      args.format != WeightFormat::kInt4) {
    return "only e4m3, int8 and int4 weights are made on the device";
  }
  if (args.n <= 0 || args.k <= 0) return "a weight must not be empty";
  if (args.n > INT32_MAX || args.k > INT32_MAX) return "a weight has at most 2^31 - 1 rows and columns";
  const bool is_known = args.group_n == kTile ? args.group_k == kTile
                        : args.group_n == 1   ? args.group_k >= 0 && args.group_k % 32 == 0
                                              : args.group_n == 0 && args.group_k == 0;
  if (!is_known) return "scales are of rows, of groups of a multiple of 32, of tiles of 128 x 128, or one";
  if (reinterpret_cast<uintptr_t>(args.codes) % kUnitBytes != 0)
    return "codes must be a multiple of 16 bytes";
  return nullptr;
}

}  // namespace

Error quantize_weight(const QuantizeWeightArgs& args, void* stream) {
  if (const Error error = check(args)) return error;
  QuantizeJob job{};
  job.source = args.source;
  job.n = args.n;
  job.k = args.k;
  job.group_n = args.group_n;
  job.groups = num_groups(args.k, args.group_k);
  // Without groups the parts of a row that warps measure may be any.
  job.group_k = args.group_k == 0 ? args.k : args.group_k;
  job.span = args.group_k == 0 ? args.k : round_up(kSpan, args.group_k);
  job.spans = ceil_div(args.k, job.span);
  job.codes = static_cast<uint8_t*>(args.codes);
  job.padded = padded_k(args.k);
  job.panel_units = panel_bytes(args.format, args.k) / kUnitBytes;
  job.units = num_panels(args.n) * job.panel_units;
  job.scales = args.scales;
  job.scale_count = args.group_n == kTile ? ceil_div(args.n, kTile) * job.groups
                                          : num_panels(args.n) * job.groups * kPanelRows;
  job.largest_code = args.format == WeightFormat::kE4M3   ? 448.0f
                     : args.format == WeightFormat::kInt8 ? 127.0f
                                                          : 7.0f;
  job.non_finite = args.non_finite;
  if (args.element == ElementType::kFloat32) return run<ElementType::kFloat32>(job, args.format, stream);
  if (args.element == ElementType::kFloat16) return run<ElementType::kFloat16>(job, args.format, stream);
  return run<ElementType::kBFloat16>(job, args.format, stream);
}

}  // namespace fdq::cuda
