#include "addon/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
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

// `block` of a job: { columns, type }.
void parse_block(const Napi::Object& object, BlockScaleType* type, int* columns) {
  if (!has(object, "block")) return;
  const Napi::Value value = get(object, "block");
  if (!value.IsObject()) throw_type_error(object.Env(), "block must be an object");
  const auto block = value.As<Napi::Object>();
  *columns = get_int32(block, "columns");
  if (!parse_block_scale_type(get_string(block, "type"), type) || *type == BlockScaleType::kNone) {
    throw_type_error(object.Env(), "block.type must be e4m3, e8m0 or bfloat16");
  }
}

struct QuantizeJob {
  QuantizeArgs args{};
  float tensor_scale = 0.0f;  // of group_n 0; 0: that of the matrix itself
  int fd = -1;
  int64_t offset = 0;
  Bytes bytes;  // instead of fd
  int threads = 1;
  Isa isa = Isa::kScalar;
};

// Where a job reads which values, and by what means.
void parse_matrix(const Napi::Object& object, QuantizeJob* job, Pins& pins) {
  const Napi::Env env = object.Env();
  QuantizeArgs& args = job->args;
  args.element = parse_element_type(env, get_string(object, "dataType"));
  args.n = get_int(object, "n");
  args.k = get_int(object, "k");
  if (args.n < 1 || args.k < 1 || args.n > (int64_t{1} << 40) / args.k)
    throw_type_error(env, "n and k are out of range");
  job->threads = get_threads(object);
  job->isa = has(object, "isa") ? get_isa(object) : detect_isa();
  const auto source = get(object, "source").As<Napi::Object>();
  if (has(source, "bytes")) {
    job->bytes = get_bytes(source, "bytes", pins);
    if (job->bytes.size != static_cast<size_t>(args.n * args.k) * element_size(args.element)) {
      throw_type_error(env, "source.bytes must hold n * k elements");
    }
  } else {
    job->fd = get_int32(source, "fd");
    job->offset = get_int(source, "offset");
  }
}

// `tensorScale` of a job: what codes and block scales are multiplied with instead of the matrix's own scale.
float parse_tensor_scale(const Napi::Object& object, int group_n) {
  if (!has(object, "tensorScale")) return 0.0f;
  if (group_n != 0) throw_type_error(object.Env(), "tensorScale is for groupN 0");
  const auto scale = static_cast<float>(get_number(object, "tensorScale"));
  if (!std::isfinite(scale) || !(scale > 0.0f))
    throw_type_error(object.Env(), "tensorScale must be finite and above 0 as a float32");
  return scale;
}

// The shape of the parts that the job writes, for their sizes.
WeightShape shape_of(const QuantizeArgs& a) {
  return {a.format, {a.n}, a.k, a.group_n, a.group_k, a.block_type, a.block_k};
}

size_t canonical_scales(const QuantizeArgs& a) {
  if (a.group_n == 1) return static_cast<size_t>(a.n * num_groups(a.k, a.group_k));
  return static_cast<size_t>(linear_scale_count(shape_of(a)));
}

// Null when the quantizer knows the combination.
const char* check_quantize_format(const QuantizeArgs& a) {
  if (is_as_stored(a.format)) return "format must be int8, int4, int2, nf4, e2m1 or e4m3";
  const char* wrong = check_scale_geometry(shape_of(a));
  if (wrong != nullptr) return wrong;
  const bool has_tensor_scale = a.group_n == 0;
  if (a.format == WeightFormat::kE2M1 &&
      a.block_type != (has_tensor_scale ? BlockScaleType::kE4M3 : BlockScaleType::kE8M0)) {
    return "e2m1 is quantized with e4m3 block scales and groupN 0, or with e8m0 ones and groupN -1";
  }
  if (a.format == WeightFormat::kInt2 && a.block_type != BlockScaleType::kBFloat16) {
    return "int2 is quantized with bfloat16 block scales";
  }
  if (a.search && a.format != WeightFormat::kInt2 && (a.format != WeightFormat::kInt4 || a.group_n != 1)) {
    return "search is for int2, and for int4 with groupN 1";
  }
  return nullptr;
}

void parse_parts(const Napi::Object& object, QuantizeArgs& args, Pins& pins) {
  const Span<uint8_t> weight = get_span<uint8_t>(object, "weight", pins);
  const Span<float> scales = get_span<float>(object, "scales", pins);
  Span<uint8_t> block_scales;
  if (has(object, "blockScales")) block_scales = get_span<uint8_t>(object, "blockScales", pins);
  const WeightShape shape = shape_of(args);
  const int64_t weight_bytes = args.packed ? linear_weight_bytes(shape)
                                           : args.n * canonical_row_bytes(args.format, args.k, args.block_k);
  const size_t scale_count =
      args.packed ? static_cast<size_t>(linear_scale_count(shape)) : canonical_scales(args);
  const int64_t block_bytes =
      args.packed ? linear_block_scale_bytes(shape)
                  : args.n * num_blocks(args.k, args.block_k) * block_scale_bytes(args.block_type);
  if (weight.size != static_cast<size_t>(weight_bytes) || scales.size != scale_count ||
      block_scales.size != static_cast<size_t>(block_bytes)) {
    throw_type_error(object.Env(),
                     "weight, scales and blockScales must have exactly the size of n, k and the format");
  }
  args.weight = weight.data;
  args.scales = scales.data;
  args.block_scales = block_scales.data;
}

QuantizeJob parse_quantize_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  QuantizeJob job;
  QuantizeArgs& args = job.args;
  parse_matrix(object, &job, pins);
  args.format = parse_weight_format(env, get_string(object, "format"));
  args.group_n = get_int32(object, "groupN");
  args.group_k = get_int32(object, "groupK");
  parse_block(object, &args.block_type, &args.block_k);
  args.search = has(object, "search") && get_bool(object, "search");
  args.packed = get_bool(object, "packed");
  const char* wrong = check_quantize_format(args);
  if (wrong != nullptr) throw_type_error(env, wrong);
  job.tensor_scale = parse_tensor_scale(object, args.group_n);
  parse_parts(object, args, pins);
  return job;
}

// Runs work(args) for chunks of rows on all threads, each read just before. Returns the failure at the lowest
// row.
template <typename Work>
Outcome for_each_chunk(const QuantizeJob& job, const Work& work) {
  const QuantizeArgs& whole = job.args;
  const int64_t row_bytes = whole.k * static_cast<int64_t>(element_size(whole.element));
  const int64_t unit = whole.group_n == kTile ? kTile : kPanelRows;
  const int64_t rows = std::max(unit, kChunkBytes / row_bytes / unit * unit);
  const int64_t chunks = ceil_div(whole.n, rows);
  std::mutex mutex;
  Outcome first;
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
      outcome = read_exactly(job.fd, job.offset + args.first_row * row_bytes, scratch.data(),
                             args.rows * row_bytes);
      args.source = scratch.data();
    }
    if (outcome.status == Outcome::kOk) {
      const NonFinite found = work(args);
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

struct Magnitude {
  Outcome outcome;
  float largest = 0.0f;
};

// Reads the matrix once for its largest magnitude.
Magnitude find_magnitude(const QuantizeJob& job) {
  std::mutex mutex;
  Magnitude result;
  result.outcome = for_each_chunk(job, [&](const QuantizeArgs& args) {
    float chunk = 0.0f;
    const NonFinite found = measure_rows(args, job.isa, &chunk);
    std::lock_guard<std::mutex> lock(mutex);
    result.largest = std::max(result.largest, chunk);
    return found;
  });
  return result;
}

Napi::Value magnitude_to_js(Napi::Env env, Magnitude& magnitude) {
  Napi::Object object = outcome_to_js(env, magnitude.outcome);
  if (magnitude.outcome.status == Outcome::kOk)
    object.Set("largest", Napi::Number::New(env, static_cast<double>(magnitude.largest)));
  return object;
}

Outcome run_quantize_job(const QuantizeJob& job) {
  if (job.args.group_n == 0) {
    float scale = job.tensor_scale;
    if (scale == 0.0f) {
      const Magnitude magnitude = find_magnitude(job);
      if (magnitude.outcome.status != Outcome::kOk) return magnitude.outcome;
      scale = tensor_scale(job.args.format, magnitude.largest);
    }
    *job.args.scales = scale;
  }
  return for_each_chunk(job, [&](const QuantizeArgs& args) { return quantize_rows(args, job.isa); });
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
    bits =
        exponent == 31 ? sign | 0x7f800000u | mantissa << 13 : sign | (exponent + 112) << 23 | mantissa << 13;
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

Napi::Value measure_magnitude(const Napi::CallbackInfo& info) {
  Pins pins(info.Env());
  QuantizeJob job;
  parse_matrix(info[0].As<Napi::Object>(), &job, pins);
  return AsyncTask<Magnitude>::run(
      info.Env(), pins.list(), [job] { return find_magnitude(job); }, magnitude_to_js);
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
    return AsyncTask<Outcome>::run(
        env, pins.list(), [=] { return run_read_job(fd, offset, size, target); }, to_js);
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

namespace {

ActivationRule get_activation(const Napi::Object& object) {
  const std::string name = get_string(object, "activation");
  ActivationRule rule;
  if (!parse_activation_rule(name, &rule)) throw_type_error(object.Env(), "unknown activation rule " + name);
  return rule;
}

LinearWeight parse_linear_weight(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  LinearWeight weight{};
  weight.shape.format = parse_weight_format(env, get_string(object, "format"));
  weight.shape.member_rows = get_ints(object, "memberRows");
  weight.shape.k = get_int(object, "k");
  weight.shape.group_n = get_int32(object, "groupN");
  weight.shape.group_k = get_int32(object, "groupK");
  parse_block(object, &weight.shape.block_type, &weight.shape.block_k);
  const Span<uint8_t> data = get_span<uint8_t>(object, "weight", pins);
  Span<float> scales, bias;
  Span<uint8_t> block_scales;
  Span<int8_t> zero_points;
  if (has(object, "scales")) scales = get_span<float>(object, "scales", pins);
  if (has(object, "bias")) bias = get_span<float>(object, "bias", pins);
  if (has(object, "blockScales")) block_scales = get_span<uint8_t>(object, "blockScales", pins);
  if (has(object, "zeroPoints")) zero_points = get_span<int8_t>(object, "zeroPoints", pins);
  const char* wrong = check_linear_size(
      weight.shape, {data.size, scales.size, bias.size, block_scales.size, zero_points.size});
  if (wrong == nullptr) wrong = check_zero_points(zero_points.data, zero_points.size);
  if (wrong != nullptr) throw_type_error(env, wrong);
  weight.data = data.data;
  weight.scales = scales.data;
  weight.bias = bias.data;
  weight.block_scales = block_scales.data;
  weight.zero_points = zero_points.data;
  return weight;
}

}  // namespace

Napi::Value run_linear_job(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  const Napi::Env env = info.Env();
  Pins pins(env);
  const LinearWeight weight = parse_linear_weight(object, pins);
  LinearActivation activation{};
  activation.rule = get_activation(object);
  if (has(object, "activationScale"))
    activation.scale = static_cast<float>(get_number(object, "activationScale"));
  const char* wrong = check_activation(activation);
  if (wrong != nullptr) throw_type_error(env, wrong);
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
            make_linear_plan(weight, activation, bf16 ? ComputeType::kBFloat16 : ComputeType::kFloat32, isa),
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
  if (threads < 1 || threads > 1024 || size < 4096)
    throw_type_error(env, "threads and byteLength are out of range");
  return AsyncTask<double>::run(
      env, Napi::Object::New(env), [=] { return read_bandwidth(size, shared_pool(threads).parallel()); },
      [](Napi::Env e, double& rate) -> Napi::Value { return Napi::Number::New(e, rate); });
}

}  // namespace fdq::addon
