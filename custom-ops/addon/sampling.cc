#include "addon/sampling.h"

#include <algorithm>
#include <thread>

#include "addon/thread_pool.h"

namespace fdq::addon {
namespace {

template <typename T>
const T* column(const Napi::Object& object, const char* key, size_t rows, Pins& pins) {
  const Span<T> span = get_span<T>(object, key, pins);
  if (span.size < rows) throw_type_error(object.Env(), std::string(key) + " must have one entry a row");
  return span.data;
}

// Every id is used as an index into a logits row.
RaggedIds ragged(const Napi::Object& parent, const char* key, const SamplingBatch& batch, Pins& pins) {
  const int64_t rows = batch.rows;
  const int64_t vocab = batch.vocab;
  const auto object = get(parent, key).As<Napi::Object>();
  const Span<int32_t> starts = get_span<int32_t>(object, "starts", pins);
  const Span<int32_t> ids = get_span<int32_t>(object, "ids", pins);
  bool valid = starts.size > static_cast<size_t>(rows) && starts.data[0] >= 0;
  for (int64_t r = 0; valid && r < rows; ++r) valid = starts.data[r] <= starts.data[r + 1];
  valid = valid && static_cast<size_t>(starts.data[rows]) <= ids.size;
  if (valid) {
    valid = std::all_of(ids.data + starts.data[0], ids.data + starts.data[rows],
                        [vocab](int32_t id) { return id >= 0 && id < vocab; });
  }
  if (!valid) throw_type_error(parent.Env(), std::string(key) + " must be ragged lists of ids below the vocabulary size");
  return {starts.data, ids.data};
}

template <typename Array, typename T>
Napi::Value copy(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

// One pool for any number of rows: a pool for each would leave threads behind for every batch size.
ThreadPool& sampling_pool() { return shared_pool(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))); }

}  // namespace

SamplingBatch parse_sampling_batch(const Napi::Object& object, Pins& pins) {
  SamplingBatch batch{};
  batch.rows = get_int(object, "rows");
  batch.vocab = get_int(object, "vocab");
  if (batch.rows < 1 || batch.vocab < 1 || batch.rows > INT32_MAX || batch.vocab > INT32_MAX) {
    throw_type_error(object.Env(), "rows and vocab must be at least 1 and 32-bit integers");
  }
  const auto rows = static_cast<size_t>(batch.rows);
  batch.temperature = column<float>(object, "temperature", rows, pins);
  batch.top_k = column<int32_t>(object, "topK", rows, pins);
  batch.top_p = column<float>(object, "topP", rows, pins);
  batch.min_p = column<float>(object, "minP", rows, pins);
  batch.repetition_penalty = column<float>(object, "repetitionPenalty", rows, pins);
  batch.presence_penalty = column<float>(object, "presencePenalty", rows, pins);
  batch.frequency_penalty = column<float>(object, "frequencyPenalty", rows, pins);
  batch.seed = column<uint64_t>(object, "seed", rows, pins);
  batch.counter = column<uint64_t>(object, "counter", rows, pins);
  batch.target = column<int32_t>(object, "target", rows, pins);
  batch.num_top = column<int32_t>(object, "numTop", rows, pins);
  batch.prompt_ids = ragged(object, "promptIds", batch, pins);
  batch.output_ids = ragged(object, "outputIds", batch, pins);
  batch.bias_ids = ragged(object, "biasIds", batch, pins);
  batch.banned_ids = ragged(object, "bannedIds", batch, pins);
  batch.allowed_ids = ragged(object, "allowedIds", batch, pins);
  batch.bias_values = column<float>(object, "biasValues", static_cast<size_t>(batch.bias_ids.starts[batch.rows]), pins);
  for (size_t r = 0; r < rows; ++r) {
    if (batch.target[r] >= batch.vocab || batch.num_top[r] < 0 || batch.num_top[r] > batch.vocab) {
      throw_type_error(object.Env(), "target and numTop must be within the vocabulary");
    }
  }
  return batch;
}

SamplingResult sample(float* logits, const SamplingBatch& batch) {
  SamplingResult result;
  const auto rows = static_cast<size_t>(batch.rows);
  result.top_stride = *std::max_element(batch.num_top, batch.num_top + rows);
  result.ids.resize(rows);
  result.ranks.resize(rows);
  result.logprobs.resize(rows);
  result.top_ids.assign(rows * static_cast<size_t>(result.top_stride), -1);
  result.top_logprobs.assign(result.top_ids.size(), 0.0f);
  sampling_pool().parallel()(batch.rows, [&](int64_t r) {
    const auto list = [r](const RaggedIds& ragged, const int32_t** ids, int64_t* count) {
      *ids = ragged.ids + ragged.starts[r];
      *count = ragged.starts[r + 1] - ragged.starts[r];
    };
    SampleParams params{};
    params.temperature = batch.temperature[r];
    params.top_k = batch.top_k[r];
    params.top_p = batch.top_p[r];
    params.min_p = batch.min_p[r];
    params.repetition_penalty = batch.repetition_penalty[r];
    params.presence_penalty = batch.presence_penalty[r];
    params.frequency_penalty = batch.frequency_penalty[r];
    params.seed = batch.seed[r];
    params.counter = batch.counter[r];
    list(batch.prompt_ids, &params.prompt_ids, &params.num_prompt_ids);
    list(batch.output_ids, &params.output_ids, &params.num_output_ids);
    list(batch.bias_ids, &params.bias_ids, &params.num_bias);
    params.bias_values = batch.bias_values + batch.bias_ids.starts[r];
    list(batch.banned_ids, &params.banned_ids, &params.num_banned);
    list(batch.allowed_ids, &params.allowed_ids, &params.num_allowed);
    params.target = batch.target[r];
    params.num_top = batch.num_top[r];
    const auto at = static_cast<size_t>(r);
    const size_t top = at * static_cast<size_t>(result.top_stride);
    const SampleResult drawn =
        sample_row(logits + r * batch.vocab, batch.vocab, params, result.top_ids.data() + top, result.top_logprobs.data() + top);
    result.ids[at] = drawn.id;
    result.ranks[at] = drawn.rank;
    result.logprobs[at] = drawn.logprob;
  });
  return result;
}

Napi::Value sampling_result_to_js(Napi::Env env, SamplingResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("ids", copy<Napi::Int32Array>(env, result.ids));
  object.Set("ranks", copy<Napi::Int32Array>(env, result.ranks));
  object.Set("logprobs", copy<Napi::Float32Array>(env, result.logprobs));
  object.Set("topIds", copy<Napi::Int32Array>(env, result.top_ids));
  object.Set("topLogprobs", copy<Napi::Float32Array>(env, result.top_logprobs));
  object.Set("topStride", Napi::Number::New(env, static_cast<double>(result.top_stride)));
  return object;
}

}  // namespace fdq::addon
