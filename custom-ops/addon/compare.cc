#include "addon/compare.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
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

WeightFormat parse_quantized_format(Napi::Env env, const std::string& name) {
  if (name == "int8") return WeightFormat::kInt8;
  if (name == "int4") return WeightFormat::kInt4;
  if (name == "int2") return WeightFormat::kInt2;
  if (name == "nf4") return WeightFormat::kNF4;
  if (name == "e2m1") return WeightFormat::kE2M1;
  if (name == "e4m3") return WeightFormat::kE4M3;
  throw_type_error(env, "format must be int8, int4, int2, nf4, e2m1 or e4m3");
}

BlockScaleType parse_block_type(Napi::Env env, const std::string& name) {
  if (name == "e4m3") return BlockScaleType::kE4M3;
  if (name == "e8m0") return BlockScaleType::kE8M0;
  if (name == "bfloat16") return BlockScaleType::kBFloat16;
  throw_type_error(env, "block.type must be e4m3, e8m0 or bfloat16");
}

void check_shape(Napi::Env env, const WeightShape& shape) {
  const int64_t n = shape.member_rows[0];
  if (n < 1 || shape.k < 1 || n > (int64_t{1} << 40) / shape.k)
    throw_type_error(env, "n and k are out of range");
  const bool rows = shape.group_n >= -1 && shape.group_n <= 1 && shape.group_k >= 0;
  const bool tiles = shape.group_n == kTile && shape.group_k == kTile;
  if (!rows && !tiles) throw_type_error(env, "groupN must be -1, 0 or 1, or 128 with groupK 128");
  if (shape.group_n != 1 && !tiles && shape.group_k != 0)
    throw_type_error(env, "groupK must be 0 with this groupN");
  if (shape.block_k != 0 && (tiles || shape.group_k % shape.block_k != 0)) {
    throw_type_error(env, "blocks must divide the groups");
  }
}

CompareJob parse_compare_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  CompareJob job;
  WeightShape& shape = job.matrix.shape;
  job.element = parse_element_type(env, get_string(object, "dataType"));
  job.n = get_int(object, "n");
  shape.member_rows = {job.n};
  shape.k = get_int(object, "k");
  shape.format = parse_quantized_format(env, get_string(object, "format"));
  shape.group_n = get_int32(object, "groupN");
  shape.group_k = get_int32(object, "groupK");
  if (has(object, "block")) {
    const auto block = get(object, "block").As<Napi::Object>();
    shape.block_k = get_int32(block, "columns");
    shape.block_type = parse_block_type(env, get_string(block, "type"));
    if (shape.block_k < 1) throw_type_error(env, "block.columns must be positive");
  }
  check_shape(env, shape);
  job.threads = std::clamp(get_int32(object, "threads"), 1, 1024);
  const Span<uint8_t> weight = get_span<uint8_t>(object, "weight", pins);
  const Span<float> scales = get_span<float>(object, "scales", pins);
  Span<uint8_t> blocks;
  if (has(object, "blockScales")) blocks = get_span<uint8_t>(object, "blockScales", pins);
  if (weight.size != static_cast<size_t>(packed_weight_bytes(shape)) ||
      scales.size != static_cast<size_t>(packed_scale_count(shape)) ||
      blocks.size != static_cast<size_t>(packed_block_scale_bytes(shape))) {
    throw_type_error(env, "weight, scales and blockScales must have exactly the size of n, k and the format");
  }
  job.matrix.weight = weight.data;
  job.matrix.scales = scales.data;
  job.matrix.block_scales = blocks.data;
  const auto source = get(object, "source").As<Napi::Object>();
  if (has(source, "bytes")) {
    job.bytes = get_bytes(source, "bytes", pins);
    if (job.bytes.size != static_cast<size_t>(job.n * shape.k) * element_size(job.element)) {
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
