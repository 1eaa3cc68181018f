// The quantizers over a policy with kLanes, load_values, MaxMagnitude and Encoder. Include after the policy.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/quantize.h"

namespace fdq {
namespace {

template <ElementType T>
uint32_t max_magnitude_of(const uint8_t* source, int64_t count) {
  constexpr int64_t kBytes = T == ElementType::kFloat32 ? 4 : 2;
  MaxMagnitude best;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) best.add(load_values<T>(source + i * kBytes));
  if (i < count) {
    alignas(64) uint8_t tail[kLanes * kBytes] = {};
    std::memcpy(tail, source + i * kBytes, static_cast<size_t>((count - i) * kBytes));
    best.add(load_values<T>(tail));
  }
  return best.bits();
}

template <ElementType T, WeightFormat F, int Lowest = lowest_code(F)>
void encode_of(const uint8_t* source, int64_t count, float scale, uint8_t* codes) {
  constexpr int64_t kBytes = T == ElementType::kFloat32 ? 4 : 2;
  const Encoder<F, Lowest> encoder(scale);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) encoder.encode(load_values<T>(source + i * kBytes), codes + i);
  if (i < count) {
    alignas(64) uint8_t tail[kLanes * kBytes] = {};
    uint8_t tail_codes[kLanes];
    std::memcpy(tail, source + i * kBytes, static_cast<size_t>((count - i) * kBytes));
    encoder.encode(load_values<T>(tail), tail_codes);
    std::memcpy(codes + i, tail_codes, static_cast<size_t>(count - i));
  }
}

uint32_t max_magnitude(const void* source, ElementType element, int64_t count) {
  const auto* bytes = static_cast<const uint8_t*>(source);
  if (element == ElementType::kFloat32) return max_magnitude_of<ElementType::kFloat32>(bytes, count);
  if (element == ElementType::kFloat16) return max_magnitude_of<ElementType::kFloat16>(bytes, count);
  return max_magnitude_of<ElementType::kBFloat16>(bytes, count);
}

template <ElementType T>
void encode_format(const uint8_t* source, int64_t count, WeightFormat format, float scale, uint8_t* codes) {
  switch (format) {
    case WeightFormat::kInt8:
      return encode_of<T, WeightFormat::kInt8>(source, count, scale, codes);
    case WeightFormat::kInt4:
      return encode_of<T, WeightFormat::kInt4>(source, count, scale, codes);
    case WeightFormat::kInt2:
      return encode_of<T, WeightFormat::kInt2>(source, count, scale, codes);
    case WeightFormat::kNF4:
      return encode_of<T, WeightFormat::kNF4>(source, count, scale, codes);
    case WeightFormat::kE2M1:
      return encode_of<T, WeightFormat::kE2M1>(source, count, scale, codes);
    default:
      return encode_of<T, WeightFormat::kE4M3>(source, count, scale, codes);
  }
}

void encode(const void* source, ElementType element, int64_t count, WeightFormat format, float scale,
            uint8_t* codes) {
  const auto* bytes = static_cast<const uint8_t*>(source);
  if (element == ElementType::kFloat32) {
    encode_format<ElementType::kFloat32>(bytes, count, format, scale, codes);
  } else if (element == ElementType::kFloat16) {
    encode_format<ElementType::kFloat16>(bytes, count, format, scale, codes);
  } else {
    encode_format<ElementType::kBFloat16>(bytes, count, format, scale, codes);
  }
}

void encode_to_minus_8(const void* source, ElementType element, int64_t count, float scale, uint8_t* codes) {
  const auto* bytes = static_cast<const uint8_t*>(source);
  if (element == ElementType::kFloat32) {
    encode_of<ElementType::kFloat32, WeightFormat::kInt4, -8>(bytes, count, scale, codes);
  } else if (element == ElementType::kFloat16) {
    encode_of<ElementType::kFloat16, WeightFormat::kInt4, -8>(bytes, count, scale, codes);
  } else {
    encode_of<ElementType::kBFloat16, WeightFormat::kInt4, -8>(bytes, count, scale, codes);
  }
}

}  // namespace
}  // namespace fdq
