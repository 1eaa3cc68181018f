// Writes keys and values to a quantized KV pool
#include "cpu/kv_codes.h"

#include <cstring>
#include <limits>

namespace fdq {
namespace {

constexpr int64_t kRun = 16;  // entries that are placed together

WeightFormat format_of(KvType type) {
  if (type == KvType::kFp8) return Fp8Code::kFormat;
  return type == KvType::kInt8 ? Int8Code::kFormat : Int4Codes::kFormat;
}

uint8_t join(uint8_t low, uint8_t high) { return static_cast<uint8_t>((low & 15u) | high << 4); }

// Places the codes of entries first .. first + 15.
void place(KvType type, const uint8_t* codes, int64_t first, KvPart part, int offset, int64_t padded,
           uint8_t* record) {
  if (type != KvType::kInt4) {
    if (part == KvPart::kValue) {
      std::memcpy(record + offset * padded + first, codes, kRun);
    } else {
      for (int64_t i = 0; i < kRun; ++i) record[(first + i) * kKvBlockSize + offset] = codes[i];
    }
    return;
  }
  for (int64_t i = 0; i < kRun / 2; ++i) {
    if (part == KvPart::kValue) {
      record[(offset * padded + first) / 2 + i] = join(codes[i], codes[kRun / 2 + i]);
    } else {
      record[(first / 2 + i) * kKvBlockSize + offset] = join(codes[2 * i], codes[2 * i + 1]);
    }
  }
}

}  // namespace

void write_codes(const KvPool& pool, const QuantizeKernels& quantizers, const float* x, KvPart part,
                 int offset, uint8_t* record) {
  const WeightFormat format = format_of(pool.type);
  const int64_t n = pool.head_dim, padded = round_up(n, kRun);
  constexpr uint32_t kInfinity = 0x7f800000;
  const uint32_t magnitude = quantizers.max_magnitude(x, ElementType::kFloat32, n);
  const bool finite = magnitude < kInfinity;
  float amax;
  std::memcpy(&amax, &magnitude, sizeof amax);
  float scale = amax / largest_code(format);
  if (scale == 0.0f) scale = 1.0f;
  if (!finite) scale = std::numeric_limits<float>::quiet_NaN();
  for (int64_t first = 0; first < padded; first += kRun) {
    uint8_t codes[kRun] = {};
    const int64_t rest = n - first, count = rest < kRun ? rest : kRun;
    if (finite) quantizers.encode(x + first, ElementType::kFloat32, count, format, scale, codes);
    place(pool.type, codes, first, part, offset, padded, record);
  }
  std::memcpy(record + kv_code_bytes(pool.type, n) + offset * static_cast<int64_t>(sizeof scale), &scale,
              sizeof scale);
}

}  // namespace fdq
