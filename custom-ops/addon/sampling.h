#pragma once

#include <napi.h>

#include <vector>

#include "addon/napi_util.h"

namespace fdq::addon {

// Columns of SamplingBatch in src/runtime/addon.ts, checked against `rows`.
struct RaggedIds {
  const int32_t* starts;
  const int32_t* ids;
};

struct SamplingBatch {
  int64_t rows, vocab;
  const float *temperature, *top_p, *min_p, *repetition_penalty, *presence_penalty, *frequency_penalty, *bias_values;
  const int32_t *top_k, *target, *num_top;
  const uint64_t *seed, *counter;
  RaggedIds prompt_ids, output_ids, bias_ids, banned_ids, allowed_ids;
};

struct SamplingResult {
  std::vector<int32_t> ids, ranks, top_ids;
  std::vector<float> logprobs, top_logprobs;
  int64_t top_stride = 0;
};

SamplingBatch parse_sampling_batch(const Napi::Object& object, Pins& pins);
// logits: [rows, vocab], modified.
SamplingResult sample(float* logits, const SamplingBatch& batch);
Napi::Value sampling_result_to_js(Napi::Env env, SamplingResult& result);

}  // namespace fdq::addon
