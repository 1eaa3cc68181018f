// Restores the float32 values of packed weights on all threads
#include "addon/restore.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "addon/async.h"
#include "addon/napi_util.h"
#include "addon/packed_matrix.h"
#include "addon/thread_pool.h"
#include "cpu/restore.h"

namespace fdq::addon {
namespace {

struct Job {
  PackedMatrix matrix{};
  Span<int8_t> zeros;
  std::shared_ptr<std::vector<int32_t>> column_order;
  Span<float> target;
  int threads = 1;
};

struct Nothing {};

// A copy: the caller may change its own while the work runs.
std::shared_ptr<std::vector<int32_t>> parse_column_order(const Napi::Object& object, int64_t k, Pins& pins) {
  const Span<int32_t> given = get_span<int32_t>(object, "columnOrder", pins);
  auto order = std::make_shared<std::vector<int32_t>>(given.data, given.data + given.size);
  std::vector<bool> seen(static_cast<size_t>(k));
  for (const int32_t column : *order) {
    if (column < 0 || column >= k || seen[static_cast<size_t>(column)]) {
      throw_type_error(object.Env(), "columnOrder must hold every column once");
    }
    seen[static_cast<size_t>(column)] = true;
  }
  if (static_cast<int64_t>(order->size()) != k) throw_type_error(object.Env(), "columnOrder must have k entries");
  return order;
}

Job parse_job(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  Job job;
  job.matrix = parse_packed_matrix(object, pins);
  const WeightShape& shape = job.matrix.shape;
  const int64_t n = shape.member_rows[0];
  if (has(object, "zeroPoints")) {
    job.zeros = get_span<int8_t>(object, "zeroPoints", pins);
    const int64_t zeros = num_panels(n) * kPanelRows * num_groups(shape.k, shape.group_k);
    if (shape.group_n != 1 || static_cast<int64_t>(job.zeros.size) != zeros) {
      throw_type_error(env, "zeroPoints must be shaped like the scales of rows");
    }
  }
  if (has(object, "columnOrder")) job.column_order = parse_column_order(object, shape.k, pins);
  job.target = get_span<float>(object, "target", pins);
  if (static_cast<int64_t>(job.target.size) != n * shape.k)
    throw_type_error(env, "target must hold n * k floats");
  job.threads = std::clamp(get_int32(object, "threads"), 1, 1024);
  return job;
}

Nothing run_job(const Job& job) {
  const WeightShape& shape = job.matrix.shape;
  const int64_t n = shape.member_rows[0];
  shared_pool(job.threads).parallel()(num_panels(n), [&](int64_t panel) {
    const int64_t first = panel * kPanelRows;
    const int64_t rows = std::min<int64_t>(kPanelRows, n - first);
    const int32_t* order = job.column_order == nullptr ? nullptr : job.column_order->data();
    restore_rows({job.matrix, job.zeros.data, order}, first, rows, job.target.data + first * shape.k);
  });
  return {};
}

}  // namespace

Napi::Value restore_weight(const Napi::CallbackInfo& info) {
  Pins pins(info.Env());
  const Job job = parse_job(info[0].As<Napi::Object>(), pins);
  return AsyncTask<Nothing>::run(
      info.Env(), pins.list(), [job] { return run_job(job); },
      [](Napi::Env env, Nothing&) -> Napi::Value { return env.Undefined(); });
}

}  // namespace fdq::addon
