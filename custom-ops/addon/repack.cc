// Reads a weight that a checkpoint stores quantized and repacks it on all threads
#include "addon/repack.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
#include "addon/tensor_file.h"
#include "addon/thread_pool.h"
#include "cpu/repack_stored.h"

namespace fdq::addon {
namespace {

// Bytes of codes one thread holds at once, where one row band is not larger.
constexpr int64_t kBandBytes = 4 << 20;
// Rows of a band of words: 512 bytes or more of each line are read at once.
constexpr int64_t kLeastWordRows = 128;
constexpr int64_t kBlockColumns = 16;

struct Range {
  int fd = -1;
  int64_t offset = 0;
};

struct Job {
  StoredCodes codes{};
  Range code_range;
  int64_t row_bytes = 0;
  StoredScales scales{};
  Range scale_range;
  int group_k = 0;
  bool has_blocks = false;
  Range block_range;
  bool has_zeros = false;
  StoredZeros zeros{};
  Range zero_range;
  std::shared_ptr<std::vector<int32_t>> column_order;
  Span<uint8_t> weight, block_target;
  Span<float> scale_target;
  Span<int8_t> zero_target;
  int threads = 1;
};

struct Result {
  const char* status = "ok";
  const char* part = nullptr;
  int error = 0;
  int64_t row = 0, column = 0;
  int zero = 0;
};

Napi::Value to_js(Napi::Env env, Result& outcome) {
  Napi::Object object = Napi::Object::New(env);
  const std::string status = outcome.status;
  object.Set("status", status);
  if (outcome.part != nullptr) object.Set("part", outcome.part);
  if (status == "io_error") object.Set("errno", outcome.error);
  if (status == "invalid_code" || status == "invalid_scale" || status == "zero_point") {
    object.Set("row", static_cast<double>(outcome.row));
    object.Set(status == "invalid_code" ? "column" : "group", static_cast<double>(outcome.column));
  }
  if (status == "zero_point") object.Set("zeroPoint", outcome.zero);
  return object;
}

Result failed_read(const Outcome& read, const char* part) {
  Result outcome;
  outcome.part = part;
  outcome.status = read.status == Outcome::kShortRead ? "short_read" : "io_error";
  outcome.error = read.error;
  return outcome;
}

Result invalid_group(const char* status, const char* part, const InvalidGroup& found) {
  Result outcome;
  outcome.status = status;
  outcome.part = part;
  outcome.row = found.row;
  outcome.column = found.group;
  outcome.zero = found.value;
  return outcome;
}

template <typename T, size_t kCount>
T choose(Napi::Env env, const std::string& name, const std::pair<const char*, T> (&table)[kCount],
         const char* what) {
  for (const auto& [known, value] : table) {
    if (name == known) return value;
  }
  throw_type_error(env, std::string("unknown ") + what + " " + name);
}

Range get_range(const Napi::Object& object) {
  const Range range{get_int32(object, "fd"), get_int(object, "offset")};
  if (range.offset < 0) throw_type_error(object.Env(), "offset must not be negative");
  return range;
}

Napi::Object get_object(const Napi::Object& object, const char* key) {
  const Napi::Value value = get(object, key);
  if (!value.IsObject()) throw_type_error(object.Env(), std::string(key) + " must be an object");
  return value.As<Napi::Object>();
}

void parse_codes(const Napi::Object& object, Job& job) {
  const Napi::Env env = object.Env();
  static constexpr std::pair<const char*, CodeLayout> kLayouts[] = {
      {"rows", CodeLayout::kRows}, {"gptq", CodeLayout::kGptq}, {"awq", CodeLayout::kAwq}};
  StoredCodes& codes = job.codes;
  codes.layout = choose(env, get_string(object, "layout"), kLayouts, "code layout");
  codes.offset_binary = get_bool(object, "offsetBinary");
  job.code_range = get_range(object);
  job.row_bytes = get_int(object, "rowBytes");
  const int64_t least = ceil_div(codes.k * stored_bits(codes.format), 8);
  if (codes.layout == CodeLayout::kRows && (job.row_bytes < least || job.row_bytes > least + 3)) {
    throw_type_error(env, "rowBytes must hold k codes, with up to 3 bytes of padding");
  }
  const bool fits_gptq = codes.k % codes_per_word(codes.format) == 0;
  const bool fits_awq = codes.n % 8 == 0 && stored_bits(codes.format) == 4;
  if ((codes.layout == CodeLayout::kGptq && !fits_gptq) || (codes.layout == CodeLayout::kAwq && !fits_awq)) {
    throw_type_error(env, "n and k must fill whole words");
  }
}

void parse_scales(const Napi::Object& object, Job& job, int group_n) {
  const Napi::Env env = object.Env();
  static constexpr std::pair<const char*, ScaleLayout> kLayouts[] = {{"rows", ScaleLayout::kRows},
                                                                     {"columns", ScaleLayout::kColumns},
                                                                     {"tiles", ScaleLayout::kTiles},
                                                                     {"tensor", ScaleLayout::kTensor}};
  static constexpr std::pair<const char*, ScaleType> kTypes[] = {{"float32", ScaleType::kFloat32},
                                                                 {"float16", ScaleType::kFloat16},
                                                                 {"bfloat16", ScaleType::kBFloat16},
                                                                 {"e8m0", ScaleType::kE8M0}};
  StoredScales& scales = job.scales;
  scales.layout = choose(env, get_string(object, "layout"), kLayouts, "scale layout");
  scales.type = choose(env, get_string(object, "type"), kTypes, "scale type");
  scales.reciprocal = get_bool(object, "reciprocal");
  scales.n = job.codes.n;
  scales.groups = num_groups(job.codes.k, job.group_k);
  scales.group_n = group_n;
  const bool tiles = scales.layout == ScaleLayout::kTiles;
  const bool fits = group_n == 0 ? scales.layout == ScaleLayout::kTensor : tiles == (group_n == kTile);
  if (!fits) throw_type_error(env, "the scales do not have the geometry of groupN");
  job.scale_range = get_range(object);
}

void parse_zeros(const Napi::Object& object, Job& job) {
  const Napi::Env env = object.Env();
  static constexpr std::pair<const char*, ZeroLayout> kLayouts[] = {
      {"gptq", ZeroLayout::kGptq}, {"awq", ZeroLayout::kAwq}, {"packed_rows", ZeroLayout::kPackedRows}};
  StoredZeros& zeros = job.zeros;
  zeros.format = job.codes.format;
  zeros.layout = choose(env, get_string(object, "layout"), kLayouts, "zero point layout");
  zeros.minus_one = get_bool(object, "minusOne");
  zeros.n = job.codes.n;
  zeros.groups = job.scales.groups;
  if (zeros.format != WeightFormat::kInt4 && zeros.format != WeightFormat::kInt8) {
    throw_type_error(env, "only int4 and int8 have zero points");
  }
  job.has_zeros = true;
  job.zero_range = get_range(object);
}

void parse_target(const Napi::Object& object, Job& job, Pins& pins) {
  const Napi::Env env = object.Env();
  const int64_t lanes = num_panels(job.codes.n) * kPanelRows;
  const int64_t groups = job.scales.groups;
  job.weight = get_span<uint8_t>(object, "weight", pins);
  job.scale_target = get_span<float>(object, "scales", pins);
  const int group_n = job.scales.group_n;
  const int64_t scales = group_n == 1   ? lanes * groups
                         : group_n == 0 ? 1
                                        : ceil_div(job.codes.n, kTile) * groups;
  const int64_t weight = lanes * padded_k(job.codes.k) * stored_bits(job.codes.format) / 8;
  bool fits = static_cast<int64_t>(job.weight.size) == weight &&
              static_cast<int64_t>(job.scale_target.size) == scales;
  if (job.has_blocks) {
    job.block_target = get_span<uint8_t>(object, "blockScales", pins);
    const int64_t blocks = ceil_div(job.codes.k, kBlockColumns);
    fits = fits && static_cast<int64_t>(job.block_target.size) == lanes * blocks;
  }
  if (has(object, "zeroPoints")) {
    job.zero_target = get_span<int8_t>(object, "zeroPoints", pins);
    fits = fits && job.has_zeros && static_cast<int64_t>(job.zero_target.size) == lanes * groups;
  }
  if (!fits) throw_type_error(env, "the target must have exactly the size of n, k and the format");
}

// A copy: the caller may change its own while the work runs.
void parse_column_order(const Napi::Object& object, Job& job, Pins& pins) {
  const Span<int32_t> given = get_span<int32_t>(object, "columnOrder", pins);
  job.column_order = std::make_shared<std::vector<int32_t>>(given.data, given.data + given.size);
  const auto inside = [&](int32_t column) { return column >= 0 && column < job.codes.k; };
  const std::vector<int32_t>& order = *job.column_order;
  if (static_cast<int64_t>(order.size()) != job.codes.k || !std::all_of(order.begin(), order.end(), inside)) {
    throw_type_error(object.Env(), "columnOrder must be k numbers from 0 to k - 1");
  }
  job.codes.column_order = order.data();
}

Job parse_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  Job job;
  job.codes.n = get_int(object, "n");
  job.codes.k = get_int(object, "k");
  job.codes.format = parse_weight_format(env, get_string(object, "format"));
  job.group_k = get_int32(object, "groupK");
  const int group_n = get_int32(object, "groupN");
  job.threads = get_int32(object, "threads");
  const int64_t n = job.codes.n, k = job.codes.k;
  if (n < 1 || k < 1 || n > (int64_t{1} << 40) / k) throw_type_error(env, "n and k are out of range");
  if (job.threads < 1 || job.threads > 1024) throw_type_error(env, "threads must be 1 to 1024");
  if (group_n != 0 && group_n != 1 && group_n != kTile) throw_type_error(env, "groupN must be 0, 1 or 128");
  if (job.group_k < 0 || (group_n == kTile && job.group_k != kTile) || (group_n == 0 && job.group_k != 0)) {
    throw_type_error(env, "groupK does not go with groupN");
  }
  parse_codes(get_object(object, "codes"), job);
  parse_scales(get_object(object, "scales"), job, group_n);
  if (has(object, "blockScales")) {
    job.has_blocks = true;
    job.block_range = get_range(get_object(object, "blockScales"));
  }
  if (has(object, "zeroPoints")) parse_zeros(get_object(object, "zeroPoints"), job);
  if (has(object, "columnOrder")) parse_column_order(object, job, pins);
  parse_target(get_object(object, "target"), job, pins);
  return job;
}

Outcome read_part(const Range& range, int64_t size, std::vector<uint8_t>& bytes) {
  bytes.resize(static_cast<size_t>(size));
  return read_exactly(range.fd, range.offset, bytes.data(), size);
}

// Everything but the codes, which is small.
Result run_scales(const Job& job) {
  std::vector<uint8_t> bytes;
  Outcome read =
      read_part(job.scale_range, stored_scale_count(job.scales) * scale_bytes(job.scales.type), bytes);
  if (read.status != Outcome::kOk) return failed_read(read, "scales");
  InvalidGroup found = repack_scales(job.scales, bytes.data(), job.scale_target.data);
  if (found.found) return invalid_group("invalid_scale", "scales", found);
  if (job.has_blocks) {
    const int64_t blocks = ceil_div(job.codes.k, kBlockColumns);
    read = read_part(job.block_range, job.codes.n * blocks, bytes);
    if (read.status != Outcome::kOk) return failed_read(read, "block_scales");
    found = repack_block_scales(job.codes.n, blocks, bytes.data(), job.block_target.data);
    if (found.found) return invalid_group("invalid_scale", "block_scales", found);
  }
  if (!job.has_zeros) return Result();
  read = read_part(job.zero_range,
                   ceil_div(job.codes.n, codes_per_word(job.codes.format)) * job.zeros.groups * 4, bytes);
  if (read.status != Outcome::kOk) return failed_read(read, "zero_points");
  found = repack_zeros(job.zeros, bytes.data(), job.zero_target.data);
  return found.found ? invalid_group("zero_point", "zero_points", found) : Result();
}

// How the codes of some rows lie in the file.
struct Lines {
  int64_t count;   // lines that hold codes of a row band
  int64_t stride;  // bytes from one to the next in the file
  int64_t skip;    // bytes of a line before the band
  int64_t bytes;   // of the band in a line
};

Lines lines_of(const Job& job, int64_t first_row, int64_t rows) {
  const int64_t n = job.codes.n, k = job.codes.k;
  switch (job.codes.layout) {
    case CodeLayout::kRows:
      return {1, 0, first_row * job.row_bytes, rows * job.row_bytes};
    case CodeLayout::kGptq:
      return {k / codes_per_word(job.codes.format), 4 * n, 4 * first_row, 4 * rows};
    case CodeLayout::kAwq:
      return {k, n / 2, first_row / 2, rows / 2};
  }
  return {};
}

// Reads the band and returns its line stride in `bytes`.
Outcome read_band(const Job& job, const Lines& lines, std::vector<uint8_t>& bytes) {
  bytes.resize(static_cast<size_t>(lines.count * lines.bytes));
  const int64_t start = job.code_range.offset + lines.skip;
  if (lines.bytes == lines.stride || lines.count == 1) {
    return read_exactly(job.code_range.fd, start, bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  for (int64_t line = 0; line < lines.count; ++line) {
    const Outcome read = read_exactly(job.code_range.fd, start + line * lines.stride,
                                      bytes.data() + line * lines.bytes, lines.bytes);
    if (read.status != Outcome::kOk) return read;
  }
  return Outcome();
}

// A multiple of 16 that gives every thread a band and keeps one within kBandBytes where it can.
int64_t band_rows(const Job& job) {
  const int64_t row_bytes = std::max<int64_t>(1, job.codes.k * stored_bits(job.codes.format) / 8);
  const int64_t least = job.codes.layout == CodeLayout::kRows ? kPanelRows : kLeastWordRows;
  const int64_t share = round_up(ceil_div(job.codes.n, job.threads), kPanelRows);
  return std::max(least, std::min(share, kBandBytes / row_bytes / kPanelRows * kPanelRows));
}

Result run_codes(const Job& job) {
  const int64_t n = job.codes.n;
  const int64_t band = band_rows(job);
  std::mutex mutex;
  Result first;  // the failure at the lowest row
  int64_t first_row = n;
  std::atomic<bool> stop{false};
  shared_pool(job.threads).parallel()(ceil_div(n, band), [&](int64_t index) {
    if (stop.load(std::memory_order_relaxed)) return;
    const int64_t row = index * band;
    const int64_t rows = std::min(band, n - row);
    thread_local std::vector<uint8_t> bytes;
    const Lines lines = lines_of(job, row, rows);
    const Outcome read = read_band(job, lines, bytes);
    Result outcome;
    if (read.status == Outcome::kOk) {
      const int64_t stride = job.codes.layout == CodeLayout::kRows ? job.row_bytes : lines.bytes;
      const InvalidCode found = repack_codes(job.codes, bytes.data(), stride, row, rows, job.weight.data);
      if (!found.found) return;
      outcome.status = "invalid_code";
      outcome.row = found.row;
      outcome.column =
          job.codes.column_order == nullptr ? found.column : job.codes.column_order[found.column];
    } else {
      outcome = failed_read(read, "codes");
      stop.store(true, std::memory_order_relaxed);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (row < first_row) {
      first_row = row;
      first = outcome;
    }
  });
  return first;
}

Result run_job(const Job& job) {
  const Result scales = run_scales(job);
  return std::string(scales.status) == "ok" ? run_codes(job) : scales;
}

}  // namespace

Napi::Value repack_weight(const Napi::CallbackInfo& info) {
  const auto object = info[0].As<Napi::Object>();
  Pins pins(info.Env());
  const Job job = parse_job(object, pins);
  return AsyncTask<Result>::run(info.Env(), pins.list(), [job] { return run_job(job); }, to_js);
}

}  // namespace fdq::addon
