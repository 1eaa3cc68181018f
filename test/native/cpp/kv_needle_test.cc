// One key among 4096 matches a query; what the type of the pool costs the value that is attended. With an
// argument the errors are printed.
#include <array>

#include "attention_case.h"
#include "check.h"

namespace fdq_test {
namespace {

using fdq::KvType;

constexpr int64_t kLength = 4096, kDim = 128;
constexpr float kKeyOutlier = 3e6f, kValueOutlier = 300.0f;
// Nats by which the needle's score is above the best of the others: its weight is about 0.2, 0.7, 0.9 and 1.
constexpr std::array<float, 4> kMargins{4.0f, 6.0f, 8.0f, 12.0f};
constexpr int kQueries = static_cast<int>(kMargins.size());
constexpr int kSeeds = 3;

using Errors = std::array<double, kQueries>;

float* head_of(Sequence& s, int64_t token, int part) { return s.qkv.data() + (token * 3 + part) * kDim; }

double dot(const float* a, const float* b) {
  double sum = 0;
  for (int64_t d = 0; d < kDim; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum / std::sqrt(static_cast<double>(kDim));
}

// The last tokens are the queries, needle i lies at a place of its own. Token 0 has a large entry in key and
// value, as the first tokens of real models have; no query looks at that key entry, which is beyond even the
// range of e4m3 for the others.
void place_needles(Sequence& s) {
  head_of(s, 0, 1)[0] = kKeyOutlier;
  head_of(s, 0, 2)[0] = kValueOutlier;
  for (int i = 0; i < kQueries; ++i) head_of(s, kLength - kQueries + i, 0)[0] = 0;
  for (int i = 0; i < kQueries; ++i) {
    const float* q = head_of(s, kLength - kQueries + i, 0);
    double best = -INFINITY;
    for (int64_t t = 0; t < kLength; ++t) best = std::max(best, dot(q, head_of(s, t, 1)));
    float* needle = head_of(s, 500 + 1000 * i, 1);
    const double more = (best + kMargins[static_cast<size_t>(i)] - dot(q, needle)) / dot(q, q);
    for (int64_t d = 0; d < kDim; ++d) needle[d] += static_cast<float>(more) * q[d];
  }
}

// What a query attends to in double precision: keys and values as they are, or rounded by `store`.
template <typename Store>
std::vector<double> attend(Sequence& s, int64_t token, const Store& store) {
  std::vector<double> weights, sum(kDim, 0.0);
  double top = -INFINITY, total = 0;
  for (int64_t t = 0; t <= token; ++t) {
    const std::vector<float> key = store(head_of(s, t, 1), 1);
    weights.push_back(dot(head_of(s, token, 0), key.data()));
    top = std::max(top, weights.back());
  }
  for (int64_t t = 0; t <= token; ++t) {
    const std::vector<float> value = store(head_of(s, t, 2), 2);
    const double w = std::exp(weights[static_cast<size_t>(t)] - top);
    total += w;
    for (int64_t d = 0; d < kDim; ++d) sum[static_cast<size_t>(d)] += w * static_cast<double>(value[d]);
  }
  for (double& v : sum) v /= total;
  return sum;
}

std::vector<double> attend_exactly(Sequence& s, int64_t token) {
  return attend(s, token, [](const float* x, int) { return std::vector<float>(x, x + kDim); });
}

// Length of the difference in lengths of the expected vector.
template <typename Vector>
double relative_error(const Vector* got, const std::vector<double>& expected) {
  double difference = 0, length = 0;
  for (size_t d = 0; d < expected.size(); ++d) {
    difference += std::pow(static_cast<double>(got[d]) - expected[d], 2);
    length += expected[d] * expected[d];
  }
  return std::sqrt(difference / length);
}

// The largest errors of several problems.
Errors measure(KvType type, fdq::ComputeType compute) {
  Errors worst{};
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    AttentionCase problem({1, 1, kDim, 0, 0, false, false, type, compute}, {kLength}, seed);
    Sequence& s = problem.sequences()[0];
    place_needles(s);
    while (s.done < kLength) problem.step({{0, 512}}, fdq::detect_isa(), 2);
    for (int i = 0; i < kQueries; ++i) {
      const int64_t token = kLength - kQueries + i;
      const double error = relative_error(s.output.data() + token * kDim, attend_exactly(s, token));
      double& most = worst[static_cast<size_t>(i)];
      most = std::isnan(error) ? INFINITY : std::max(most, error);
    }
  }
  return worst;
}

// The same in one problem if all keys shared one scale, and all values another: what must not happen.
Errors measure_one_scale(KvType type) {
  Errors errors;
  const float largest = type == KvType::kInt8 ? 127.0f : type == KvType::kInt4 ? 7.0f : 448.0f;
  const auto store = [&](const float* x, int part) {
    const float scale = (part == 1 ? kKeyOutlier : kValueOutlier) / largest;
    std::vector<float> rounded;
    for (int64_t d = 0; d < kDim; ++d) {
      rounded.push_back(static_cast<float>(nearest_code(type, x[d] / scale)) * scale);
    }
    return rounded;
  };
  AttentionCase problem({1, 1, kDim, 0, 0, false, false, type}, {kLength}, 1);
  Sequence& s = problem.sequences()[0];
  place_needles(s);
  for (int i = 0; i < kQueries; ++i) {
    const int64_t token = kLength - kQueries + i;
    errors[static_cast<size_t>(i)] = relative_error(attend(s, token, store).data(), attend_exactly(s, token));
  }
  return errors;
}

struct Expectation {
  KvType type;
  const char* name;
  Errors bounds;
};

// About twice what was measured.
constexpr Expectation kExpectations[] = {
    {KvType::kFloat32, "float32", {1e-5, 1e-5, 1e-5, 1e-5}},
    {KvType::kBFloat16, "bfloat16", {6e-3, 5e-3, 5e-3, 4e-3}},
    {KvType::kInt8, "int8", {0.1, 0.02, 0.015, 0.015}},
    {KvType::kFp8, "fp8", {0.14, 0.08, 0.06, 0.06}},
    {KvType::kInt4, "int4", {0.3, 0.33, 0.3, 0.25}},
};

void print(const char* name, const Errors& errors) {
  std::printf("%-20s", name);
  for (double error : errors) std::printf(" %9.2e", error);
  std::printf("\n");
}

void run(bool verbose) {
  for (const Expectation& expected : kExpectations) {
    const Errors errors = measure(expected.type, fdq::ComputeType::kFloat32);
    if (verbose) print(expected.name, errors);
    for (int i = 0; i < kQueries; ++i) {
      const auto at = static_cast<size_t>(i);
      CHECK(errors[at] < expected.bounds[at], "%s margin %g: %g", expected.name,
            static_cast<double>(kMargins[at]), errors[at]);
    }
    if (!fdq::is_quantized(expected.type)) continue;
    const Errors coarse = measure_one_scale(expected.type);
    if (verbose) print("  one scale for all", coarse);
    for (int i = 0; i < kQueries; ++i) {
      const auto at = static_cast<size_t>(i);
      CHECK(coarse[at] > expected.bounds[at], "one scale for all %s passes at margin %g: %g", expected.name,
            static_cast<double>(kMargins[at]), coarse[at]);
    }
  }
}

}  // namespace
}  // namespace fdq_test

int main(int argc, char**) {
  fdq_test::run(argc > 1);
  return fdq_test::finish("kv_needle");
}
