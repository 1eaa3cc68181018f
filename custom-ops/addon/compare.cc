#include "addon/compare.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
#include "addon/packed_matrix.h"
#include "addon/tensor_file.h"
#include "addon/thread_pool.h"
#include "fdq/compare.h"

namespace fdq::addon {
namespace {

struct CompareJob {
  PackedMatrix matrix{};
  ElementType element = ElementType::kFloat32;
  int64_t n = 0;
  int fd = -1;
  int64_t offset = 0;
  Bytes bytes;  // instead of fd
  int threads = 1;
};

struct Comparison {
  Outcome outcome;
  WeightError error;
};

CompareJob parse_compare_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  CompareJob job;
  job.element = parse_element_type(env, get_string(object, "dataType"));
  job.matrix = parse_packed_matrix(object, pins);
  job.n = job.matrix.shape.member_rows[0];
  job.threads = std::clamp(get_int32(object, "threads"), 1, 1024);
  const auto source = get(object, "source").As<Napi::Object>();
  if (has(source, "bytes")) {
    job.bytes = get_bytes(source, "bytes", pins);
    if (job.bytes.size != static_cast<size_t>(job.n * job.matrix.shape.k) * element_size(job.element)) {
      throw_type_error(env, "source.bytes must hold n * k elements");
    }
  } else {
    job.fd = get_int32(source, "fd");
    job.offset = get_int(source, "offset");
  }
  return job;
}

Comparison run_compare_job(const CompareJob& job) {
  const int64_t row_bytes = job.matrix.shape.k * static_cast<int64_t>(element_size(job.element));
  const int64_t bands = ceil_div(job.n, kCompareRows);
  std::vector<WeightError> errors(static_cast<size_t>(bands));
  std::mutex mutex;
  Comparison result;
  shared_pool(job.threads).parallel()(bands, [&](int64_t band) {
    const int64_t first = band * kCompareRows;
    const int64_t rows = std::min(kCompareRows, job.n - first);
    const uint8_t* source = job.bytes.data + (job.bytes.data == nullptr ? 0 : first * row_bytes);
    thread_local std::vector<uint8_t> scratch;
    if (job.bytes.data == nullptr) {
      scratch.resize(static_cast<size_t>(rows * row_bytes));
      const Outcome outcome =
          read_exactly(job.fd, job.offset + first * row_bytes, scratch.data(), rows * row_bytes);
      if (outcome.status != Outcome::kOk) {
        std::lock_guard<std::mutex> lock(mutex);
        result.outcome = outcome;
        return;
      }
      source = scratch.data();
    }
    errors[static_cast<size_t>(band)] = compare_rows(job.matrix, source, job.element, first, rows);
  });
  // In the order of rows: the sums do not depend on the number of threads.
  for (const WeightError& error : errors) result.error.add(error);
  if (job.matrix.shape.group_n == 0 && job.matrix.shape.block_k == 0 && result.error.sum_r2 == 0) {
    result.error.zero_scales = 1;
  }
  return result;
}

Napi::Value comparison_to_js(Napi::Env env, Comparison& comparison) {
  Napi::Object object = outcome_to_js(env, comparison.outcome);
  if (comparison.outcome.status != Outcome::kOk) return object;
  const WeightError& error = comparison.error;
  const auto set = [&](const char* key, double value) { object.Set(key, Napi::Number::New(env, value)); };
  set("sumW2", error.sum_w2);
  set("sumR2", error.sum_r2);
  set("sumWr", error.sum_wr);
  set("sumE2", error.sum_e2);
  set("maxAbs", error.max_abs);
  set("saturated", static_cast<double>(error.saturated));
  set("zeroScales", static_cast<double>(error.zero_scales));
  return object;
}

}  // namespace

Napi::Value compare_weight(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  Pins pins(info.Env());
  CompareJob job = parse_compare_job(object, pins);
  return AsyncTask<Comparison>::run(
      info.Env(), pins.list(), [job] { return run_compare_job(job); }, comparison_to_js);
}

}  // namespace fdq::addon
