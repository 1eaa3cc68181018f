#include "cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/sample_distribution.h"

namespace fdq {
namespace {

constexpr float kNever = -INFINITY;

// The finalizer of SplitMix64 (Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Number `counter` of the SplitMix64 stream that begins at the mixed seed, as a double in [0, 1).
double uniform(uint64_t seed, uint64_t counter) {
  const uint64_t bits = mix(mix(seed) + (counter + 1) * 0x9e3779b97f4a7c15u);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

struct Scratch {
  std::vector<float> logits;    // [vocab] after masks, bias and penalties
  std::vector<int32_t> counts;  // [vocab] of output tokens, all 0 between calls
  std::vector<int32_t> indices;
  Distribution distribution;
};
thread_local Scratch t_scratch;

struct Span {
  const int32_t* data;
  int64_t count;
  const int32_t* begin() const { return data; }
  const int32_t* end() const { return data + count; }
};

bool changes_logits(const SampleParams& p) {
  return p.num_allowed > 0 || p.num_banned > 0 || p.num_bias > 0 || p.repetition_penalty != 1.0f ||
         p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f;
}

void apply_penalties(const SampleParams& p, int64_t vocab, Scratch* scratch) {
  constexpr int32_t kSeen = 1 << 30;
  std::vector<float>& x = scratch->logits;
  std::vector<int32_t>& counts = scratch->counts;
  if (static_cast<int64_t>(counts.size()) < vocab) counts.resize(static_cast<size_t>(vocab), 0);
  const Span prompt{p.prompt_ids, p.num_prompt_ids}, output{p.output_ids, p.num_output_ids};
  const auto inside = [&](int32_t id) { return id >= 0 && id < vocab; };
  const auto penalize = [&](int32_t id) {
    if (!inside(id) || (counts[static_cast<size_t>(id)] & kSeen) != 0) return;
    counts[static_cast<size_t>(id)] |= kSeen;
    float& logit = x[static_cast<size_t>(id)];
    if (logit != kNever) logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
  };
  if (p.repetition_penalty != 1.0f) {
    for (int32_t id : prompt) penalize(id);
    for (int32_t id : output) penalize(id);
    for (int32_t id : prompt) {
      if (inside(id)) counts[static_cast<size_t>(id)] = 0;
    }
    for (int32_t id : output) {
      if (inside(id)) counts[static_cast<size_t>(id)] = 0;
    }
  }
  if (p.frequency_penalty == 0.0f && p.presence_penalty == 0.0f) return;
  for (int32_t id : output) {
    if (inside(id)) ++counts[static_cast<size_t>(id)];
  }
  for (int32_t id : output) {
    if (!inside(id) || counts[static_cast<size_t>(id)] == 0) continue;
    const auto times = static_cast<float>(counts[static_cast<size_t>(id)]);
    counts[static_cast<size_t>(id)] = 0;
    x[static_cast<size_t>(id)] -= p.frequency_penalty * times;
    x[static_cast<size_t>(id)] -= p.presence_penalty;
  }
}

// In vLLM's order: masks, bias, repetition, frequency and presence.
const float* change_logits(const float* logits, int64_t vocab, const SampleParams& p, Scratch* scratch) {
  if (!changes_logits(p)) return logits;
  std::vector<float>& x = scratch->logits;
  const auto inside = [&](int32_t id) { return id >= 0 && id < vocab; };
  if (p.num_allowed > 0) {
    x.assign(static_cast<size_t>(vocab), kNever);
    for (int32_t id : Span{p.allowed_ids, p.num_allowed}) {
      if (inside(id)) x[static_cast<size_t>(id)] = logits[id];
    }
  } else {
    x.assign(logits, logits + vocab);
  }
  for (int32_t id : Span{p.banned_ids, p.num_banned}) {
    if (inside(id)) x[static_cast<size_t>(id)] = kNever;
  }
  for (int64_t i = 0; i < p.num_bias; ++i) {
    if (inside(p.bias_ids[i])) x[static_cast<size_t>(p.bias_ids[i])] += p.bias_values[i];
  }
  apply_penalties(p, vocab, scratch);
  return x.data();
}

int32_t draw(const SampleKernels& kernels, const float* x, int64_t vocab, const SampleParams& p,
             Scratch* scratch) {
  const RowScan scan = kernels.scan(x, vocab);
  if (scan.has_nan || scan.maximum == kNever) return -1;
  if (p.temperature <= 0.0f) return static_cast<int32_t>(kernels.find(x, vocab, scan.maximum));
  Distribution& distribution = scratch->distribution;
  distribution.reset(kernels, x, vocab, scan.maximum, p.temperature);
  Distribution::Prefix kept{distribution.count(), distribution.mass(), -1};
  if (p.top_k > 0 && p.top_k < kept.count) {
    kept = distribution.shortest([&](int64_t count, double) { return count >= p.top_k; });
  }
  if (p.top_p < 1.0f) {
    // Compared in float32: one of ten equal tokens has the 0.1 that a top_p of 0.1 asks for.
    const double total = kept.mass;
    const auto nucleus = distribution.shortest(
        [&](int64_t, double mass) { return static_cast<float>(mass / total) >= p.top_p; });
    if (nucleus.count < kept.count) kept = nucleus;
  }
  if (p.min_p > 0.0f) {
    // A relative probability that rounds to 1 in double precision counts as 1.
    const double distance = std::max(0.0, -std::log(static_cast<double>(p.min_p))) + 0x1p-54;
    const int64_t likely = distribution.count_within(distance);
    if (likely < kept.count) {
      kept = distribution.shortest([&](int64_t count, double) { return count >= likely; });
    }
  }
  const double target = uniform(p.seed, p.counter) * kept.mass;
  const auto drawn =
      distribution.shortest([&](int64_t count, double mass) { return mass > target || count >= kept.count; });
  return drawn.last;
}

// The raw row: what logprobs and ranks are about.
struct RawRow {
  const SampleKernels& kernels;
  const float* x;
  int64_t vocab;
  float maximum;
  double log_sum;  // of exp(x - maximum)

  float logprob(float logit) const {
    const double above = logit == maximum ? 0.0 : static_cast<double>(logit) - static_cast<double>(maximum);
    return static_cast<float>(above - log_sum);
  }
  int32_t rank(int32_t id) const {
    int64_t above = 0, equal = 0, unused = 0;
    kernels.count(x, vocab, x[id], &above, &unused);
    kernels.count(x, id, x[id], &unused, &equal);
    return static_cast<int32_t>(above + equal + 1);
  }
};

void report_top(const RawRow& row, int32_t num_top, Scratch* scratch, int32_t* ids, float* logprobs) {
  const auto before = [&](int32_t a, int32_t b) {
    return row.x[a] != row.x[b] ? row.x[a] > row.x[b] : a < b;
  };
  const int64_t kept = std::min<int64_t>(num_top, row.vocab);
  // ids is a heap whose front is the least likely of the best so far.
  for (int64_t i = 0; i < kept; ++i) ids[i] = static_cast<int32_t>(i);
  std::make_heap(ids, ids + kept, before);
  scratch->indices.resize(kSampleBlock);
  for (int64_t start = kept; start < row.vocab && kept > 0; start += kSampleBlock) {
    const int64_t n = std::min<int64_t>(kSampleBlock, row.vocab - start);
    const float limit = std::nextafter(row.x[ids[0]], INFINITY);
    const int64_t found = row.kernels.collect(row.x + start, n, limit, INFINITY, scratch->indices.data());
    for (int64_t i = 0; i < found; ++i) {
      const auto id = static_cast<int32_t>(start + scratch->indices[static_cast<size_t>(i)]);
      if (!before(id, ids[0])) continue;
      std::pop_heap(ids, ids + kept, before);
      ids[kept - 1] = id;
      std::push_heap(ids, ids + kept, before);
    }
  }
  std::sort_heap(ids, ids + kept, before);
  for (int64_t i = 0; i < kept; ++i) logprobs[i] = row.logprob(row.x[ids[i]]);
  std::fill(ids + kept, ids + num_top, -1);
  std::fill(logprobs + kept, logprobs + num_top, kNever);
}

}  // namespace

SampleResult sample_row_with(const SampleKernels& kernels, float* logits, int64_t vocab,
                             const SampleParams& params, int32_t* top_ids, float* top_logprobs) {
  const SampleResult nothing{-1, kNever, 0};
  Scratch& scratch = t_scratch;
  const RowScan scan = kernels.scan(logits, vocab);
  if (scan.has_nan || scan.maximum == kNever) {
    std::fill(top_ids, top_ids + params.num_top, -1);
    std::fill(top_logprobs, top_logprobs + params.num_top, kNever);
    return nothing;
  }
  const RawRow row{kernels, logits, vocab, scan.maximum,
                   std::log(kernels.sum_exp(logits, vocab, scan.maximum))};
  if (params.num_top > 0) report_top(row, params.num_top, &scratch, top_ids, top_logprobs);
  int32_t id = params.target;
  if (id < 0) id = draw(kernels, change_logits(logits, vocab, params, &scratch), vocab, params, &scratch);
  if (id < 0 || id >= vocab) return nothing;
  return {id, row.logprob(logits[id]), row.rank(id)};
}

const SampleKernels& sample_kernels() {
  static const SampleKernels kernels = [] {
    const Isa isa = detect_isa();
    if (isa >= Isa::kAvx512) return sample_kernels_avx512();
    return isa == Isa::kAvx2 ? sample_kernels_avx2() : sample_kernels_scalar();
  }();
  return kernels;
}

SampleResult sample_row(float* logits, int64_t vocab, const SampleParams& params, int32_t* top_ids,
                        float* top_logprobs) {
  return sample_row_with(sample_kernels(), logits, vocab, params, top_ids, top_logprobs);
}

}  // namespace fdq
