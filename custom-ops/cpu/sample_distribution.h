// The softmax of a row as an ordered list (descending logit, ties to the smaller id) that is never sorted:
// questions about its prefixes are answered by a histogram and by ordering one bucket.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/sample.h"

namespace fdq {

class Distribution {
 public:
  struct Prefix {
    int64_t count;
    double mass;   // sum of weights, the most likely element's being 1
    int32_t last;  // id of its last element
  };

  // x: [vocab] with a maximum above -infinity and no NaN. Keeps grow-only buffers between calls.
  void reset(const SampleKernels& kernels, const float* x, int64_t vocab, float maximum, float temperature);

  // Elements with a weight above 0.
  int64_t count() const { return count_; }
  double mass() const { return mass_; }

  // Elements within `distance` of the maximum, in units of the temperature.
  int64_t count_within(double distance) {
    const double bucket = std::floor(distance * kBucketsPerUnit);
    if (bucket >= kNumBuckets - 1) return count_;
    int64_t within = 0;
    for (int b = 0; b < static_cast<int>(bucket); ++b) within += bins_[static_cast<size_t>(b)].count;
    gather(static_cast<int>(bucket));
    for (const Member& m : members_)
      within += sample_distance(maximum_, m.x, inverse_temperature_) <= distance;
    return within;
  }

  // The shortest prefix for which stop(count, mass) is true; stop must stay true once it is. All elements
  // when it never is.
  template <typename Stop>
  Prefix shortest(const Stop& stop) {
    int64_t count = 0;
    double mass = 0;
    int last_used = 0;
    for (int b = 0; b < kNumBuckets - 1; ++b) {
      const Bin& bin = bins_[static_cast<size_t>(b)];
      if (bin.count == 0) continue;
      last_used = b;
      if (stop(count + bin.count, mass + bin.mass) || count + bin.count == count_) break;
      count += bin.count;
      mass += bin.mass;
    }
    gather(last_used);
    return shortest_of_members(stop, count, mass);
  }

 private:
  struct Bin {
    double mass;
    int64_t count;
  };
  struct Member {
    float x;
    float weight;
    int32_t id;
  };
  static bool before(const Member& a, const Member& b) { return a.x != b.x ? a.x > b.x : a.id < b.id; }

  // Fills members_ with the elements of one bucket.
  void gather(int bucket);

  template <typename Stop>
  Prefix shortest_of_members(const Stop& stop, int64_t count, double mass) {
    constexpr int64_t kSorted = 64;
    auto low = members_.begin(), high = members_.end();
    // The answer's last element is in [low, high).
    while (high - low > kSorted) {
      const auto middle = low + (high - low) / 2;
      std::nth_element(low, middle, high, before);
      double half = 0;
      for (auto m = low; m != middle; ++m) half += m->weight;
      if (stop(count + (middle - low), mass + half)) {
        high = middle;
      } else {
        count += middle - low;
        mass += half;
        low = middle;
      }
    }
    std::sort(low, high, before);
    auto m = low;
    for (;; ++m) {
      ++count;
      mass += m->weight;
      if (stop(count, mass) || m + 1 == high) break;
    }
    return {count, mass, m->id};
  }

  const SampleKernels* kernels_ = nullptr;
  const float* x_ = nullptr;
  int64_t vocab_ = 0;
  float maximum_ = 0;
  float inverse_temperature_ = 1;
  int64_t count_ = 0;
  double mass_ = 0;
  int gathered_ = -1;
  std::vector<Bin> bins_;
  std::vector<Member> members_;
  std::vector<int32_t> indices_;
};

}  // namespace fdq
