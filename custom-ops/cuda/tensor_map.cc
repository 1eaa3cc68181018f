#include "cuda/tensor_map.h"

#include <cstring>

#ifdef FDQ_CUDA_EMULATE
#include "cuda/emulator/map.h"
#else
#include <cuda.h>
#include <cuda_runtime.h>
#endif

namespace fdq::cuda {
namespace {

constexpr uint32_t kMaxBox = 256;

Error check(const TensorMapSpec& spec) {
  const auto element = static_cast<uint64_t>(map_element_bytes(spec.element));
  const uint64_t width = spec.box_columns * element;
  if (reinterpret_cast<uintptr_t>(spec.base) % 16 != 0)
    return "a matrix for TMA must start at a multiple of 16";
  if (spec.row_bytes % 16 != 0) return "rows of a matrix for TMA must be multiples of 16 bytes apart";
  if (spec.rows == 0 || spec.columns == 0) return "a matrix for TMA must not be empty";
  if (spec.box_rows == 0 || spec.box_rows > kMaxBox || spec.box_columns == 0 || spec.box_columns > kMaxBox) {
    return "a TMA box has 1 to 256 rows and columns";
  }
  if (width % 16 != 0) return "rows of a TMA box must be multiples of 16 bytes";
  if (spec.swizzle != Swizzle::kNone && width != static_cast<uint64_t>(swizzle_bytes(spec.swizzle))) {
    return "rows of a swizzled TMA box must be as wide as the swizzle";
  }
  return nullptr;
}

#ifndef FDQ_CUDA_EMULATE

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, so that libfdq_cuda.so does not need libcuda.so.1 to load.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  constexpr unsigned kSinceCuda = 12000;
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSinceCuda,
                                                              cudaEnableDefault, &found);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  const bool is_found = status == cudaSuccess && found == cudaDriverEntryPointSuccess;
  return is_found ? reinterpret_cast<Encode>(function) : nullptr;
}

CUtensorMapDataType data_type(MapElement element) {
  switch (element) {
    case MapElement::kByte:
      return CU_TENSOR_MAP_DATA_TYPE_UINT8;
    case MapElement::kBFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case MapElement::kFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case MapElement::kWord:
      return CU_TENSOR_MAP_DATA_TYPE_UINT32;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

CUtensorMapSwizzle swizzle_mode(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::k32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::k64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k128:
      return CU_TENSOR_MAP_SWIZZLE_128B;
    default:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

Error encode(const TensorMapSpec& spec, TensorMap* map) {
  static const Encode function = find_encode();
  if (function == nullptr) return "the CUDA driver has no cuTensorMapEncodeTiled: it is older than CUDA 12.0";
  const cuuint64_t extent[2] = {spec.columns, spec.rows};
  const cuuint64_t stride[1] = {spec.row_bytes};
  const cuuint32_t box[2] = {spec.box_columns, spec.box_rows};
  const cuuint32_t element_stride[2] = {1, 1};
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));
  const CUresult status =
      function(reinterpret_cast<CUtensorMap*>(map), data_type(spec.element), 2, const_cast<void*>(spec.base),
               extent, stride, box, element_stride, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_mode(spec.swizzle),
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return status == CUDA_SUCCESS ? nullptr : "cuTensorMapEncodeTiled refused the matrix";
}

#else

Error encode(const TensorMapSpec& spec, TensorMap* map) {
  emu::EncodedMap encoded{};
  encoded.magic = emu::kMapMagic;
  encoded.base = reinterpret_cast<uintptr_t>(spec.base);
  encoded.rows = spec.rows;
  encoded.columns = spec.columns;
  encoded.row_bytes = spec.row_bytes;
  encoded.box_rows = spec.box_rows;
  encoded.box_columns = spec.box_columns;
  encoded.element_bytes = static_cast<uint32_t>(map_element_bytes(spec.element));
  encoded.swizzle_bytes = static_cast<uint32_t>(swizzle_bytes(spec.swizzle));
  std::memcpy(map, &encoded, sizeof encoded);
  return nullptr;
}

#endif

}  // namespace

Error make_tensor_map(const TensorMapSpec& spec, TensorMap* map) {
  const Error error = check(spec);
  return error != nullptr ? error : encode(spec, map);
}

}  // namespace fdq::cuda
