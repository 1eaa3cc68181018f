// Elementwise maths over `Vec`, 16 float32 lanes. A translation unit includes exactly one of
// vector_math_{scalar,avx2,avx512}.h, which define Vec in an anonymous namespace, so that code built for one
// instruction set can never be linked in place of another's.
#pragma once

#include <cstdint>

namespace fdq {

// exp(x) within 2 ulp for every float32: overflow gives infinity, results below 2^-126 are rounded once to a
// denormal, NaN stays NaN.
// Cody & Waite (Software Manual for the Elementary Functions, 1980): x = n ln2 + r with ln2 in two parts, the
// first short enough that n times it is exact; exp(r) by a polynomial through Chebyshev nodes on
// [-ln2/2, ln2/2], relative error 1.1e-8.
template <typename V>
inline V exp_lanes(V x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Past these bounds the result is infinity or 0 whatever x is; NaN passes both, as the second operand wins.
  x = V::min(V::set(90.0f), V::max(V::set(-105.0f), x));
  const V n = V::round(V::mul(x, V::set(kLog2E)));
  V r = V::fma(n, V::set(-kLn2High), x);
  r = V::fma(n, V::set(-kLn2Low), r);
  V p = V::set(0.00139262504f);
  p = V::fma(p, r, V::set(0.00836323295f));
  p = V::fma(p, r, V::set(0.0416665524f));
  p = V::fma(p, r, V::set(0.166665763f));
  p = V::fma(p, r, V::set(0.5f));
  p = V::add(V::fma(V::mul(r, r), p, r), V::set(1.0f));
  return V::scale_by_power_of_two(p, n);
}

}  // namespace fdq
