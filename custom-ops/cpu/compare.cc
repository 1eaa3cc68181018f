#include "fdq/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/code_values.h"

namespace fdq {
namespace {

constexpr int64_t kRun = 256;  // values decoded at once
constexpr int kLanes = 4;      // sums side by side

// A format's values by code, and where rounding would leave its range.
struct Values {
  std::array<float, 256> of{};
  double above, below;

  explicit Values(WeightFormat format) {
    const int count = 1 << 8 / codes_per_byte(format);
    std::vector<float> sorted;
    for (int code = 0; code < count; ++code) {
      const float value = code_to_float(format, static_cast<uint8_t>(code));
      of[static_cast<size_t>(code)] = value;
      // int8 leaves out the most negative integer, e4m3 has two NaN. int4 has -8 where scales are searched,
      // and needs no code beyond -7 where they are not.
      const bool unused = format == WeightFormat::kInt8 && value < -127;
      if (!unused && !std::isnan(value)) sorted.push_back(value);
    }
    std::sort(sorted.begin(), sorted.end());
    const size_t last = sorted.size() - 1;
    above = sorted[last] + (static_cast<double>(sorted[last]) - sorted[last - 1]) / 2;
    below = sorted[0] - (static_cast<double>(sorted[1]) - sorted[0]) / 2;
  }
};

const Values& values_of(WeightFormat format) {
  static const Values kInt8(WeightFormat::kInt8), kInt4(WeightFormat::kInt4), kE4M3(WeightFormat::kE4M3),
      kInt2(WeightFormat::kInt2), kNF4(WeightFormat::kNF4), kE2M1(WeightFormat::kE2M1);
  switch (format) {
    case WeightFormat::kInt8:
      return kInt8;
    case WeightFormat::kInt4:
      return kInt4;
    case WeightFormat::kInt2:
      return kInt2;
    case WeightFormat::kNF4:
      return kNF4;
    case WeightFormat::kE2M1:
      return kE2M1;
    default:
      return kE4M3;
  }
}

class RowComparer {
 public:
  RowComparer(const PackedMatrix& matrix, const void* source, ElementType element)
      : matrix_(matrix),
        shape_(matrix.shape),
        values_(values_of(shape_.format)),
        source_(static_cast<const uint8_t*>(source)),
        element_(element),
        per_byte_(codes_per_byte(shape_.format)),
        panel_bytes_(panel_bytes(shape_.format, shape_.k)),
        groups_(num_groups(shape_.k, shape_.group_k)),
        group_k_(shape_.group_k == 0 ? shape_.k : shape_.group_k) {
    if (shape_.group_n == kTile) used_tiles_.assign(static_cast<size_t>(groups_), false);
  }

  WeightError run(int64_t first_row, int64_t rows) {
    for (int64_t row = 0; row < rows; ++row) compare_row(first_row + row, row);
    for (bool used : used_tiles_) error_.zero_scales += !used;
    for (int lane = 0; lane < kLanes; ++lane) {
      error_.sum_w2 += w2_[lane];
      error_.sum_r2 += r2_[lane];
      error_.sum_wr += wr_[lane];
      error_.sum_e2 += e2_[lane];
    }
    return error_;
  }

 private:
  void compare_row(int64_t row, int64_t source_row) {
    const bool blocks = shape_.block_k != 0;
    const int64_t unit = blocks ? std::min<int64_t>(shape_.block_k, group_k_) : group_k_;
    for (int64_t k = 0; k < shape_.k; k += unit) {
      const int64_t end = std::min(shape_.k, k + unit);
      const bool used = compare_group(row, source_row, k, end);
      if (blocks || shape_.group_n == 1) {
        error_.zero_scales += !used;
      } else if (shape_.group_n == kTile && used) {
        used_tiles_[static_cast<size_t>(k / kTile)] = true;
      }
    }
  }

  // Columns that share all scales. True when anything but zero is restored.
  bool compare_group(int64_t row, int64_t source_row, int64_t first, int64_t end) {
    const int64_t panel = row / kPanelRows, lane = row % kPanelRows;
    float block = 1.0f;
    if (shape_.block_k != 0) {
      const int64_t across = num_blocks(shape_.k, shape_.block_k);
      const int64_t index = (panel * across + first / shape_.block_k) * kPanelRows + lane;
      block = block_scale_to_float(shape_.block_type,
                                   matrix_.block_scales + index * block_scale_bytes(shape_.block_type));
    }
    const float step = block * scale_of(row, first / group_k_);
    // A searched scale may be negative: then the codes' upper end is the values' lower one.
    const double ends[] = {values_.above * step, values_.below * step};
    const double above = std::max(ends[0], ends[1]), below = std::min(ends[0], ends[1]);
    bool used = false;
    for (int64_t k = first; k < end; k += kRun) {
      const int64_t count = std::min(kRun, end - k);
      decode(panel, lane, k, count);
      load(source_row, k, count);
      for (int64_t i = 0; i < count; ++i) restored_[i] *= step;
      used = add_run(count) || used;
      for (int64_t i = 0; i < count; ++i) {
        error_.saturated += original_[i] > above || original_[i] < below;
      }
    }
    return used;
  }

  bool add_run(int64_t count) {
    float largest = 0;
    double max_abs = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double w = original_[i], r = restored_[i], e = w - r;
      const int64_t lane = i % kLanes;
      w2_[lane] += w * w;
      r2_[lane] += r * r;
      wr_[lane] += w * r;
      e2_[lane] += e * e;
      max_abs = std::max(max_abs, std::fabs(e));
      largest = std::max(largest, std::fabs(restored_[i]));
    }
    error_.max_abs = std::max(error_.max_abs, max_abs);
    return largest > 0;
  }

  float scale_of(int64_t row, int64_t group) const {
    switch (shape_.group_n) {
      case kTile:
        return matrix_.scales[row / kTile * groups_ + group];
      case 1:
        return matrix_.scales[(row / kPanelRows * groups_ + group) * kPanelRows + row % kPanelRows];
      case 0:
        return matrix_.scales[0];
      default:
        return 1.0f;
    }
  }

  // Values of k .. k + count - 1 of one row of a panel.
  void decode(int64_t panel, int64_t lane, int64_t k, int64_t count) {
    const uint8_t* codes = matrix_.weight + panel * panel_bytes_ + lane * 2;
    const int bits = 8 / per_byte_;
    const int mask = (1 << bits) - 1;
    const int shift = per_byte_ == 4 ? 3 : per_byte_;  // the two bytes of a row hold 2 * per_byte_ columns
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = k + i;
      const int64_t within = at & ((1 << shift) - 1);
      const uint8_t byte = codes[(at >> shift) * kPanelRows * 2 + (within & 1)];
      restored_[i] = values_.of[static_cast<size_t>(byte >> (within >> 1) * bits & mask)];
    }
  }

  void load(int64_t row, int64_t k, int64_t count) {
    const int64_t at = row * shape_.k + k;
    if (element_ == ElementType::kFloat32) {
      std::memcpy(original_, source_ + at * 4, static_cast<size_t>(count) * 4);
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, source_ + (at + i) * 2, 2);
      original_[i] = element_ == ElementType::kBFloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
    }
  }

  const PackedMatrix& matrix_;
  const WeightShape& shape_;
  const Values& values_;
  const uint8_t* source_;
  ElementType element_;
  int per_byte_;
  int64_t panel_bytes_, groups_, group_k_;
  std::vector<bool> used_tiles_;
  WeightError error_;
  double w2_[kLanes] = {}, r2_[kLanes] = {}, wr_[kLanes] = {}, e2_[kLanes] = {};
  float original_[kRun], restored_[kRun];
};

}  // namespace

void WeightError::add(const WeightError& other) {
  sum_w2 += other.sum_w2;
  sum_r2 += other.sum_r2;
  sum_wr += other.sum_wr;
  sum_e2 += other.sum_e2;
  max_abs = std::max(max_abs, other.max_abs);
  saturated += other.saturated;
  zero_scales += other.zero_scales;
}

WeightError compare_rows(const PackedMatrix& matrix, const void* source, ElementType element,
                         int64_t first_row, int64_t rows) {
  return RowComparer(matrix, source, element).run(first_row, rows);
}

int64_t packed_weight_bytes(const WeightShape& shape) {
  return num_panels(shape.member_rows[0]) * panel_bytes(shape.format, shape.k);
}

int64_t packed_block_scale_bytes(const WeightShape& shape) {
  const int64_t scales = num_panels(shape.member_rows[0]) * num_blocks(shape.k, shape.block_k) * kPanelRows;
  return scales * block_scale_bytes(shape.block_type);
}

int64_t packed_scale_count(const WeightShape& shape) {
  const int64_t rows = shape.member_rows[0];
  if (shape.group_n < 0) return 0;
  if (shape.group_n == 0) return 1;
  if (shape.group_n == kTile) return ceil_div(rows, kTile) * ceil_div(shape.k, kTile);
  return num_panels(rows) * num_groups(shape.k, shape.group_k) * kPanelRows;
}

}  // namespace fdq
