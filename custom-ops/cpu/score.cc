#include "fdq/score.h"

#include <cmath>
#include <limits>
#include <vector>

#include "cpu/number_formats.h"
#include "cpu/sample.h"

namespace fdq {
namespace {

constexpr uint16_t kHalfNaN = 0x7e00;

bool is_distribution(const RowScan& scan) { return !scan.has_nan && std::isfinite(scan.maximum); }

// value <= 0
uint16_t negative_to_float16(float value) {
  const uint32_t magnitude = float_bits(value) & 0x7fffffffu;
  uint32_t code;
  if (magnitude >= 113u << 23) {  // 2^-14 and above: keep ten bits of the fraction
    code = ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  } else {  // the unit in the last place of 1/2 is 2^-24, that of subnormal codes
    code = float_bits(bits_float(magnitude) + 0.5f) - float_bits(0.5f);
  }
  return static_cast<uint16_t>(0x8000u | (code > 0x7c00u ? 0x7c00u : code));
}

}  // namespace

RowScore score_row(const float* logits, const float* reference, int64_t vocab, int64_t target) {
  const SampleKernels& kernels = sample_kernels();
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const RowScan scan = kernels.scan(logits, vocab);
  if (!is_distribution(scan)) return {kNaN, kNaN, 0, false};
  const double log_sum = std::log(kernels.sum_exp(logits, vocab, scan.maximum));
  const double above = static_cast<double>(logits[target]) - static_cast<double>(scan.maximum);
  const int64_t best = kernels.find(logits, vocab, scan.maximum);
  RowScore score{log_sum - above, 0, static_cast<int32_t>(best), true};
  if (reference == nullptr) return score;
  const RowScan exact = kernels.scan(reference, vocab);
  if (!is_distribution(exact)) return {kNaN, kNaN, score.best, false};
  const int64_t expected = kernels.find(reference, vocab, exact.maximum);
  // Relative to the reference's largest in both rows, so that a common offset costs no precision.
  const float base = logits[expected];
  const DivergenceSums sums = kernels.diverge(reference, exact.maximum, logits, base, vocab);
  const double log_other = log_sum + (static_cast<double>(scan.maximum) - static_cast<double>(base));
  score.divergence = sums.weighted / sums.mass - (std::log(sums.mass) - log_other);
  score.agrees = best == expected;
  return score;
}

RowScore score_row(const float* logits, const uint16_t* reference, int64_t vocab, int64_t target) {
  thread_local std::vector<float> widened;
  widened.resize(static_cast<size_t>(vocab));
  for (int64_t v = 0; v < vocab; ++v) widened[static_cast<size_t>(v)] = float16_to_float(reference[v]);
  return score_row(logits, widened.data(), vocab, target);
}

void compress_row(const float* logits, int64_t vocab, uint16_t* compressed) {
  const RowScan scan = sample_kernels().scan(logits, vocab);
  const bool valid = is_distribution(scan);
  for (int64_t v = 0; v < vocab; ++v) {
    compressed[v] = valid ? negative_to_float16(logits[v] - scan.maximum) : kHalfNaN;
  }
}

}  // namespace fdq
