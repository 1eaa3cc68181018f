// The search for a group's scale: the candidate with the smallest squared error, over the largest magnitude's
// scale shrunk in steps of 1/64. A search over clipping ranges by mean squared error without data, as in
// OCTAV (Sakr et al. 2022). int4 starts from the element of the largest magnitude divided by -7, so that it
// falls on the side of the codes that reaches -8. Include after a definition of kSearchLanes; a lane is a
// row.
//
// The error of a row is summed in column order in double precision, each operation rounded once, so that
// every instruction set chooses the same scale. The product of code and scale is exact.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/quantize.h"

namespace fdq {
namespace {

typedef float SearchFloats __attribute__((vector_size(4 * kSearchLanes)));
typedef int32_t SearchInts __attribute__((vector_size(4 * kSearchLanes)));
typedef double SearchDoubles __attribute__((vector_size(8 * kSearchLanes)));
typedef int64_t SearchLongs __attribute__((vector_size(8 * kSearchLanes)));

constexpr int kSearchSteps = 64;  // candidate c is (64 - c) / 64 of the full range

template <WeightFormat F>
constexpr int search_candidates() {
  return F == WeightFormat::kInt4 ? 32 : 48;
}

// [columns][16] values, kSearchLanes of the rows.
template <WeightFormat F>
void search_rows(const float* values, int64_t columns, float* scales) {
  constexpr float kRounding = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
  const SearchFloats zero{};
  SearchFloats largest{}, extreme{}, w;
  for (int64_t k = 0; k < columns; ++k) {
    std::memcpy(&w, values + k * kPanelRows, sizeof w);
    const SearchFloats magnitude = w < zero ? -w : w;
    extreme = magnitude > largest ? w : extreme;
    largest = magnitude > largest ? magnitude : largest;
  }
  const SearchFloats start =
      F == WeightFormat::kInt4 ? extreme / -largest_code(F) : largest / largest_code(F);
  SearchDoubles best{}, best_error = SearchDoubles{} + std::numeric_limits<double>::infinity();
  for (int c = 0; c < search_candidates<F>(); ++c) {
    SearchFloats scale = start * (static_cast<float>(kSearchSteps - c) / kSearchSteps);
    if constexpr (F == WeightFormat::kInt2) {
      // Six significant bits: three times such a bfloat16 is a bfloat16 too.
      SearchInts bits;
      std::memcpy(&bits, &scale, sizeof bits);
      bits = (bits + 0x1ffff + (bits >> 18 & 1)) & ~0x3ffff;
      std::memcpy(&scale, &bits, sizeof bits);
    }
    // What the largest code stands for must not be beyond float32.
    constexpr float kLargest = std::numeric_limits<float>::max();
    const SearchFloats most = scale * (F == WeightFormat::kInt2 ? 3.0f : 8.0f);
    const SearchInts usable = (scale != zero) & (most <= zero + kLargest) & (most >= zero - kLargest);
    scale = usable ? scale : zero + 1.0f;
    const SearchDoubles wide_scale = __builtin_convertvector(scale, SearchDoubles);
    SearchDoubles error{};
    for (int64_t k = 0; k < columns; ++k) {
      std::memcpy(&w, values + k * kPanelRows, sizeof w);
      SearchFloats code = w / scale;
      if constexpr (F == WeightFormat::kInt4) {
        code = code > 7.0f ? zero + 7.0f : code;
        code = code < -8.0f ? zero - 8.0f : code;
        code = (code + kRounding) - kRounding;
      } else {
        const SearchFloats size = (code >= 2.0f) | (code < -2.0f) ? zero + 3.0f : zero + 1.0f;
        code = code >= zero ? size : -size;
      }
      const SearchDoubles distance = __builtin_convertvector(w, SearchDoubles) -
                                     __builtin_convertvector(code, SearchDoubles) * wide_scale;
      error += distance * distance;
    }
    const SearchLongs better = (error < best_error) & __builtin_convertvector(usable, SearchLongs);
    best = better ? wide_scale : best;
    best_error = better ? error : best_error;
  }
  const SearchFloats chosen = __builtin_convertvector(best, SearchFloats);
  std::memcpy(scales, &chosen, sizeof chosen);
}

// A scale is 0 where every candidate is 0.
void search(WeightFormat format, const float* values, int64_t columns, float* scales) {
  for (int row = 0; row < kPanelRows; row += kSearchLanes) {
    if (format == WeightFormat::kInt4) {
      search_rows<WeightFormat::kInt4>(values + row, columns, scales + row);
    } else {
      search_rows<WeightFormat::kInt2>(values + row, columns, scales + row);
    }
  }
}

}  // namespace
}  // namespace fdq
