#include "cpu/restore.h"

#include <algorithm>
#include <array>

#include "cpu/code_values.h"

namespace fdq {
namespace {

std::array<float, 256> list_values(WeightFormat format) {
  std::array<float, 256> values{};
  for (int code = 0; code < 1 << 8 / codes_per_byte(format); ++code) {
    values[static_cast<size_t>(code)] = code_to_float(format, static_cast<uint8_t>(code));
  }
  return values;
}

// One row of a panel.
class RowRestorer {
 public:
  RowRestorer(const RestoreSource& source, const std::array<float, 256>& values, int64_t row)
      : source_(source),
        shape_(source.matrix.shape),
        values_(values),
        row_(row),
        panel_(row / kPanelRows),
        lane_(row % kPanelRows),
        groups_(num_groups(shape_.k, shape_.group_k)),
        group_k_(shape_.group_k == 0 ? shape_.k : shape_.group_k),
        codes_(source.matrix.weight + panel_ * panel_bytes(shape_.format, shape_.k) + lane_ * 2) {}

  void run(float* target) const {
    const int64_t unit = shape_.block_k == 0 ? group_k_ : std::min<int64_t>(shape_.block_k, group_k_);
    for (int64_t first = 0; first < shape_.k; first += unit) {
      restore_unit(first, std::min(shape_.k, first + unit), target);
    }
  }

 private:
  // Columns that share all scales.
  void restore_unit(int64_t first, int64_t end, float* target) const {
    const int64_t group = first / group_k_;
    const int64_t place = (panel_ * groups_ + group) * kPanelRows + lane_;
    const float scale = scale_of(group, place);
    const float block = block_of(first);
    const float zero = source_.zero_points == nullptr ? 0.0f : static_cast<float>(source_.zero_points[place]);
    const int per_byte = codes_per_byte(shape_.format);
    const int bits = 8 / per_byte;
    const int mask = (1 << bits) - 1;
    const int shift = per_byte == 4 ? 3 : per_byte;  // the two bytes of a row hold 2 * per_byte columns
    const int32_t* order = source_.column_order;
    for (int64_t k = first; k < end; ++k) {
      const int64_t within = k & ((1 << shift) - 1);
      const uint8_t byte = codes_[(k >> shift) * kPanelRows * 2 + (within & 1)];
      const float value = values_[static_cast<size_t>(byte >> (within >> 1) * bits & mask)] - zero;
      target[order == nullptr ? k : order[k]] = value * block * scale;
    }
  }

  float scale_of(int64_t group, int64_t place) const {
    const float* scales = source_.matrix.scales;
    switch (shape_.group_n) {
      case kTile:
        return scales[row_ / kTile * groups_ + group];
      case 1:
        return scales[place];
      case 0:
        return scales[0];
      default:
        return 1.0f;
    }
  }

  float block_of(int64_t column) const {
    if (shape_.block_k == 0) return 1.0f;
    const int64_t across = num_blocks(shape_.k, shape_.block_k);
    const int64_t index = (panel_ * across + column / shape_.block_k) * kPanelRows + lane_;
    const int64_t bytes = block_scale_bytes(shape_.block_type);
    return block_scale_to_float(shape_.block_type, source_.matrix.block_scales + index * bytes);
  }

  const RestoreSource& source_;
  const WeightShape& shape_;
  const std::array<float, 256>& values_;
  int64_t row_, panel_, lane_, groups_, group_k_;
  const uint8_t* codes_;
};

}  // namespace

void restore_rows(const RestoreSource& source, int64_t first_row, int64_t rows, float* target) {
  const WeightShape& shape = source.matrix.shape;
  const std::array<float, 256> values = list_values(shape.format);
  for (int64_t row = 0; row < rows; ++row) {
    RowRestorer(source, values, first_row + row).run(target + row * shape.k);
  }
}

}  // namespace fdq
