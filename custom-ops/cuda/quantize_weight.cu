// Weights to codes and scales. Bound by memory: the source is read twice, first for the largest magnitudes,
// then for the codes, in the order of the device layout.
#include "cuda/device.cuh"
#include "cuda/layout.h"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/warp.cuh"

namespace fdq::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / ptx::kWarp;
constexpr int kRun = 8;                   // values of a lane's load
constexpr int kStep = kRun * ptx::kWarp;  // columns of one load of a warp
constexpr int kSegment = 8 * kStep;       // columns of a row that a warp measures
constexpr int kColumns = 32;              // columns that always share a scale
constexpr uint32_t kInfinityBits = 0x7f800000u;

struct WeightJob {
  const void* source;
  int64_t n, k, padded;
  bool is_whole;  // every row is 16-byte aligned
  int group_n;    // 0, 1 or kTile
  int64_t groups;
  uint32_t group_columns;  // of a scale, in units of kColumns
  uint8_t* codes;
  float* scales;
  int64_t slots;  // scales
  uint64_t* non_finite;
};

__device__ __forceinline__ int64_t slot_of(const WeightJob& job, int64_t row, int64_t k) {
  if (job.group_n == 0) return 0;
  const int64_t group = static_cast<uint32_t>(k / kColumns) / job.group_columns;
  if (job.group_n == kTile) return row / kTile * job.groups + group;
  return (row / kPanelRows * job.groups + group) * kPanelRows + row % kPanelRows;
}

template <ElementType T>
__device__ __forceinline__ float value_at(const WeightJob& job, int64_t row, int64_t k) {
  if (row >= job.n || k >= job.k) return 0.0f;
  const int64_t index = row * job.k + k;
  if (T == ElementType::kFloat32) return static_cast<const float*>(job.source)[index];
  const uint16_t bits = static_cast<const uint16_t*>(job.source)[index];
  return T == ElementType::kFloat16 ? ptx::from_float16(bits) : ptx::from_bfloat16(bits);
}

// Columns k .. k + 7, 0 beyond the matrix; k is a multiple of 8.
template <ElementType T>
__device__ __forceinline__ void load_run(const WeightJob& job, int64_t row, int64_t k, float (&out)[kRun]) {
  if (!job.is_whole || row >= job.n || k + kRun > job.k) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) out[i] = value_at<T>(job, row, k + i);
    return;
  }
  const int64_t index = row * job.k + k;
  if (T == ElementType::kFloat32) {
    const auto* source = static_cast<const float*>(job.source) + index;
    const ptx::Quad low = ptx::load_quad(source), high = ptx::load_quad(source + 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[i] = bit_cast<float>(low.word[i]);
      out[i + 4] = bit_cast<float>(high.word[i]);
    }
    return;
  }
  const ptx::Quad q = ptx::load_quad(static_cast<const uint16_t*>(job.source) + index);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool is_half = T == ElementType::kFloat16;
    out[2 * i] = is_half ? ptx::first_float16(q.word[i]) : ptx::first_bfloat16(q.word[i]);
    out[2 * i + 1] = is_half ? ptx::second_float16(q.word[i]) : ptx::second_bfloat16(q.word[i]);
  }
}

__global__ void __launch_bounds__(kThreads) clear_scales(WeightJob job) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (slot < job.slots) job.scales[slot] = 0.0f;
}

// Raises every scale to the largest magnitude of its values; bits of magnitudes are ordered as the numbers.
// Runs of `Lanes` lanes share a scale; where that is a whole warp, so do all columns.
template <ElementType T, int Lanes>
__global__ void __launch_bounds__(kThreads) measure_weight(WeightJob job) {
  const int64_t segments = (job.k + kSegment - 1) / kSegment;
  const int64_t task = static_cast<int64_t>(blockIdx.x) * kWarps + ptx::warp();
  const int64_t row = task / segments;
  if (row >= job.n) return;
  const int64_t first = task % segments * kSegment + ptx::lane() * kRun;
  auto* slots = reinterpret_cast<uint32_t*>(job.scales);
  uint32_t largest = 0;
  for (int64_t base = task % segments * kSegment, k = first;
       base < job.k && base < (task % segments + 1) * kSegment; base += kStep, k += kStep) {
    float values[kRun];
    load_run<T>(job, row, k, values);
    int bad = kRun;
#pragma unroll
    for (int i = kRun - 1; i >= 0; --i) {
      const uint32_t magnitude = bit_cast<uint32_t>(values[i]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
      if (magnitude >= kInfinityBits) bad = i;
    }
    if (bad < kRun) ptx::atomic_min(job.non_finite, static_cast<uint64_t>(row * job.k + k + bad));
    if (Lanes == ptx::kWarp) continue;
    largest = ptx::reduce_max<Lanes>(largest);
    if (ptx::lane() % Lanes == 0 && k < job.k) ptx::atomic_max(slots + slot_of(job, row, k), largest);
    largest = 0;
  }
  if (Lanes != ptx::kWarp) return;
  largest = ptx::reduce_max(largest);
  if (ptx::lane() == 0) ptx::atomic_max(slots + slot_of(job, row, 0), largest);
}

template <WeightFormat F>
__device__ __forceinline__ float scale_of(float largest) {
  constexpr float kLargestCode = F == WeightFormat::kInt8 ? 127.0f : F == WeightFormat::kInt4 ? 7.0f : 448.0f;
  const float scale = ptx::divide(largest, kLargestCode);
  return scale == 0.0f ? 1.0f : scale;
}

// Magnitudes to scales. A slot of a row past the last holds 0, which gives 1.
template <WeightFormat F>
__global__ void __launch_bounds__(kThreads) finish_scales(WeightJob job) {
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (slot < job.slots) job.scales[slot] = scale_of<F>(job.scales[slot]);
}

// The same for one scale a tensor, which is repeated. One block.
template <WeightFormat F>
__global__ void __launch_bounds__(kThreads) spread_scale(WeightJob job) {
  const float scale = scale_of<F>(job.scales[0]);
  ptx::sync_block();
  for (int64_t slot = threadIdx.x; slot < job.slots; slot += kThreads) job.scales[slot] = scale;
}

template <int Highest>
__device__ __forceinline__ uint32_t to_integer(float quotient) {
  constexpr float kHighest = Highest;
  const float rounded = ptx::round_to_even(quotient);
  const float limited = rounded > kHighest ? kHighest : rounded < -kHighest ? -kHighest : rounded;
  return static_cast<uint32_t>(static_cast<int32_t>(limited)) & (Highest == 7 ? 0xfu : 0xffu);
}

// Eight codes of a row, two words.
template <ElementType T>
__device__ __forceinline__ void encode_e4m3(const WeightJob& job, int64_t row, int64_t k, float scale,
                                            uint32_t* words) {
  float values[kRun];
  load_run<T>(job, row, k, values);
#pragma unroll
  for (int i = 0; i < kRun; ++i) values[i] = ptx::divide(values[i], scale);
#pragma unroll
  for (int w = 0; w < 2; ++w) {
    words[w] = ptx::to_e4m3_pair(values[4 * w], values[4 * w + 1]) |
               ptx::to_e4m3_pair(values[4 * w + 2], values[4 * w + 3]) << 16;
  }
}

// A word of layout kFragments, whose codes alternate between two rows with a scale each.
template <ElementType T, WeightFormat F>
__device__ __forceinline__ uint32_t encode_fragment(const WeightJob& job, int64_t panel, int64_t unit,
                                                    int word, const float (&scales)[2]) {
  constexpr int kPerWord = 32 / code_bits(F);
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kPerWord; ++i) {
    const Code code = code_of(Layout::kFragments, F, job.padded, unit, word * kPerWord + i);
    const float value = value_at<T>(job, panel * kPanelRows + code.row, code.k);
    const float quotient = ptx::divide(value, scales[i % 2]);
    bits |= to_integer<F == WeightFormat::kInt4 ? 7 : 127>(quotient) << i * code_bits(F);
  }
  return bits;
}

// A thread makes 16 bytes.
template <ElementType T, WeightFormat F>
__global__ void __launch_bounds__(kThreads) encode_weight(WeightJob job) {
  const int64_t panel_units = kPanelRows * job.padded * code_bits(F) / 8 / kUnitBytes;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t panel = index / panel_units, unit = index % panel_units;
  if (panel * kPanelRows >= job.n) return;
  const Code first = code_of(device_layout(F), F, job.padded, unit, 0);
  const auto scale_at = [&](int64_t row, int64_t k) {
    return row < job.n && k < job.k ? job.scales[slot_of(job, row, k)] : 1.0f;
  };
  const int64_t row = panel * kPanelRows + first.row;
  ptx::Quad out;
  if constexpr (F == WeightFormat::kE4M3) {
    const float scale = scale_at(row, first.k);
    encode_e4m3<T>(job, row, first.k, scale, out.word);
    encode_e4m3<T>(job, row, first.k + kRun, scale, out.word + 2);
  } else {
    constexpr int kWordsOfScale = F == WeightFormat::kInt4 ? 2 : 4;  // words of kColumns
#pragma unroll
    for (int word = 0; word < 4; word += kWordsOfScale) {
      const int64_t k = first.k + word / kWordsOfScale * kColumns;
      const float scales[2] = {scale_at(row, k), scale_at(row + 8, k)};
#pragma unroll
      for (int w = word; w < word + kWordsOfScale; ++w) {
        out.word[w] = encode_fragment<T, F>(job, panel, unit, w, scales);
      }
    }
  }
  ptx::store_quad(job.codes + index * kUnitBytes, out);
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

LaunchShape threads_for(int64_t count) {
  return {dim3(static_cast<unsigned>(ceil_div(count, kThreads))), dim3(kThreads)};
}

template <ElementType T>
Error measure(const WeightJob& job, int group_k, void* stream) {
  const LaunchShape shape = threads_for(job.n * ceil_div(job.k, kSegment) * ptx::kWarp);
  if (group_k == 0) return launch(measure_weight<T, ptx::kWarp>, shape, stream, job);
  if (group_k % kTile == 0) return launch(measure_weight<T, kTile / kRun>, shape, stream, job);
  return launch(measure_weight<T, kColumns / kRun>, shape, stream, job);
}

template <WeightFormat F>
Error finish(const WeightJob& job, void* stream) {
  if (job.group_n == 0) return launch(spread_scale<F>, threads_for(1), stream, job);
  return launch(finish_scales<F>, threads_for(job.slots), stream, job);
}

template <ElementType T, WeightFormat F>
Error quantize(const WeightJob& job, int group_k, void* stream) {
  if (const Error error = launch(clear_scales, threads_for(job.slots), stream, job)) return error;
  if (const Error error = measure<T>(job, group_k, stream)) return error;
  if (const Error error = finish<F>(job, stream)) return error;
  const int64_t units = num_panels(job.n) * panel_bytes(F, job.k) / kUnitBytes;
  return launch(encode_weight<T, F>, threads_for(units), stream, job);
}

template <ElementType T>
Error quantize_to(const QuantizeWeightArgs& args, const WeightJob& job, void* stream) {
  switch (args.format) {
    case WeightFormat::kInt8:
      return quantize<T, WeightFormat::kInt8>(job, args.group_k, stream);
    case WeightFormat::kInt4:
      return quantize<T, WeightFormat::kInt4>(job, args.group_k, stream);
    default:
      return quantize<T, WeightFormat::kE4M3>(job, args.group_k, stream);
  }
}

}  // namespace

Error quantize_weight(const QuantizeWeightArgs& args, void* stream) {
  if (const Error error = check(args)) return error;
  WeightJob job{};
  job.source = args.source;
  job.n = args.n;
  job.k = args.k;
  job.padded = padded_k(args.k);
  const int64_t row_bytes = args.k * (args.element == ElementType::kFloat32 ? 4 : 2);
  job.is_whole = reinterpret_cast<uintptr_t>(args.source) % 16 == 0 && row_bytes % 16 == 0;
  job.group_n = args.group_n;
  job.groups = num_groups(args.k, args.group_k);
  job.group_columns = static_cast<uint32_t>((args.group_k == 0 ? padded_k(args.k) : args.group_k) / kColumns);
  job.codes = static_cast<uint8_t*>(args.codes);
  job.scales = args.scales;
  job.slots = args.group_n == kTile ? ceil_div(args.n, kTile) * job.groups
                                    : num_panels(args.n) * job.groups * kPanelRows;
  job.non_finite = args.non_finite;
  switch (args.element) {
    case ElementType::kFloat32:
      return quantize_to<ElementType::kFloat32>(args, job, stream);
    case ElementType::kFloat16:
      return quantize_to<ElementType::kFloat16>(args, job, stream);
    default:
      return quantize_to<ElementType::kBFloat16>(args, job, stream);
  }
}

}  // namespace fdq::cuda
