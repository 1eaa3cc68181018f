// Scores of logits against plain sums in double precision, for every instruction set.
#include "fdq/score.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/sample.h"

namespace fdq_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

fdq::SampleKernels kernels_of(int isa) {
  if (isa >= static_cast<int>(fdq::Isa::kAvx512)) return fdq::sample_kernels_avx512();
  return isa == static_cast<int>(fdq::Isa::kAvx2) ? fdq::sample_kernels_avx2() : fdq::sample_kernels_scalar();
}

double log_sum_exp(const std::vector<float>& x) {
  double top = -kInf, sum = 0;
  for (float v : x) top = std::max<double>(top, v);
  for (float v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}

double divergence(const std::vector<float>& p, const std::vector<float>& q) {
  const double p_norm = log_sum_exp(p), q_norm = log_sum_exp(q);
  double sum = 0;
  for (size_t v = 0; v < p.size(); ++v) {
    if (p[v] != -kInf) sum += std::exp(p[v] - p_norm) * ((p[v] - p_norm) - (q[v] - q_norm));
  }
  return sum;
}

std::vector<float> noisy(const std::vector<float>& x, float deviation, float offset, std::mt19937& random) {
  std::normal_distribution<float> noise(offset, deviation);
  std::vector<float> result;
  for (float v : x) result.push_back(v + noise(random));
  return result;
}

std::vector<float> logits_of(size_t vocab, float spread, std::mt19937& random) {
  return noisy(std::vector<float>(vocab, 0.0f), spread, 0.0f, random);
}

void check_kernels() {
  std::mt19937 random(1);
  for (int isa = 0; isa <= static_cast<int>(fdq::detect_isa()); ++isa) {
    const fdq::SampleKernels kernels = kernels_of(isa);
    for (size_t vocab : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 2048u, 4099u}) {
      std::vector<float> p = logits_of(vocab, 3.0f, random);
      const std::vector<float> q = noisy(p, 0.1f, 0.0f, random);
      if (vocab > 20) p[7] = -kInf;
      const auto count = static_cast<int64_t>(vocab);
      const fdq::DivergenceSums sums = kernels.diverge(p.data(), 0.5f, q.data(), -0.25f, count);
      double mass = 0, weighted = 0;
      for (size_t v = 0; v < vocab; ++v) {
        const double w = std::exp(static_cast<double>(p[v]) - 0.5);
        mass += w;
        if (w > 0) weighted += w * ((p[v] - 0.5) - (q[v] + 0.25));
      }
      CHECK(std::abs(sums.mass - mass) <= 1e-6 * mass, "isa %d vocab %zu: %g", isa, vocab, sums.mass / mass);
      CHECK(std::abs(sums.weighted - weighted) <= 1e-6 * mass, "isa %d vocab %zu: %g %g", isa, vocab,
            sums.weighted, weighted);
    }
  }
}

void check_rows() {
  std::mt19937 random(2);
  for (size_t vocab : {2u, 100u, 2048u, 151936u}) {
    for (float deviation : {0.0f, 0.001f, 0.1f, 2.0f}) {
      const std::vector<float> p = logits_of(vocab, 3.0f, random);
      // A common offset changes no probability.
      const std::vector<float> q = noisy(p, deviation, 8.0f, random);
      const auto count = static_cast<int64_t>(vocab);
      const int64_t target = count / 2;
      const double expected = divergence(p, q);
      const fdq::RowScore score = fdq::score_row(q.data(), p.data(), count, target);
      const double nll = log_sum_exp(q) - q[static_cast<size_t>(target)];
      CHECK(std::abs(score.nll - nll) <= 1e-6 * (1 + nll), "vocab %zu: %g %g", vocab, score.nll, nll);
      CHECK(std::abs(score.divergence - expected) <= 1e-6 + 1e-5 * expected, "vocab %zu deviation %g: %g %g", vocab,
            static_cast<double>(deviation), score.divergence, expected);
      std::vector<uint16_t> small(vocab);
      fdq::compress_row(p.data(), count, small.data());
      const fdq::RowScore kept = fdq::score_row(q.data(), small.data(), count, target);
      CHECK(kept.nll == score.nll && kept.agrees == score.agrees, "vocab %zu", vocab);
      // 16 bits: a random relative error of 2^-12 of each distance from the largest.
      CHECK(std::abs(kept.divergence - expected) <= 2e-5 + 1e-2 * expected, "vocab %zu deviation %g: %g %g", vocab,
            static_cast<double>(deviation), kept.divergence, expected);
    }
  }
}

void check_corners() {
  const std::vector<float> plain{1.0f, 3.0f, 3.0f, -2.0f};
  const std::vector<float> other{4.0f, 1.0f, 1.0f, -kInf};
  CHECK(fdq::score_row(plain.data(), plain.data(), 4, 0).divergence == 0, "a row from itself");
  CHECK(fdq::score_row(plain.data(), static_cast<const float*>(nullptr), 4, 0).agrees, "no reference");
  CHECK(fdq::score_row(plain.data(), plain.data(), 4, 0).best == 1, "the first of equals");
  CHECK(!fdq::score_row(other.data(), plain.data(), 4, 0).agrees, "another best token");
  CHECK(std::isinf(fdq::score_row(other.data(), plain.data(), 4, 0).divergence), "impossible here, possible there");
  CHECK(std::isfinite(fdq::score_row(plain.data(), other.data(), 4, 0).divergence), "possible here only");
  const std::vector<float> nan{1.0f, kNaN, 0.0f, 0.0f}, nothing(4, -kInf);
  for (const std::vector<float>& bad : {nan, nothing}) {
    CHECK(std::isnan(fdq::score_row(bad.data(), plain.data(), 4, 0).nll), "a bad row");
    CHECK(std::isnan(fdq::score_row(plain.data(), bad.data(), 4, 0).nll), "a bad reference");
    std::vector<uint16_t> small(4);
    fdq::compress_row(bad.data(), 4, small.data());
    CHECK(std::isnan(fdq::score_row(plain.data(), small.data(), 4, 0).nll), "a bad compressed reference");
  }
}

// Every distance that binary16 has comes back as it was; between two of them the nearer is taken, the even one of
// a tie.
void check_rounding() {
  const auto compress = [](float distance) {
    const float row[2] = {0.0f, -distance};
    uint16_t small[2];
    fdq::compress_row(row, 2, small);
    CHECK(small[0] == 0x8000 || small[0] == 0, "the largest is %x", small[0]);
    return static_cast<uint32_t>(small[1]);
  };
  const auto value = [](uint32_t code) {
    const uint32_t exponent = code >> 10, fraction = code & 0x3ff;
    return exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                         : std::ldexp(static_cast<float>(1024 + fraction), static_cast<int>(exponent) - 25);
  };
  for (uint32_t code = 0; code < 0x7bff; ++code) {
    const float low = value(code), high = value(code + 1), middle = (low + high) / 2;
    CHECK(compress(low) == (0x8000 | code), "code %x", code);
    CHECK(compress(middle) == (0x8000 | (code + code % 2)), "tie at %x", code);
    CHECK(compress(std::nextafter(middle, 0.0f)) == (0x8000 | code), "below %x", code);
    CHECK(compress(std::nextafter(middle, kInf)) == (0x8000 | (code + 1)), "above %x", code);
  }
  CHECK(compress(1e6f) == 0xfc00 && compress(kInf) == 0xfc00, "beyond binary16");
}

}  // namespace
}  // namespace fdq_test

int main() {
  fdq_test::check_kernels();
  fdq_test::check_rows();
  fdq_test::check_corners();
  fdq_test::check_rounding();
  return fdq_test::finish("score");
}
