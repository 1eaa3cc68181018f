// Passes over a row of logits, over Vec (16 lanes). Include after one of vector_math_*.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/sample.h"

namespace fdq {
namespace {

// Missing lanes of the last vector become -infinity, which no pass counts.
Vec load_logits(const float* x, int64_t i, int64_t count) {
  if (count - i >= 16) return Vec::load(x + i);
  const int lanes = static_cast<int>(count - i);
  return Vec::keep(Vec::load_first(x + i, lanes), 0, lanes, -INFINITY);
}

RowScan scan_row(const float* x, int64_t count) {
  Vec top[4];
  for (Vec& t : top) t = Vec::set(-INFINITY);
  uint32_t nan = 0;
  for (int64_t i = 0; i < count; i += 64) {
    for (int j = 0; j < 4 && i + j * 16 < count; ++j) {
      const Vec v = load_logits(x, i + j * 16, count);
      nan |= Vec::is_nan(v);
      top[j] = Vec::max(v, top[j]);
    }
  }
  return {Vec::highest(Vec::max(Vec::max(top[0], top[1]), Vec::max(top[2], top[3]))), nan != 0};
}

// maximum - x, 0 where they are equal even if infinite.
Vec distance(Vec maximum, Vec x) {
  return Vec::select(Vec::equal(maximum, x), Vec::set(0.0f), Vec::sub(maximum, x));
}

double sum_exp(const float* x, int64_t count, float maximum) {
  const Vec top = Vec::set(maximum), zero = Vec::set(0.0f);
  double total = 0;
  for (int64_t i = 0; i < count; i += 64) {
    Vec sum = zero;
    for (int j = 0; j < 4 && i + j * 16 < count; ++j) {
      sum = Vec::add(sum, exp_lanes(Vec::sub(zero, distance(top, load_logits(x, i + j * 16, count)))));
    }
    total += static_cast<double>(Vec::sum(sum));
  }
  return total;
}

void weigh(const float* x, int64_t count, float maximum, float inverse_temperature, float* weights,
           int32_t* buckets) {
  const Vec top = Vec::set(maximum), zero = Vec::set(0.0f);
  const Vec last = Vec::set(static_cast<float>(kNumBuckets - 1));
  for (int64_t i = 0; i < count; i += 16) {
    const Vec d = Vec::mul(distance(top, load_logits(x, i, count)), Vec::set(inverse_temperature));
    const Vec w = exp_lanes(Vec::sub(zero, d));
    Vec bucket = Vec::min(Vec::mul(d, Vec::set(static_cast<float>(kBucketsPerUnit))), last);
    bucket = Vec::select(Vec::greater(w, zero), bucket, last);
    Vec::store(weights + i, w);
    Vec::store_int(buckets + i, bucket);
  }
}

int64_t collect_range(const float* x, int64_t count, float low, float high, int32_t* indices) {
  const Vec least = Vec::set(low), most = Vec::set(high);
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const uint32_t inside = count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1;
    const Vec e = load_logits(x, i, count);
    uint32_t m = (Vec::greater(e, least) | Vec::equal(e, least)) & ~Vec::greater(e, most) & inside;
    for (; m != 0; m &= m - 1) indices[found++] = static_cast<int32_t>(i + __builtin_ctz(m));
  }
  return found;
}

void count_row(const float* x, int64_t count, float value, int64_t* above, int64_t* equal) {
  const Vec v = Vec::set(value);
  int64_t more = 0, same = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const uint32_t inside = count - i >= 16 ? 0xffffu : (1u << (count - i)) - 1;
    const Vec e = load_logits(x, i, count);
    more += __builtin_popcount(Vec::greater(e, v));
    same += __builtin_popcount(Vec::equal(e, v) & inside);
  }
  *above = more;
  *equal = same;
}

int64_t find_value(const float* x, int64_t count, float value) {
  const Vec v = Vec::set(value);
  for (int64_t i = 0; i < count; i += 16) {
    const uint32_t m = Vec::equal(load_logits(x, i, count), v);
    if (m != 0) {
      const int64_t at = i + __builtin_ctz(m);
      return at < count ? at : count;
    }
  }
  return count;
}

DivergenceSums diverge(const float* p, float p_base, const float* q, float q_base, int64_t count) {
  const Vec p_origin = Vec::set(p_base), q_origin = Vec::set(q_base), zero = Vec::set(0.0f);
  DivergenceSums total{0, 0};
  for (int64_t i = 0; i < count; i += 64) {
    Vec mass = zero, weighted = zero;
    for (int j = 0; j < 4 && i + j * 16 < count; ++j) {
      const Vec above = Vec::sub(load_logits(p, i + j * 16, count), p_origin);
      const Vec other = Vec::sub(load_logits(q, i + j * 16, count), q_origin);
      const Vec w = exp_lanes(above);
      mass = Vec::add(mass, w);
      // What has no weight may be infinitely far away.
      const Vec term = Vec::mul(w, Vec::sub(above, other));
      weighted = Vec::add(weighted, Vec::select(Vec::greater(w, zero), term, zero));
    }
    total.mass += static_cast<double>(Vec::sum(mass));
    total.weighted += static_cast<double>(Vec::sum(weighted));
  }
  return total;
}

constexpr SampleKernels kSampleKernels{scan_row,      sum_exp,   weigh,      collect_range,
                                       count_row, find_value, diverge};

}  // namespace
}  // namespace fdq
