#include "addon/score.h"

#include <algorithm>
#include <string>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
#include "addon/thread_pool.h"
#include "fdq/score.h"

namespace fdq::addon {
namespace {

struct LogitRows {
  const float* logits = nullptr;
  int64_t rows = 0;
  int64_t vocab = 0;
  int threads = 1;

  size_t size() const { return static_cast<size_t>(rows) * static_cast<size_t>(vocab); }
};

LogitRows parse_rows(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  LogitRows job;
  job.rows = get_int(object, "rows");
  job.vocab = get_int(object, "vocab");
  if (job.rows < 1 || job.vocab < 1 || job.rows > INT32_MAX || job.vocab > INT32_MAX) {
    throw_type_error(env, "rows and vocab must be at least 1 and 32-bit integers");
  }
  job.threads = std::clamp(get_int32(object, "threads"), 1, 1024);
  const Span<float> logits = get_span<float>(object, "logits", pins);
  if (logits.size != job.size()) throw_type_error(env, "logits must be [rows, vocab]");
  job.logits = logits.data;
  return job;
}

struct ScoreJob : LogitRows {
  const int32_t* targets = nullptr;
  const float* reference = nullptr;
  const uint16_t* compressed = nullptr;
};

ScoreJob parse_score_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  ScoreJob job{parse_rows(object, pins)};
  const Span<int32_t> targets = get_span<int32_t>(object, "targets", pins);
  const auto valid = [&](int32_t id) { return id >= 0 && id < job.vocab; };
  if (targets.size != static_cast<size_t>(job.rows) ||
      !std::all_of(targets.data, targets.data + targets.size, valid)) {
    throw_type_error(env, "targets must have one id below the vocabulary size for each row");
  }
  job.targets = targets.data;
  if (!has(object, "reference")) return job;
  size_t size = 0;
  if (get(object, "reference").As<Napi::TypedArray>().TypedArrayType() == napi_uint16_array) {
    const Span<uint16_t> reference = get_span<uint16_t>(object, "reference", pins);
    job.compressed = reference.data;
    size = reference.size;
  } else {
    const Span<float> reference = get_span<float>(object, "reference", pins);
    job.reference = reference.data;
    size = reference.size;
  }
  if (size != job.size()) throw_type_error(env, "reference must be [rows, vocab]");
  return job;
}

std::vector<RowScore> run_score_job(const ScoreJob& job) {
  std::vector<RowScore> scores(static_cast<size_t>(job.rows));
  shared_pool(job.threads).parallel()(job.rows, [&](int64_t r) {
    const float* row = job.logits + r * job.vocab;
    const auto at = static_cast<size_t>(r);
    if (job.compressed != nullptr) {
      scores[at] = score_row(row, job.compressed + r * job.vocab, job.vocab, job.targets[r]);
    } else {
      const float* reference = job.reference == nullptr ? nullptr : job.reference + r * job.vocab;
      scores[at] = score_row(row, reference, job.vocab, job.targets[r]);
    }
  });
  return scores;
}

Napi::Value scores_to_js(Napi::Env env, std::vector<RowScore>& scores) {
  auto nll = Napi::Float64Array::New(env, scores.size());
  auto divergence = Napi::Float64Array::New(env, scores.size());
  auto agrees = Napi::Uint8Array::New(env, scores.size());
  for (size_t r = 0; r < scores.size(); ++r) {
    nll[r] = scores[r].nll;
    divergence[r] = scores[r].divergence;
    agrees[r] = scores[r].agrees ? 1 : 0;
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("nll", nll);
  object.Set("divergence", divergence);
  object.Set("agrees", agrees);
  return object;
}

struct CompressJob : LogitRows {
  uint16_t* target = nullptr;
};

bool run_compress_job(const CompressJob& job) {
  shared_pool(job.threads).parallel()(job.rows, [&](int64_t r) {
    compress_row(job.logits + r * job.vocab, job.vocab, job.target + r * job.vocab);
  });
  return true;
}

}  // namespace

Napi::Value score_logits(const Napi::CallbackInfo& info) {
  Pins pins(info.Env());
  const ScoreJob job = parse_score_job(info[0].As<Napi::Object>(), pins);
  return AsyncTask<std::vector<RowScore>>::run(
      info.Env(), pins.list(), [job] { return run_score_job(job); }, scores_to_js);
}

Napi::Value compress_logits(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  Pins pins(info.Env());
  CompressJob job{parse_rows(object, pins)};
  const Span<uint16_t> target = get_span<uint16_t>(object, "target", pins);
  if (target.size != job.size()) throw_type_error(info.Env(), "target must be [rows, vocab]");
  job.target = target.data;
  return AsyncTask<bool>::run(
      info.Env(), pins.list(), [job] { return run_compress_job(job); },
      [](Napi::Env env, bool&) { return env.Undefined(); });
}

}  // namespace fdq::addon
