#include "cpu/repack_stored.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/pack.h"

namespace fdq {
namespace {

// Row of an AWQ word's nibble.
constexpr int kAwqRow[8] = {0, 2, 4, 6, 1, 3, 5, 7};

uint32_t load_word(const uint8_t* source) {
  uint32_t word;
  std::memcpy(&word, source, sizeof word);
  return word;
}

// Nibble j to byte j.
uint64_t spread_nibbles(uint32_t word) {
  uint64_t wide = word;
  wide = (wide | wide << 16) & 0x0000ffff0000ffffu;
  wide = (wide | wide << 8) & 0x00ff00ff00ff00ffu;
  return (wide | wide << 4) & 0x0f0f0f0f0f0f0f0fu;
}

// The 16 rows of a panel, one byte a code, `stride` bytes apart; what is not written stays.
class Panel {
 public:
  explicit Panel(const StoredCodes& codes)
      : codes_(codes),
        stride_(padded_k(codes.k)),
        flip_(codes.offset_binary ? (stored_bits(codes.format) == 4 ? 0x08 : 0x80) : 0),
        bytes_(static_cast<size_t>(kPanelRows * stride_)) {
    if (codes.column_order != nullptr) ordered_.resize(bytes_.size());
  }

  InvalidCode repack(const uint8_t* source, int64_t stride, int64_t first_row, int64_t rows, uint8_t* panel) {
    std::fill(bytes_.begin(), bytes_.end(), uint8_t{0});
    unpack(source, stride, rows);
    if (flip_ != 0) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t k = 0; k < codes_.k; ++k) at(row)[k] ^= flip_;
      }
    }
    uint8_t* packed = bytes_.data();
    if (codes_.column_order != nullptr) {
      reorder(rows);
      packed = ordered_.data();
    }
    const InvalidCode invalid =
        codes_.format == WeightFormat::kE4M3 ? find_nan(first_row, rows) : InvalidCode();
    // e2m1 lies like int4
    const bool nibbles = stored_bits(codes_.format) == 4;
    pack_strip(nibbles ? WeightFormat::kInt4 : codes_.format, packed, stride_, stride_, 0, panel);
    return invalid;
  }

 private:
  uint8_t* at(int64_t row) { return bytes_.data() + row * stride_; }

  void unpack(const uint8_t* source, int64_t stride, int64_t rows) {
    switch (codes_.layout) {
      case CodeLayout::kRows:
        return stored_bits(codes_.format) == 4 ? unpack_nibbles(source, stride, rows)
                                               : unpack_bytes(source, stride, rows);
      case CodeLayout::kGptq:
        return unpack_gptq(source, stride, rows);
      case CodeLayout::kAwq:
        return unpack_awq(source, stride, rows);
    }
  }

  void unpack_bytes(const uint8_t* source, int64_t stride, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(at(row), source + row * stride, static_cast<size_t>(codes_.k));
    }
  }

  void unpack_nibbles(const uint8_t* source, int64_t stride, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* line = source + row * stride;
      uint8_t* out = at(row);
      for (int64_t k = 0; k < codes_.k; ++k) out[k] = k % 2 == 0 ? line[k / 2] & 15 : line[k / 2] >> 4;
    }
  }

  // k is a multiple of the codes of a word.
  void unpack_gptq(const uint8_t* source, int64_t stride, int64_t rows) {
    const int64_t per_word = codes_per_word(codes_.format);
    for (int64_t k = 0; k < codes_.k; k += per_word) {
      const uint8_t* line = source + k / per_word * stride;
      for (int64_t row = 0; row < rows; ++row) {
        if (per_word == 4) {
          std::memcpy(at(row) + k, line + 4 * row, 4);
        } else {
          const uint64_t wide = spread_nibbles(load_word(line + 4 * row));
          std::memcpy(at(row) + k, &wide, 8);
        }
      }
    }
  }

  // n is a multiple of 8.
  void unpack_awq(const uint8_t* source, int64_t stride, int64_t rows) {
    for (int64_t k = 0; k < codes_.k; ++k) {
      const uint8_t* line = source + k * stride;
      for (int64_t row = 0; row < rows; row += 8) {
        const uint32_t word = load_word(line + row / 2);
        for (int j = 0; j < 8; ++j) at(row + kAwqRow[j])[k] = word >> (4 * j) & 15;
      }
    }
  }

  void reorder(int64_t rows) {
    std::fill(ordered_.begin(), ordered_.end(), uint8_t{0});
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* from = at(row);
      uint8_t* to = ordered_.data() + row * stride_;
      for (int64_t k = 0; k < codes_.k; ++k) to[k] = from[codes_.column_order[k]];
    }
  }

  InvalidCode find_nan(int64_t first_row, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) {
      const uint8_t* line = at(row);
      for (int64_t k = 0; k < codes_.k; ++k) {
        if ((line[k] & 0x7f) == 0x7f) return {true, first_row + row, k};
      }
    }
    return InvalidCode();
  }

  const StoredCodes& codes_;
  int64_t stride_;
  uint8_t flip_;
  std::vector<uint8_t> bytes_, ordered_;
};

}  // namespace

InvalidCode repack_codes(const StoredCodes& codes, const uint8_t* source, int64_t stride, int64_t first_row,
                         int64_t rows, uint8_t* weight) {
  Panel panel(codes);
  const int64_t panel_bytes = kPanelRows * padded_k(codes.k) * stored_bits(codes.format) / 8;
  // Bytes from one panel's part of a source line to the next.
  const int64_t step = codes.layout == CodeLayout::kRows   ? kPanelRows * stride
                       : codes.layout == CodeLayout::kGptq ? kPanelRows * 4
                                                           : kPanelRows / 2;
  InvalidCode first;
  for (int64_t row = 0; row < rows; row += kPanelRows) {
    uint8_t* target = weight + (first_row + row) / kPanelRows * panel_bytes;
    const InvalidCode found = panel.repack(source + row / kPanelRows * step, stride, first_row + row,
                                           std::min<int64_t>(kPanelRows, rows - row), target);
    if (found.found && !first.found) first = found;
  }
  return first;
}

}  // namespace fdq
