// What an emulated tensor map holds in its 128 bytes.
#pragma once

#include <cstdint>

namespace fdq::emu {

constexpr uint64_t kMapMagic = 0x66647120746d6170ull;

struct EncodedMap {
  uint64_t magic;
  uint64_t base, rows, columns, row_bytes;
  uint32_t box_rows, box_columns;
  uint32_t element_bytes, swizzle_bytes;
};
static_assert(sizeof(EncodedMap) <= 128);

}  // namespace fdq::emu
