// exp over all of float32, and SwiGLU, for every instruction set.
#include "cpu/swiglu.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "attention_case.h"
#include "check.h"

namespace fdq_test {
namespace {

constexpr double kMaxUlp = 2.0;

fdq::SwigluKernels kernels_of(fdq::Isa isa) {
  if (isa >= fdq::Isa::kAvx512) return fdq::swiglu_kernels_avx512();
  return isa == fdq::Isa::kAvx2 ? fdq::swiglu_kernels_avx2() : fdq::swiglu_kernels_scalar();
}

// Distance in units of the last place of the exact value.
double ulp_error(float got, double exact) {
  const double size = std::fabs(exact);
  const int exponent = size < 0x1p-126 ? -126 : std::ilogb(size);
  return std::fabs(got - exact) / std::ldexp(1.0, exponent - 23);
}

void check_exp(fdq::Isa isa) {
  const fdq::SwigluKernels kernels = kernels_of(isa);
  // Every 499th float32 bit pattern: all exponents and signs, NaNs and infinities.
  constexpr uint32_t kStride = 499, kBatch = 4096;
  std::vector<float> x(kBatch), y(kBatch);
  double worst = 0;
  float worst_at = 0;
  for (uint64_t start = 0; start < 0x100000000u; start += static_cast<uint64_t>(kStride) * kBatch) {
    for (uint32_t i = 0; i < kBatch; ++i) {
      const auto bits = static_cast<uint32_t>(start + static_cast<uint64_t>(i) * kStride);
      std::memcpy(&x[i], &bits, 4);
    }
    kernels.exp_array(x.data(), kBatch, y.data());
    for (uint32_t i = 0; i < kBatch; ++i) {
      if (std::isnan(x[i])) {
        if (!std::isnan(y[i]))
          CHECK(false, "%s exp(NaN) = %g", fdq::isa_name(isa), static_cast<double>(y[i]));
        continue;
      }
      const double exact = std::exp(static_cast<double>(x[i]));
      const bool overflows = exact > 3.4028235677973366e38;
      const double error = overflows ? (std::isinf(y[i]) ? 0 : INFINITY) : ulp_error(y[i], exact);
      if (!(error <= worst)) {
        worst = error;
        worst_at = x[i];
      }
    }
  }
  CHECK(worst <= kMaxUlp, "%s exp is %g ulp off at %.9g", fdq::isa_name(isa), worst,
        static_cast<double>(worst_at));
  std::printf("%s: exp within %.3f ulp\n", fdq::isa_name(isa), worst);
}

void check_rows(fdq::Isa isa) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 6);
  int threads = 2;
  for (int64_t width : {1, 7, 16, 33, 300, 20000}) {
    const int64_t tokens = width > 1000 ? 3 : 5;
    std::vector<float> x(static_cast<size_t>(tokens * 2 * width)), y(static_cast<size_t>(tokens * width));
    for (float& v : x) v = normal(random);
    fdq::swiglu(x.data(), tokens, width, y.data(), isa, make_parallel(&threads));
    for (int64_t t = 0; t < tokens; ++t) {
      double worst = 0;
      for (int64_t i = 0; i < width; ++i) {
        const double a = x[t * 2 * width + i], b = x[t * 2 * width + width + i];
        worst = std::max(worst, ulp_error(y[t * width + i], a / (1 + std::exp(-a)) * b));
      }
      CHECK(worst < 5, "%s width %d: %g ulp", fdq::isa_name(isa), static_cast<int>(width), worst);
      std::vector<float> alone(static_cast<size_t>(width));
      fdq::swiglu(x.data() + t * 2 * width, 1, width, alone.data(), isa, make_parallel(&threads));
      CHECK(std::memcmp(alone.data(), y.data() + t * width, alone.size() * sizeof(float)) == 0,
            "%s width %d: token %d differs alone", fdq::isa_name(isa), static_cast<int>(width),
            static_cast<int>(t));
    }
  }
}

}  // namespace
}  // namespace fdq_test

int main() {
  for (fdq::Isa isa : fdq_test::machine_isas()) {
    if (isa > fdq::Isa::kAvx512) continue;  // later sets share AVX-512's code
    fdq_test::check_exp(isa);
    fdq_test::check_rows(isa);
  }
  return fdq_test::finish("swiglu");
}
