// sample_row against a reference that sorts the vocabulary, for every instruction set, on random and on
// adversarial rows; the statistics of its draws; that nothing else than seed and counter moves them.
#include "cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "check.h"

namespace fdq_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

fdq::SampleKernels kernels_of(int isa) {
  if (isa >= static_cast<int>(fdq::Isa::kAvx512)) return fdq::sample_kernels_avx512();
  return isa == static_cast<int>(fdq::Isa::kAvx2) ? fdq::sample_kernels_avx2() : fdq::sample_kernels_scalar();
}

struct Request {
  std::vector<int32_t> prompt, output, bias_ids, banned, allowed;
  std::vector<float> bias;
  fdq::SampleParams params{1,       0, 1,       0,       1, 0,       0, 0,       0, nullptr, 0,
                           nullptr, 0, nullptr, nullptr, 0, nullptr, 0, nullptr, 0, -1,      0};

  const fdq::SampleParams& bound() {
    const auto bind = [](const std::vector<int32_t>& ids, const int32_t** data, int64_t* count) {
      *data = ids.data();
      *count = static_cast<int64_t>(ids.size());
    };
    bind(prompt, &params.prompt_ids, &params.num_prompt_ids);
    bind(output, &params.output_ids, &params.num_output_ids);
    bind(banned, &params.banned_ids, &params.num_banned);
    bind(allowed, &params.allowed_ids, &params.num_allowed);
    bind(bias_ids, &params.bias_ids, &params.num_bias);
    params.bias_values = bias.data();
    return params;
  }
};

std::vector<int32_t> order_of(const std::vector<float>& x) {
  std::vector<int32_t> ids(x.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
  return ids;
}

std::vector<float> changed(std::vector<float> x, const Request& r) {
  const std::set<int32_t> allowed(r.allowed.begin(), r.allowed.end());
  for (size_t i = 0; i < x.size(); ++i) {
    if (!allowed.empty() && allowed.count(static_cast<int32_t>(i)) == 0) x[i] = -kInf;
  }
  for (int32_t id : r.banned) x[id] = -kInf;
  for (size_t i = 0; i < r.bias.size(); ++i) x[r.bias_ids[i]] += r.bias[i];
  std::set<int32_t> seen(r.prompt.begin(), r.prompt.end());
  seen.insert(r.output.begin(), r.output.end());
  for (int32_t id : seen)
    x[id] = x[id] > 0 ? x[id] / r.params.repetition_penalty : x[id] * r.params.repetition_penalty;
  for (int32_t id : std::set<int32_t>(r.output.begin(), r.output.end())) {
    const auto times = static_cast<float>(std::count(r.output.begin(), r.output.end(), id));
    x[id] -= r.params.frequency_penalty * times;
    x[id] -= r.params.presence_penalty;
  }
  return x;
}

// The ids that may be drawn, most likely first, and their probabilities.
void candidates(const std::vector<float>& x, const fdq::SampleParams& p, std::vector<int32_t>* ids,
                std::vector<double>* mass) {
  *ids = order_of(x);
  const float top = x[ids->front()];
  const float inverse = std::min(1.0f / p.temperature, std::numeric_limits<float>::max());
  mass->clear();
  for (int32_t id : *ids)
    mass->push_back(std::exp(-static_cast<double>(fdq::sample_distance(top, x[id], inverse))));
  size_t n = ids->size();
  while ((*mass)[n - 1] < 1e-45) --n;
  if (p.top_k > 0) n = std::min(n, static_cast<size_t>(p.top_k));
  const double total = std::accumulate(mass->begin(), mass->begin() + n, 0.0);
  if (p.top_p < 1) {
    double sum = 0;
    size_t k = 0;
    do sum += (*mass)[k++];
    while (k < n && static_cast<float>(sum / total) < p.top_p);
    n = k;
  }
  while (n > 1 && (*mass)[n - 1] < static_cast<double>(p.min_p)) --n;
  ids->resize(n);
  mass->resize(n);
}

// Whether `id` is what the inverse CDF gives for a uniform number within a hair of u.
bool is_drawn(const std::vector<int32_t>& ids, const std::vector<double>& mass, double u, int32_t id) {
  const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const double before = sum;
    sum += mass[i];
    if (ids[i] == id) return before / total <= u + 1e-7 && sum / total >= u - 1e-7;
  }
  return false;
}

// The generator as documented: SplitMix64's finalizer twice.
double reference_uniform(uint64_t seed, uint64_t counter) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  return static_cast<double>(mix(mix(seed) + (counter + 1) * 0x9e3779b97f4a7c15u) >> 11) / 9007199254740992.0;
}

void check_row(const std::vector<float>& logits, Request r, const char* what) {
  constexpr int32_t kTop = 5;
  r.params.num_top = kTop;
  const fdq::SampleParams& p = r.bound();
  const std::vector<int32_t> order = order_of(logits);
  const double top = logits[order[0]];
  double sum = 0;
  for (float v : logits) sum += v == top ? 1.0 : std::exp(v - top);
  const auto logprob = [&](int32_t id) {
    return (logits[id] == top ? 0.0 : logits[id] - top) - std::log(sum);
  };
  const std::vector<float> x = changed(logits, r);
  const bool possible = *std::max_element(x.begin(), x.end()) > -kInf;
  for (int isa = 0; isa <= std::min(2, static_cast<int>(fdq::detect_isa())); ++isa) {
    std::vector<float> row = logits;
    int32_t top_ids[kTop];
    float top_logprobs[kTop];
    const auto result = fdq::sample_row_with(kernels_of(isa), row.data(), static_cast<int64_t>(row.size()), p,
                                             top_ids, top_logprobs);
    for (size_t i = 0; i < kTop; ++i) {
      const bool exists = i < order.size();
      CHECK(top_ids[i] == (exists ? order[i] : -1), "%s isa %d: top %d is %d", what, isa, static_cast<int>(i),
            top_ids[i]);
      if (!exists) continue;
      const double expected = logprob(order[i]);
      CHECK(top_logprobs[i] == expected ||
                std::fabs(top_logprobs[i] - expected) < 1e-6 * (1 + std::fabs(expected)),
            "%s isa %d: top logprob %d is %g, expected %g", what, isa, static_cast<int>(i),
            static_cast<double>(top_logprobs[i]), expected);
    }
    if (!possible) {
      CHECK(result.id == -1, "%s isa %d: %d drawn from nothing", what, isa, result.id);
      continue;
    }
    CHECK(result.id >= 0 && result.id < static_cast<int32_t>(row.size()), "%s isa %d: id %d", what, isa,
          result.id);
    if (result.id < 0) continue;
    if (p.temperature == 0) {
      CHECK(result.id == order_of(x)[0], "%s isa %d: greedy is %d", what, isa, result.id);
    } else {
      std::vector<int32_t> ids;
      std::vector<double> mass;
      candidates(x, p, &ids, &mass);
      CHECK(is_drawn(ids, mass, reference_uniform(p.seed, p.counter), result.id),
            "%s isa %d: drew %d with T %g top_k %d top_p %g min_p %g seed %d", what, isa, result.id,
            static_cast<double>(p.temperature), p.top_k, static_cast<double>(p.top_p),
            static_cast<double>(p.min_p), static_cast<int>(p.seed));
    }
    const auto rank = std::find(order.begin(), order.end(), result.id) - order.begin() + 1;
    CHECK(result.rank == rank, "%s isa %d: rank %d, expected %d", what, isa, result.rank,
          static_cast<int>(rank));
    const double expected = logprob(result.id);
    CHECK(
        result.logprob == expected || std::fabs(result.logprob - expected) < 1e-6 * (1 + std::fabs(expected)),
        "%s isa %d: logprob %g, expected %g", what, isa, static_cast<double>(result.logprob), expected);
  }
}

std::vector<float> random_row(std::mt19937& random, size_t vocab, int kind) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> x(vocab);
  for (float& v : x) {
    v = normal(random);
    if (kind == 1) v = std::round(v);                      // ties everywhere
    if (kind == 2 && random() % 3 != 0) v = -kInf;         // mostly impossible
    if (kind == 3) v *= 1e37f;                             // differences overflow
    if (kind == 4) v = 2.5f;                               // uniform
    if (kind == 5) v = random() % 2 == 0 ? 1e-40f : 0.0f;  // denormals
  }
  if (kind == 2) x[random() % vocab] = 1;
  if (kind == 6) x[random() % vocab] = kInf, x[random() % vocab] = kInf;
  return x;
}

Request random_request(std::mt19937& random, size_t vocab) {
  const auto ids = [&](size_t most) {
    std::vector<int32_t> list(random() % (most + 1));
    for (int32_t& id : list) id = static_cast<int32_t>(random() % vocab);
    return list;
  };
  const auto pick = [&](std::vector<float> values) { return values[random() % values.size()]; };
  Request r;
  r.params.temperature = pick({0, 0.3f, 1, 1, 1.7f, 1e-6f, 100});
  r.params.top_k = static_cast<int32_t>(pick({0, 0, 1, 2, 7, 40, 1e6f}));
  r.params.top_p = pick({1, 1, 0, 0.1f, 0.5f, 0.9f, 0.999f});
  r.params.min_p = pick({0, 0, 0.01f, 0.2f, 1});
  r.params.seed = random();
  r.params.counter = random() % 1000;
  if (random() % 2 == 0) {
    r.prompt = ids(30);
    r.output = ids(30);
    r.params.repetition_penalty = pick({1, 1.3f, 0.8f});
    r.params.presence_penalty = pick({0, 0.7f, -1});
    r.params.frequency_penalty = pick({0, 0.4f});
    r.bias_ids = ids(3);
    for (size_t i = 0; i < r.bias_ids.size(); ++i) r.bias.push_back(pick({-100, 2, 7}));
    r.banned = ids(4);
    if (random() % 3 == 0) r.allowed = ids(20);
  }
  return r;
}

void check_random() {
  std::mt19937 random(17);
  const char* names[] = {"normal", "ties", "holes", "huge", "uniform", "denormal", "infinite"};
  for (int kind = 0; kind < 7; ++kind) {
    for (size_t vocab : {1, 2, 15, 16, 17, 100, 1023, 1024, 1025, 5000}) {
      for (int i = 0; i < (vocab > 1000 ? 12 : 30); ++i) {
        const std::vector<float> row = random_row(random, vocab, kind);
        check_row(row, random_request(random, vocab), names[kind]);
      }
    }
  }
  check_row(random_row(random, 151936, 0), random_request(random, 151936), "large");
  check_row(random_row(random, 151936, 4), random_request(random, 151936), "large uniform");
}

void check_corners() {
  const auto sample = [](std::vector<float> x, Request r) {
    return fdq::sample_row(x.data(), static_cast<int64_t>(x.size()), r.bound(), nullptr, nullptr);
  };
  Request plain;
  CHECK(sample({-kInf, -kInf, -kInf}, plain).id == -1, "all impossible");
  CHECK(sample({1, NAN, 3}, plain).id == -1, "NaN");
  std::vector<float> late(100, 0.0f);
  late[99] = NAN;
  CHECK(sample(late, plain).id == -1, "NaN in the tail");
  Request all_banned;
  all_banned.banned = {0, 1};
  CHECK(sample({1, 2}, all_banned).id == -1, "all banned");
  Request outside;
  outside.banned = {-1, 2, 1000};
  outside.bias_ids = {-5, 99};
  outside.bias = {1, 1};
  outside.prompt = outside.output = {-7, 2000000000};
  outside.params.repetition_penalty = 2;
  outside.params.presence_penalty = 1;
  CHECK(sample({5, 1}, outside).id >= 0, "ids outside the vocabulary are ignored");
  Request target;
  target.params.target = 2;
  target.banned = {2};
  const fdq::SampleResult forced = sample({3, 1, 1, 2}, target);
  CHECK(forced.id == 2 && forced.rank == 4, "target: id %d rank %d", forced.id, forced.rank);
  target.params.target = 18;
  std::vector<float> impossible(40, -kInf);
  impossible[0] = 1;
  const fdq::SampleResult never = sample(impossible, target);
  CHECK(never.id == 18 && never.rank == 19 && never.logprob == -kInf, "impossible target: rank %d",
        never.rank);
  for (int isa = 0; isa <= std::min(2, static_cast<int>(fdq::detect_isa())); ++isa) {
    const std::vector<float> five{1, -kInf, 3, -2, kInf};
    int32_t found[16];
    const int64_t all = kernels_of(isa).collect(five.data(), 5, -kInf, kInf, found);
    CHECK(all == 5, "isa %d: %d elements in an unbounded range", isa, static_cast<int>(all));
    const int64_t some = kernels_of(isa).collect(five.data(), 5, -2, 1, found);
    CHECK(some == 2 && found[0] == 0 && found[1] == 3, "isa %d: bounds belong to a range", isa);
  }
  Request half;
  half.params.top_p = 0.1f;
  for (int seed = 0; seed < 50; ++seed) {
    half.params.seed = static_cast<uint64_t>(seed);
    const fdq::SampleResult one = sample(std::vector<float>(10, 1.0f), half);
    CHECK(one.id == 0, "a top_p of 0.1 keeps one of ten equal tokens, drew %d", one.id);
  }
}

// Draws follow the distribution: chi-square over 40,000 draws with fixed seeds.
void check_statistics() {
  constexpr int kDraws = 40000;
  const std::vector<float> row{1.0f, 0.2f, 2.0f, -1.0f, 0.2f, 1.5f, -0.3f, 0.9f};
  for (bool by_seed : {false, true}) {
    Request r;
    r.params.temperature = 1.3f;
    std::vector<int32_t> ids;
    std::vector<double> mass;
    candidates(row, r.params, &ids, &mass);
    const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
    std::vector<int> hits(row.size());
    for (int i = 0; i < kDraws; ++i) {
      r.params.seed = by_seed ? static_cast<uint64_t>(i) : 42;
      r.params.counter = by_seed ? 0 : static_cast<uint64_t>(i);
      std::vector<float> x = row;
      ++hits[fdq::sample_row(x.data(), static_cast<int64_t>(x.size()), r.bound(), nullptr, nullptr).id];
    }
    double chi_square = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const double expected = kDraws * mass[i] / total;
      chi_square += (hits[ids[i]] - expected) * (hits[ids[i]] - expected) / expected;
    }
    constexpr double kLimit = 24.3;  // 7 degrees of freedom, 0.1 %
    CHECK(chi_square < kLimit && chi_square > 0.3, "chi-square %g by %s", chi_square,
          by_seed ? "seed" : "counter");
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  fdq_test::check_random();
  fdq_test::check_corners();
  fdq_test::check_statistics();
  return fdq_test::finish("sample");
}
