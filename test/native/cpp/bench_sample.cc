// Microseconds per row of sample_row at a large vocabulary.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "fdq/ops.h"

namespace {

constexpr int64_t kVocab = 151936;
constexpr int kRuns = 60;

struct Timing {
  double best_us, median_us;
};

Timing time_row(const std::vector<float>& row, fdq::SampleParams params) {
  std::vector<double> times;
  std::vector<float> x = row;
  std::vector<int32_t> ids(20);
  std::vector<float> logprobs(20);
  for (int i = 0; i < kRuns; ++i) {
    params.counter = static_cast<uint64_t>(i);
    const auto start = std::chrono::steady_clock::now();
    fdq::sample_row(x.data(), kVocab, params, ids.data(), logprobs.data());
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2]};
}

void report(const char* name, const Timing& t) {
  std::printf("%-44s best %6.0f us, median %6.0f us\n", name, t.best_us, t.median_us);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 1);
  // Peaked rows look like a model's: a wide bulk far below a few likely tokens.
  std::vector<float> flat(kVocab), peaked(kVocab), uniform(kVocab, 1.0f);
  for (float& v : flat) v = 2.0f * normal(random);
  for (float& v : peaked) v = 2.5f * normal(random) - 5.0f;
  for (int i = 0; i < 50; ++i) peaked[random() % kVocab] = 18.0f + 3.0f * normal(random);
  std::vector<int32_t> prompt(4000), output(500);
  for (int32_t& id : prompt) id = static_cast<int32_t>(random() % kVocab);
  for (int32_t& id : output) id = static_cast<int32_t>(random() % kVocab);

  fdq::SampleParams params{};
  params.top_p = 1;
  params.repetition_penalty = 1;
  params.target = -1;
  params.seed = 5;
  std::printf("vocabulary %d, %s\n", static_cast<int>(kVocab), fdq::isa_name(fdq::detect_isa()));
  report("greedy with logprob", time_row(peaked, params));
  params.num_top = 20;
  report("greedy with logprob and 20 alternatives", time_row(peaked, params));
  params.num_top = 0;
  params.temperature = 1;
  report("temperature, peaked row", time_row(peaked, params));
  report("temperature, flat row", time_row(flat, params));
  report("temperature, uniform row", time_row(uniform, params));
  params.top_p = 0.9f;
  report("temperature, top_p, peaked row", time_row(peaked, params));
  report("temperature, top_p, flat row", time_row(flat, params));
  report("temperature, top_p, uniform row", time_row(uniform, params));
  params.top_k = 40;
  report("temperature, top_k, top_p, peaked row", time_row(peaked, params));
  params.min_p = 0.05f;
  params.repetition_penalty = 1.1f;
  params.presence_penalty = 0.5f;
  params.prompt_ids = prompt.data();
  params.num_prompt_ids = static_cast<int64_t>(prompt.size());
  params.output_ids = output.data();
  params.num_output_ids = static_cast<int64_t>(output.size());
  report("everything, 4000 + 500 penalized", time_row(peaked, params));
  return 0;
}
