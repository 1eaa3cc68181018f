// Rows of a quantized matrix as float32: the embedding that a tied output head shares.
#include <algorithm>
#include <array>

#include "cpu/number_formats.h"
#include "fdq/ops.h"

namespace fdq {
namespace {

constexpr int64_t kParallelElements = 1 << 15;  // fewer are decoded faster than threads are woken

float value_of(WeightFormat format, unsigned code) {
  switch (format) {
    case WeightFormat::kInt8:
      return static_cast<float>(static_cast<int8_t>(code));
    case WeightFormat::kInt4:
      return static_cast<float>(nibble_to_int(code));
    case WeightFormat::kInt2:
      return int2_to_float(code);
    case WeightFormat::kNF4:
      return kNF4Values[code & 15u];
    case WeightFormat::kE2M1:
      return e2m1_to_float(code);
    default:
      return e4m3_to_float(static_cast<uint8_t>(code));
  }
}

// Values of all codes; a code is what is left of a byte after a shift.
using Table = std::array<float, 256>;

class Rows {
 public:
  explicit Rows(const LinearWeight& weight) : weight_(weight), shape_(weight.shape) {
    for (unsigned i = 0; i < table_.size(); ++i) table_[i] = value_of(shape_.format, i & mask());
  }

  void decode(int64_t row, float* out) const {
    const Place place = find(row);
    const int pairs = codes_per_byte(shape_.format), bits = 8 / pairs;
    const int64_t unit = shape_.block_k != 0   ? shape_.block_k
                         : shape_.group_k != 0 ? shape_.group_k
                                               : shape_.k;
    const uint8_t* codes = static_cast<const uint8_t*>(weight_.data) +
                           place.panel * panel_bytes(shape_.format, shape_.k) + place.lane * 2;
    for (int64_t start = 0; start < shape_.k; start += unit) {
      const float step = step_at(place, start);
      const int64_t end = std::min(start + unit, shape_.k);
      for (int64_t k = start; k < end; ++k) {
        const unsigned byte = codes[k / (2 * pairs) * 2 * kPanelRows + k % 2];
        out[k] = table_[byte >> (k / 2 % pairs * bits) & mask()] * step;
      }
    }
  }

 private:
  // A row among its panel's, and what its member starts with.
  struct Place {
    int64_t panel, lane;  // of the whole layer
    int64_t member, row;  // of the member
    int64_t first_tile;   // scale of the member, where group_n is 128
  };

  unsigned mask() const { return (1u << (8 / codes_per_byte(shape_.format))) - 1; }

  Place find(int64_t row) const {
    Place place{};
    for (int64_t rows : shape_.member_rows) {
      if (row < rows) break;
      row -= rows;
      place.panel += num_panels(rows);
      place.first_tile += ceil_div(rows, kTile) * ceil_div(shape_.k, kTile);
      ++place.member;
    }
    place.panel += row / kPanelRows;
    place.lane = row % kPanelRows;
    place.row = row;
    return place;
  }

  float step_at(const Place& place, int64_t k) const {
    const int64_t groups = num_groups(shape_.k, shape_.group_k);
    const int64_t group = shape_.group_k == 0 ? 0 : k / shape_.group_k;
    float step = 1.0f;
    if (shape_.group_n == 1) step = weight_.scales[(place.panel * groups + group) * kPanelRows + place.lane];
    if (shape_.group_n == 0) step = weight_.scales[place.member];
    if (shape_.group_n == kTile) step = weight_.scales[place.first_tile + place.row / kTile * groups + group];
    if (shape_.block_k == 0) return step;
    const int64_t blocks = num_blocks(shape_.k, shape_.block_k);
    const int64_t at = (place.panel * blocks + k / shape_.block_k) * kPanelRows + place.lane;
    return block_scale_to_float(shape_.block_type,
                                weight_.block_scales + at * block_scale_bytes(shape_.block_type)) *
           step;
  }

  const LinearWeight& weight_;
  const WeightShape& shape_;
  Table table_;
};

}  // namespace

void gather_rows(const LinearWeight& weight, const int64_t* ids, int64_t count, float* out,
                 const Parallel& parallel) {
  const int64_t k = weight.shape.k;
  const Rows rows(weight);
  const auto decode = [&](int64_t i) { rows.decode(ids[i], out + i * k); };
  if (count == 1 || count * k < kParallelElements) {
    for (int64_t i = 0; i < count; ++i) decode(i);
  } else {
    parallel(count, decode);
  }
}

}  // namespace fdq
