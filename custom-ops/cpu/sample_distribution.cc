#include "cpu/sample_distribution.h"

#include <cfloat>

namespace fdq {

void Distribution::reset(const SampleKernels& kernels, const float* x, int64_t vocab, float maximum,
                         float temperature) {
  kernels_ = &kernels;
  x_ = x;
  vocab_ = vocab;
  maximum_ = maximum;
  inverse_temperature_ = std::min(1.0f / std::min(temperature, FLT_MAX), FLT_MAX);
  gathered_ = -1;
  bins_.assign(static_cast<size_t>(kNumBuckets), Bin{0, 0});
  float weights[kSampleBlock];
  int32_t buckets[kSampleBlock];
  for (int64_t i = 0; i < vocab; i += kSampleBlock) {
    const int64_t n = std::min<int64_t>(kSampleBlock, vocab - i);
    kernels.weigh(x + i, n, maximum, inverse_temperature_, weights, buckets);
    for (int64_t j = 0; j < n; ++j) {
      Bin& bin = bins_[static_cast<size_t>(buckets[j])];
      bin.mass += weights[j];
      ++bin.count;
    }
  }
  count_ = 0;
  mass_ = 0;
  for (size_t b = 0; b + 1 < bins_.size(); ++b) {
    count_ += bins_[b].count;
    mass_ += bins_[b].mass;
  }
}

void Distribution::gather(int bucket) {
  if (gathered_ == bucket) return;
  gathered_ = bucket;
  members_.clear();
  indices_.resize(static_cast<size_t>(vocab_));
  // Bounds a little wide; the bucket itself decides.
  constexpr double kSlack = 1e-6;
  const double unit = 1.0 / (static_cast<double>(inverse_temperature_) * kBucketsPerUnit);
  const double top = maximum_;
  const auto low = static_cast<float>(top - (bucket + 1) * unit * (1 + kSlack));
  const auto high = static_cast<float>(top - bucket * unit * (1 - kSlack));
  const int64_t found = kernels_->collect(x_, vocab_, std::nextafter(low, -INFINITY),
                                          std::nextafter(high, INFINITY), indices_.data());
  float values[kSampleBlock];
  float weights[kSampleBlock];
  int32_t buckets[kSampleBlock];
  for (int64_t i = 0; i < found; i += kSampleBlock) {
    const int64_t n = std::min<int64_t>(kSampleBlock, found - i);
    const int32_t* ids = indices_.data() + i;
    for (int64_t j = 0; j < n; ++j) values[j] = x_[ids[j]];
    kernels_->weigh(values, n, maximum_, inverse_temperature_, weights, buckets);
    for (int64_t j = 0; j < n; ++j) {
      if (buckets[j] == bucket) members_.push_back({values[j], weights[j], ids[j]});
    }
  }
}

}  // namespace fdq
