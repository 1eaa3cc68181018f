#include <cmath>

#include "fdq/ops.h"

namespace fdq {
namespace {

// The frequency of pair i for a token at position p past the trained context, by the dynamic NTK rule of
// Hugging Face transformers (after u/emozilla and u/bloc97, 2023).
float ntk_frequency(const RotaryArgs& args, int64_t position, int64_t i) {
  const double d = 2.0 * static_cast<double>(args.pairs);
  const double factor = args.ntk_factor;
  const double length = static_cast<double>(position + 1) / static_cast<double>(args.ntk_original);
  const double base = args.ntk_base * std::pow(factor * length - (factor - 1.0), d / (d - 2.0));
  return static_cast<float>(std::pow(base, -2.0 * static_cast<double>(i) / d));
}

}  // namespace

void rotary_table(const RotaryArgs& args) {
  for (int64_t t = 0; t < args.tokens; ++t) {
    const int64_t position = args.positions[t];
    const bool stretched = args.ntk_original > 0 && position + 1 > args.ntk_original;
    float* cosines = args.output + t * 2 * args.pairs;
    float* sines = cosines + args.pairs;
    for (int64_t i = 0; i < args.pairs; ++i) {
      const float frequency = stretched ? ntk_frequency(args, position, i) : args.inverse_frequencies[i];
      const float angle = static_cast<float>(position) * frequency;
      cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * args.attention_factor;
      sines[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * args.attention_factor;
    }
  }
}

}  // namespace fdq
