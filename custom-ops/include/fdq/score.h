// How likely a model makes a text, and how far its distributions are from those of another model.
#pragma once

#include <cstdint>

namespace fdq {

// Of one row of logits. NaN throughout when it holds a NaN or no finite maximum.
struct RowScore {
  // Negative log likelihood of the target, in nats.
  double nll;
  // sum_v P(v) (ln P(v) - ln Q(v)) in nats, P the reference, Q this row; 0 without a reference.
  double divergence;
  // Lowest index of the largest logit.
  int32_t best;
  // The reference's largest logit has the same lowest index; true without a reference.
  bool agrees;
};

// `reference` may be null; 0 <= target < vocab.
RowScore score_row(const float* logits, const float* reference, int64_t vocab, int64_t target);

// As above with a reference that compress_row wrote.
RowScore score_row(const float* logits, const uint16_t* reference, int64_t vocab, int64_t target);

// The same distribution in 16 bits a logit: logit - largest as binary16, ties to even. The largest is 0 exactly.
// A row score_row would refuse becomes NaN throughout.
void compress_row(const float* logits, int64_t vocab, uint16_t* compressed);

}  // namespace fdq
