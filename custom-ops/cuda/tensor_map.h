// Descriptions of matrices in device memory that TMA reads and writes.
#pragma once

#include <cstdint>

#include "fdq/cuda.h"

namespace fdq::cuda {

// The 128 bytes of a CUtensorMap, aligned as CUDA 13 asks (12 asks for 64). A kernel takes it as
// `const __grid_constant__ TensorMap`.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

enum class MapElement { kByte, kBFloat16, kFloat16, kFloat32, kWord };  // kWord: 4 bytes of anything

enum class Swizzle { kNone, k32, k64, k128 };

// A row-major matrix [rows, columns] and the box [box_rows, box_columns] that one copy moves. What lies
// outside the matrix reads as 0 and is not written.
struct TensorMapSpec {
  const void* base;  // 16-byte aligned
  MapElement element;
  uint64_t rows, columns;
  uint64_t row_bytes;              // of the matrix, a multiple of 16
  uint32_t box_rows, box_columns;  // at most 256; box_columns * element <= the swizzle's width
  Swizzle swizzle;
};

// Host only. Calls cuTensorMapEncodeTiled of the installed driver, found at run time.
Error make_tensor_map(const TensorMapSpec& spec, TensorMap* map);

constexpr int map_element_bytes(MapElement element) {
  if (element == MapElement::kByte) return 1;
  return element == MapElement::kFloat32 || element == MapElement::kWord ? 4 : 2;
}
constexpr int swizzle_bytes(Swizzle swizzle) {
  return swizzle == Swizzle::kNone ? 0 : swizzle == Swizzle::k32 ? 32 : swizzle == Swizzle::k64 ? 64 : 128;
}

}  // namespace fdq::cuda
