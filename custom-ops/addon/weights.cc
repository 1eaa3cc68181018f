#include "addon/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
#include "addon/tensor_file.h"
#include "addon/thread_pool.h"
#include "fdq/bandwidth.h"
#include "fdq/ops.h"
#include "ort/linear_size.h"

namespace fdq::addon {
namespace {

// Bytes read and quantized at once by one thread: stays in the L2 cache, large enough for the disk.
constexpr int64_t kChunkBytes = 1 << 19;

Napi::Value to_js(Napi::Env env, Outcome& outcome) { return outcome_to_js(env, outcome); }

int get_threads(const Napi::Object& job) {
  const int64_t threads = get_int(job, "threads");
  if (threads < 1 || threads > 1024) throw_type_error(job.Env(), "threads must be 1 to 1024");
  return static_cast<int>(threads);
}

struct QuantizeJob {
  QuantizeArgs args{};
  int fd = -1;
  int64_t offset = 0;
  Bytes bytes;  // instead of fd
  int threads = 1;
  Isa isa = Isa::kScalar;
};

size_t packed_bytes(const QuantizeArgs& a) {
  const int64_t codes = num_panels(a.n) * kPanelRows * padded_k(a.k);
  return static_cast<size_t>(a.format == WeightFormat::kInt4 ? codes / 2 : codes);
}

size_t canonical_bytes(const QuantizeArgs& a) {
  return static_cast<size_t>(a.format == WeightFormat::kInt4 ? a.n * ceil_div(a.k, 2) : a.n * a.k);
}

size_t scale_floats(const QuantizeArgs& a) {
  if (a.group_n == kTile) return static_cast<size_t>(ceil_div(a.n, kTile) * ceil_div(a.k, kTile));
  const int64_t rows = a.packed ? num_panels(a.n) * kPanelRows : a.n;
  return static_cast<size_t>(rows * num_groups(a.k, a.group_k));
}

QuantizeJob parse_quantize_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  QuantizeJob job;
  QuantizeArgs& args = job.args;
  args.element = parse_element_type(env, get_string(object, "dataType"));
  args.n = get_int(object, "n");
  args.k = get_int(object, "k");
  args.format = parse_weight_format(env, get_string(object, "format"));
  args.group_n = get_int32(object, "groupN");
  args.group_k = get_int32(object, "groupK");
  args.packed = get_bool(object, "packed");
  job.threads = get_threads(object);
  job.isa = has(object, "isa") ? get_isa(object) : detect_isa();
  if (args.n < 1 || args.k < 1 || args.n > (int64_t{1} << 40) / args.k) throw_type_error(env, "n and k are out of range");
  if (args.format < WeightFormat::kInt8) throw_type_error(env, "format must be int8, int4 or e4m3");
  const bool tiles = args.group_n == kTile && args.group_k == kTile;
  if (!tiles && (args.group_n != 1 || args.group_k < 0 || args.group_k % 32 != 0)) {
    throw_type_error(env, "groupN and groupK must be 128 and 128, or 1 and a multiple of 32");
  }
  const Span<uint8_t> weight = get_span<uint8_t>(object, "weight", pins);
  const Span<float> scales = get_span<float>(object, "scales", pins);
  if (weight.size != (args.packed ? packed_bytes(args) : canonical_bytes(args)) || scales.size != scale_floats(args)) {
    throw_type_error(env, "weight and scales must have exactly the size of n, k and the format");
  }
  args.weight = weight.data;
  args.scales = scales.data;
  const auto source = get(object, "source").As<Napi::Object>();
  if (has(source, "bytes")) {
    job.bytes = get_bytes(source, "bytes", pins);
    if (job.bytes.size != static_cast<size_t>(args.n * args.k) * element_size(args.element)) {
      throw_type_error(env, "source.bytes must hold n * k elements");
    }
  } else {
    job.fd = get_int32(source, "fd");
    job.offset = get_int(source, "offset");
  }
  return job;
}

Outcome run_quantize_job(const QuantizeJob& job) {
  const QuantizeArgs& whole = job.args;
  const int64_t row_bytes = whole.k * static_cast<int64_t>(element_size(whole.element));
  const int64_t unit = whole.group_n == kTile ? kTile : kPanelRows;
  const int64_t rows = std::max(unit, kChunkBytes / row_bytes / unit * unit);
  const int64_t chunks = ceil_div(whole.n, rows);
  std::mutex mutex;
  Outcome first;  // the failure at the lowest row
  int64_t first_row = whole.n;
  std::atomic<bool> stop{false};
  shared_pool(job.threads).parallel()(chunks, [&](int64_t chunk) {
    if (stop.load(std::memory_order_relaxed)) return;
    QuantizeArgs args = whole;
    args.first_row = chunk * rows;
    args.rows = std::min(rows, whole.n - args.first_row);
    Outcome outcome;
    thread_local std::vector<uint8_t> scratch;
    if (job.bytes.data != nullptr) {
      args.source = job.bytes.data + args.first_row * row_bytes;
    } else {
      scratch.resize(static_cast<size_t>(args.rows * row_bytes));
      outcome = read_exactly(job.fd, job.offset + args.first_row * row_bytes, scratch.data(), args.rows * row_bytes);
      args.source = scratch.data();
    }
    if (outcome.status == Outcome::kOk) {
      const NonFinite found = quantize_rows(args, job.isa);
      if (!found.found) return;
      outcome = {Outcome::kNonFinite, found.row, found.column, 0};
    } else {
      stop.store(true, std::memory_order_relaxed);
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (args.first_row < first_row) {
      first_row = args.first_row;
      first = outcome;
    }
  });
  return first;
}

float widen_one(const uint8_t* source, ElementType from) {
  if (from == ElementType::kFloat32) {
    float value;
    std::memcpy(&value, source, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, source, 2);
  uint32_t bits;
  if (from == ElementType::kBFloat16) {
    bits = static_cast<uint32_t>(half) << 16;
  } else {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
      const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
      return sign != 0 ? -magnitude : magnitude;
    }
    bits = exponent == 31 ? sign | 0x7f800000u | mantissa << 13 : sign | (exponent + 112) << 23 | mantissa << 13;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

Outcome run_read_job(int fd, int64_t offset, int64_t size, Bytes target) {
  return read_exactly(fd, offset, target.data, size);
}

Outcome run_widen_job(int fd, int64_t offset, int64_t size, ElementType from, float addend, Bytes target) {
  std::vector<uint8_t> source(static_cast<size_t>(size));
  Outcome outcome = read_exactly(fd, offset, source.data(), size);
  if (outcome.status != Outcome::kOk) return outcome;
  auto* out = reinterpret_cast<float*>(target.data);
  const size_t step = element_size(from);
  for (size_t i = 0; i < source.size() / step; ++i) out[i] = widen_one(&source[i * step], from) + addend;
  return outcome;
}

}  // namespace

Napi::Value quantize(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  Pins pins(info.Env());
  QuantizeJob job = parse_quantize_job(object, pins);
  return AsyncTask<Outcome>::run(info.Env(), pins.list(), [job] { return run_quantize_job(job); }, to_js);
}

Napi::Value read(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  const Napi::Env env = info.Env();
  const int fd = get_int32(object, "fd");
  const int64_t offset = get_int(object, "offset");
  const int64_t size = get_int(object, "byteLength");
  Pins pins(env);
  const Bytes target = get_bytes(object, "target", pins);
  if (size < 0 || offset < 0) throw_type_error(env, "offset and byteLength must not be negative");
  if (!has(object, "widen")) {
    if (target.size != static_cast<size_t>(size)) throw_type_error(env, "target must hold byteLength bytes");
    return AsyncTask<Outcome>::run(env, pins.list(), [=] { return run_read_job(fd, offset, size, target); }, to_js);
  }
  const auto widen = get(object, "widen").As<Napi::Object>();
  const ElementType from = parse_element_type(env, get_string(widen, "from"));
  const auto addend = static_cast<float>(get_number(widen, "addend"));
  const auto step = static_cast<int64_t>(element_size(from));
  if (size % step != 0 || target.size != static_cast<size_t>(size / step * 4) ||
      reinterpret_cast<uintptr_t>(target.data) % 4 != 0) {
    throw_type_error(env, "target must hold one aligned float32 for each element");
  }
  return AsyncTask<Outcome>::run(
      env, pins.list(), [=] { return run_widen_job(fd, offset, size, from, addend, target); }, to_js);
}

Napi::Value run_linear_job(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  const Napi::Env env = info.Env();
  Pins pins(env);
  LinearWeight weight{};
  weight.shape.format = parse_weight_format(env, get_string(object, "format"));
  weight.shape.member_rows = get_ints(object, "memberRows");
  weight.shape.k = get_int(object, "k");
  weight.shape.group_n = get_int32(object, "groupN");
  weight.shape.group_k = get_int32(object, "groupK");
  Span<uint8_t> data = get_span<uint8_t>(object, "weight", pins);
  Span<float> scales, bias;
  if (has(object, "scales")) scales = get_span<float>(object, "scales", pins);
  if (has(object, "bias")) bias = get_span<float>(object, "bias", pins);
  const char* wrong = check_linear_size(weight.shape, {data.size, scales.size, bias.size});
  if (wrong != nullptr) throw_type_error(env, wrong);
  weight.data = data.data;
  weight.scales = scales.data;
  weight.bias = bias.data;
  const bool rounds = get_string(object, "activation") == "e4m3_group128";
  const bool bf16 = get_string(object, "compute") == "bfloat16";
  const Isa isa = get_isa(object);
  const int threads = get_threads(object);
  const int64_t tokens = get_int(object, "tokens");
  const Span<float> x = get_span<float>(object, "x", pins);
  if (tokens < 1 || tokens > INT32_MAX || x.size != static_cast<size_t>(tokens * weight.shape.k)) {
    throw_type_error(env, "x must be [tokens, k]");
  }
  const int64_t n = total_rows(weight.shape);
  using Output = std::shared_ptr<std::vector<float>>;
  return AsyncTask<Output>::run(
      env, pins.list(),
      [=] {
        auto y = std::make_shared<std::vector<float>>(static_cast<size_t>(tokens * n));
        const std::unique_ptr<LinearPlan, void (*)(LinearPlan*)> plan(
            make_linear_plan(weight, rounds ? ActivationRule::kE4M3Group128 : ActivationRule::kNone,
                             bf16 ? ComputeType::kBFloat16 : ComputeType::kFloat32, isa),
            free_linear_plan);
        run_linear(*plan, x.data, tokens, y->data(), shared_pool(threads).parallel());
        return y;
      },
      [](Napi::Env e, Output& y) -> Napi::Value {
        Napi::Float32Array result = Napi::Float32Array::New(e, y->size());
        std::copy(y->begin(), y->end(), result.Data());
        return result;
      });
}

Napi::Value measure_read_bandwidth(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int threads = info[0].As<Napi::Number>().Int32Value();
  const int64_t size = info[1].As<Napi::Number>().Int64Value();
  if (threads < 1 || threads > 1024 || size < 4096) throw_type_error(env, "threads and byteLength are out of range");
  return AsyncTask<double>::run(
      env, Napi::Object::New(env), [=] { return read_bandwidth(size, shared_pool(threads).parallel()); },
      [](Napi::Env e, double& rate) -> Napi::Value { return Napi::Number::New(e, rate); });
}

}  // namespace fdq::addon
