// Plain signatures of the CUDA kernels: no ONNX Runtime types and no CUDA headers. Pointers are to device
// memory unless said otherwise, `stream` is a cudaStream_t, nothing is allocated and nothing waits, so every
// call with a stream can be captured in a CUDA graph. libfdq_cuda.so exports fdq_cuda_api() and nothing else.
#pragma once

#include <cstdint>

#include "fdq/formats.h"

namespace fdq::cuda {

// ---------------------------------------------------------------------------------------------------------
// Weights on the device. Scales and zero points lie as formats.h says, one scale a tensor repeated for every
// padded row (group_n 1). Codes are the bytes of the CPU's panels, permuted inside each panel of 16 rows, so
// sizes are those of formats.h and repack_weight goes both ways:
//
//   e4m3, kRows: [rows padded to 16][k_padded], row-major.
//   int8, kFragments: [panels][k_padded / 32][32 lanes][16 bytes]. Lane 4 g + t holds, for the A operand of
//     m16n8k16 and of wgmma m64nNk16 (bf16), rows g and g + 8 of the panel. With s = 0, 1 (a step of 16 k)
//     and h = 0, 1, byte j of word 2 s + h of chunk c is
//       code(row g + 8 (j % 2), k = 32 c + 16 s + 8 h + 2 t + j / 2)
//   int4, kFragments: [panels][k_padded / 64][32 lanes][16 bytes]. Word s = 0 .. 3 of chunk c holds eight
//     nibbles; nibble i, counted from the lowest, is with r = i % 2, h = i / 2 % 2
//       code(row g + 8 r, k = 64 c + 16 s + 8 h + 2 t + i / 4)
//     so that (word >> 4 (r + 2 h)) & 0x000f000f is the pair of codes of register r + 2 h of that operand.
enum class Layout { kPanels, kRows, kFragments };

constexpr Layout device_layout(WeightFormat format) {
  return format == WeightFormat::kE4M3 ? Layout::kRows : Layout::kFragments;
}

// One matrix [n, k]; a fused layer is several calls, or one where its members' rows are multiples of 16 (of
// 128 with tiles).
struct Weight {
  WeightFormat format;  // kE4M3, kInt8 or kInt4
  int64_t n, k;
  int group_n, group_k;       // 1 and 0: a scale a row; 1 and a multiple of 32: groups; 128 and 128: tiles
  const void* codes;          // in device_layout(format), 16-byte aligned
  const float* scales;        // group_n 1: [panels][groups][16]; 128: [ceil(n / 128)][ceil(k / 128)]
  const int8_t* zero_points;  // int4: shaped like scales, or null
};

// ---------------------------------------------------------------------------------------------------------
// Every call returns null, or what is wrong: a text that stays valid until the next call of the same thread.
using Error = const char*;

// Which kernel runs. kAuto chooses by the device and the number of tokens; the others are for tests and
// measurements and are refused where the device or the shape does not allow them.
enum class Kernel { kAuto, kStreaming, kWarpgroup, kMma };

// Of a product: blocks of 64 tokens are counted in 16 bits.
constexpr int64_t kMostCallTokens = 65535 * 64;

// x [tokens, k] to codes and scales; byte-identical to the CPU kernels (true division, ties to even, a scale
// of 1 where all values are 0).
//   kE4M3Group128: scales[group * scale_stride + token]; kE4M3Token, kInt8Token: scales[token];
//   kE4M3Static, kInt8Static: static_scale, `scales` is not written.
// Codes from k up to code_stride are 0.
struct ActivationArgs {
  const void* x;  // 16-byte aligned where x_stride allows it; any alignment of an element is right
  ElementType element;
  int64_t tokens, k;
  int64_t x_stride;  // elements
  ActivationRule rule;
  float static_scale;
  void* codes;          // 16-byte aligned
  int64_t code_stride;  // bytes, a multiple of 16, at least k
  float* scales;
  int64_t scale_stride;  // a multiple of 4, at least tokens: TMA reads [groups][scale_stride]
};

// float32 x [tokens, k] rounded to nearest, ties to even; columns from k up to y_stride are 0.
struct ConvertArgs {
  const float* x;  // any alignment of an element; fast where rows are 16-byte aligned
  int64_t tokens, k;
  int64_t x_stride;       // elements
  void* y;                // 16-byte aligned
  ElementType y_element;  // kBFloat16 or kFloat16
  int64_t y_stride;       // elements, a multiple of 8
};

// What the blocks of a call exchange through. One workspace serves every call on a stream, whatever the
// shapes; calls that may overlap need one each.
struct WorkspaceSize {
  int64_t counters, partials;  // bytes
};
struct Workspace {
  uint32_t* counters;  // zero before the first call; every call leaves them zero again
  float* partials;     // anything, 16-byte aligned
  WorkspaceSize size;
};

// y = x W^T with e4m3 on both sides: x's scales as ActivationArgs writes them, W's in tiles (with
// kE4M3Group128) or rows (with kE4M3Token and kE4M3Static). Sums in float32, promoted every 128 of k where
// scales are of groups.
struct Fp8LinearArgs {
  const void* x;          // e4m3 [tokens, x_stride], 16-byte aligned
  const float* x_scales;  // 16-byte aligned where they are of groups
  int64_t x_scale_stride;
  ActivationRule rule;
  float static_scale;
  int64_t tokens;
  int64_t x_stride;   // bytes, a multiple of 16; codes from k up to it are 0
  Weight weight;      // kE4M3
  const float* bias;  // [n] or null
  void* y;            // [tokens, y_stride]
  ElementType y_element;
  int64_t y_stride;     // elements
  Workspace workspace;  // at least of fp8_linear_workspace
  Kernel kernel = Kernel::kAuto;
};

// y = x dequantize(W)^T with int8 or int4 weights; W is (code - zero) * scale. Codes less zero points, which
// must be -8 .. 119 (nothing is checked here), are multiplied as numbers of x's type (exact), sums are
// float32 and are scaled a group at a time. A token's result does not depend on the other tokens, as long as
// the same kernel runs, see weight_only.cu.
struct WeightOnlyArgs {
  const void* x;          // [tokens, x_stride]; fast where x is 16-byte aligned and x_stride a multiple of 8
  ElementType x_element;  // kBFloat16 or kFloat16
  int64_t tokens;
  int64_t x_stride;  // elements
  Weight weight;     // kInt8 or kInt4; scales and zero points 16-byte aligned
  const float* bias;
  void* y;
  ElementType y_element;
  int64_t y_stride;
  Workspace workspace;  // at least of weight_only_workspace
  Kernel kernel = Kernel::kAuto;
};

// Codes between the panels of formats.h and the device layout, out of place. `rows` counts unpadded rows.
struct RepackArgs {
  WeightFormat format;
  int64_t n, k;
  bool to_panels;  // else from them
  const void* source;
  void* target;
};

// Quantizes a matrix on the device, byte-identical to quantize_rows of ops.h (without its search): codes in
// device layout, scales as formats.h. Lowers *non_finite to the row-major index of a value that is not
// finite; then nothing else is right.
struct QuantizeWeightArgs {
  const void* source;  // [n, k] row-major
  ElementType element;
  WeightFormat format;  // kInt8, kInt4 or kE4M3
  int64_t n, k;
  int group_n, group_k;  // as in formats.h; group_n 0: one scale, written to all padded rows of `scales`
  void* codes;
  float* scales;
  uint64_t* non_finite;  // [1], UINT64_MAX before the call
};

struct DeviceInfo {
  int major, minor;  // compute capability
  int multiprocessors;
  int shared_bytes_per_block;  // with opt-in
};

// The table of libfdq_cuda.so; a call gets its line here and in api.cc when its kernels exist.
constexpr uint32_t kApiVersion = 3;
struct Api {
  uint32_t version;  // kApiVersion
  // The device is that of the calling thread's CUDA context.
  Error (*device_info)(DeviceInfo* info);  // a host pointer
  Error (*check_device)();                 // null where the library has kernels for it
  // For setting up: these two wait until they are done.
  Error (*fill_zero)(void* memory, int64_t bytes);
  Error (*copy_to_host)(void* host, const void* memory, int64_t bytes);
  Error (*quantize_activations)(const ActivationArgs& args, void* stream);
  Error (*convert_activations)(const ConvertArgs& args, void* stream);
  Error (*repack_weight)(const RepackArgs& args, void* stream);
  Error (*fp8_linear)(const Fp8LinearArgs& args, void* stream);
  // Enough for args.tokens and for fewer, and nothing for what the call refuses. Of pointers only the
  // alignment is looked at.
  WorkspaceSize (*fp8_linear_workspace)(const Fp8LinearArgs& args);
  Error (*weight_only_linear)(const WeightOnlyArgs& args, void* stream);
  WorkspaceSize (*weight_only_workspace)(const WeightOnlyArgs& args);  // as above
  Error (*quantize_weight)(const QuantizeWeightArgs& args, void* stream);
};

// Implemented one file each in custom-ops/cuda.
Error device_info(DeviceInfo* info);
Error check_device();
Error fill_zero(void* memory, int64_t bytes);
Error copy_to_host(void* host, const void* memory, int64_t bytes);
Error quantize_activations(const ActivationArgs& args, void* stream);
Error convert_activations(const ConvertArgs& args, void* stream);
Error fp8_linear(const Fp8LinearArgs& args, void* stream);
WorkspaceSize fp8_linear_workspace(const Fp8LinearArgs& args);
Error weight_only_linear(const WeightOnlyArgs& args, void* stream);
WorkspaceSize weight_only_workspace(const WeightOnlyArgs& args);
Error repack_weight(const RepackArgs& args, void* stream);
Error quantize_weight(const QuantizeWeightArgs& args, void* stream);

}  // namespace fdq::cuda

// Null when the library was built for another version of this header.
extern "C" __attribute__((visibility("default"))) const fdq::cuda::Api* fdq_cuda_api(uint32_t version);
