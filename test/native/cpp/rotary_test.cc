// rotary_table against long double, with and without dynamic NTK scaling.
#include <cmath>
#include <vector>

#include "check.h"
#include "fdq/ops.h"

namespace fdq_test {
namespace {

void check_table(int64_t pairs, float attention_factor, int64_t ntk_original) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < pairs; ++i) {
    frequencies.push_back(
        static_cast<float>(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(pairs))));
  }
  const std::vector<int32_t> positions{0, 1, 63, 64, 65, 4095, 131071};
  fdq::RotaryArgs args{};
  args.positions = positions.data();
  args.tokens = static_cast<int64_t>(positions.size());
  args.inverse_frequencies = frequencies.data();
  args.pairs = pairs;
  args.attention_factor = attention_factor;
  args.ntk_base = 10000.0f;
  args.ntk_factor = 2.0f;
  args.ntk_original = ntk_original;
  std::vector<float> table(static_cast<size_t>(args.tokens * 2 * pairs));
  args.output = table.data();
  fdq::rotary_table(args);
  for (size_t t = 0; t < positions.size(); ++t) {
    const int64_t length = positions[t] + 1;
    for (int64_t i = 0; i < pairs; ++i) {
      float frequency = frequencies[static_cast<size_t>(i)];
      if (ntk_original > 0 && length > ntk_original) {
        const long double d = 2.0L * pairs;
        const long double stretch = 2.0L * length / ntk_original - 1.0L;
        const long double base = 10000.0L * std::pow(stretch, d / (d - 2.0L));
        frequency = static_cast<float>(std::pow(base, -2.0L * i / d));
      }
      const float angle = static_cast<float>(positions[t]) * frequency;
      const float cosine = static_cast<float>(std::cos(static_cast<long double>(angle))) * attention_factor;
      const float sine = static_cast<float>(std::sin(static_cast<long double>(angle))) * attention_factor;
      const float* row = table.data() + static_cast<int64_t>(t) * 2 * pairs;
      CHECK(row[i] == cosine && row[pairs + i] == sine,
            "pairs %d position %d pair %d: %.9g %.9g, expected %.9g %.9g", static_cast<int>(pairs),
            positions[t], static_cast<int>(i), static_cast<double>(row[i]),
            static_cast<double>(row[pairs + i]), static_cast<double>(cosine), static_cast<double>(sine));
    }
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  for (int64_t pairs : {1, 2, 7, 32, 64}) {
    fdq_test::check_table(pairs, 1.0f, 0);
    fdq_test::check_table(pairs, 1.2079f, 64);
  }
  return fdq_test::finish("rotary");
}
