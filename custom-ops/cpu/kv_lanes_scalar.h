// Keys and values of a KV pool as Vec, for any machine.
#pragma once

#include "cpu/kv_codes.h"
#include "cpu/number_formats.h"
#include "cpu/vector_math_scalar.h"

namespace fdq {
namespace {

inline QuantizeKernels kv_quantizers() { return quantize_kernels_scalar(); }

// Entry d of 16 positions.
inline Vec load_keys(const Int8Code* block, int64_t d) {
  return Vec::make([&](int i) { return static_cast<float>(block[d * kKvBlockSize + i].bits); });
}
inline Vec load_keys(const Fp8Code* block, int64_t d) {
  return Vec::make([&](int i) { return e4m3_to_float(block[d * kKvBlockSize + i].bits) / Fp8Code::kUnit; });
}
inline Vec load_keys(const Int4Codes* block, int64_t d) {
  const Int4Codes* row = block + d / 2 * kKvBlockSize;
  return Vec::make([&](int i) { return static_cast<float>(nibble_to_int(row[i].bits >> d % 2 * 4)); });
}

// 16 entries of one position, from the element that holds the first on.
inline Vec load_values(const Int8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Fp8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Int4Codes* row) {
  return Vec::make([&](int i) { return static_cast<float>(nibble_to_int(row[i % 8].bits >> i / 8 * 4)); });
}

}  // namespace
}  // namespace fdq
