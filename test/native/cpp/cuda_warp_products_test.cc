// Emulated products whose operands lie in registers, and what the lanes of a warp exchange: every value names
// its place.
#include <cstring>
#include <string>
#include <vector>

#include "cpu/number_formats.h"
#include "cuda/emulator/emulator.h"
#include "cuda/ptx/barrier.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "linear_support.h"

namespace fdq::test {
namespace {

using namespace fdq::ptx;

constexpr int kSeeds = 12;

// A of registers [64, 16] times B [N, 16] written by plain stores, in bfloat16.
template <bool kFenced>
void multiply_registers(const uint16_t* a, const uint16_t* b, float* y) {
  constexpr int kN = 16;
  unsigned char* shared = cuda::shared_memory();
  for (int i = static_cast<int>(threadIdx.x); i < kN * 16; i += static_cast<int>(blockDim.x)) {
    const uint32_t offset = static_cast<uint32_t>(i / 16 * 32 + i % 16 * 2);
    // The 32-byte swizzle: bit 4 is xored with bit 7.
    std::memcpy(shared + (offset ^ (offset >> 3 & 0x10u)), &b[i], 2);
  }
  if (kFenced) fence_async_shared();
  sync_block();
  const int row = warp() * 16 + lane() / 4, t = lane() % 4;
  uint32_t registers[4];
  for (int i = 0; i < 4; ++i) {
    std::memcpy(&registers[i], &a[(row + i % 2 * 8) * 16 + i / 2 * 8 + 2 * t], 4);
  }
  float d[kN / 2];
  wgmma_fence();
  Wgmma<kN>::bfloat16(d, registers, wgmma_operand<cuda::Swizzle::k32>(shared), false);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < kN / 2; ++i) {
    y[(row + i / 2 % 2 * 8) * kN + i / 4 * 8 + 2 * t + i % 2] = d[i];
  }
}

// The same A, 16 rows of it, from shared memory by ldmatrix, and B's 8 columns, with mma.sync.
void multiply_warp(const uint16_t* a, const uint16_t* b, float* y) {
  unsigned char* shared = cuda::shared_memory();
  for (int i = lane(); i < 32; i += kWarp)
    cp_async_16(shared + 16 * i, reinterpret_cast<const unsigned char*>(a) + 16 * i);
  for (int i = lane(); i < 16; i += kWarp) {
    cp_async_16(shared + 512 + 16 * i, reinterpret_cast<const unsigned char*>(b) + 16 * i);
  }
  cp_async_commit();
  cp_async_wait<0>();
  sync_block();
  uint32_t fa[4], fb[2];
  load_matrix_x4(fa, shared + (lane() % 16) * 32 + lane() / 16 * 16);
  load_matrix_x2(fb, shared + 512 + (lane() % 8) * 32 + lane() / 8 % 2 * 16);
  float d[4] = {0, 0, 0, 0};
  mma_bfloat16(d, fa, fb);
  for (int i = 0; i < 4; ++i) y[(lane() / 4 + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2] = d[i];
}

void test_registers() {
  Random random(3);
  std::vector<uint16_t> a(64 * 16), b(16 * 16);
  for (uint16_t& value : a) value = float_to_bfloat16(static_cast<float>(random.below(17)) - 8);
  for (uint16_t& value : b) value = float_to_bfloat16(static_cast<float>(random.below(17)) - 8);
  const auto expected = [&](int row, int column) {
    float sum = 0;
    for (int k = 0; k < 16; ++k) {
      sum += bfloat16_to_float(a[static_cast<size_t>(row * 16 + k)]) *
             bfloat16_to_float(b[static_cast<size_t>(column * 16 + k)]);
    }
    return sum;
  };
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    emu::set_seed(seed);
    std::vector<float> y(64 * 16);
    cuda::launch(multiply_registers<true>, {dim3(1), dim3(128), 512}, nullptr, a.data(), b.data(), y.data());
    for (int i = 0; i < 64 * 16; ++i) {
      CHECK(y[static_cast<size_t>(i)] == expected(i / 16, i % 16), "wgmma at %d, %d", i / 16, i % 16);
    }
    cuda::launch(multiply_warp, {dim3(1), dim3(32), 768}, nullptr, a.data(), b.data(), y.data());
    for (int i = 0; i < 16 * 8; ++i) {
      CHECK(y[static_cast<size_t>(i)] == expected(i / 8, i % 8), "mma at %d, %d", i / 8, i % 8);
    }
    std::string text;
    try {
      cuda::launch(multiply_registers<false>, {dim3(1), dim3(128), 512}, nullptr, a.data(), b.data(),
                   y.data());
    } catch (const emu::Fault& fault) {
      text = fault.what();
    }
    CHECK(text.find("fence_async_shared") != std::string::npos, "plain stores without a fence: %s",
          text.c_str());
  }
}

// Bytes: every element of both operands is found in its place.
void multiply_bytes(int32_t* y) {
  const int g = lane() / 4, t = lane() % 4;
  uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i) {
    a[i] = 0;
    for (int j = 0; j < 4; ++j) {
      const int row = g + i % 2 * 8, k = i / 2 * 16 + 4 * t + j;
      a[i] |= static_cast<uint32_t>(static_cast<uint8_t>(row * 3 - k)) << 8 * j;
    }
  }
  for (int i = 0; i < 2; ++i) {
    b[i] = 0;
    for (int j = 0; j < 4; ++j)
      b[i] |= static_cast<uint32_t>(static_cast<uint8_t>(g - (16 * i + 4 * t + j) % 7)) << 8 * j;
  }
  int32_t d[4] = {1, 1, 1, 1};
  mma_int8(d, a, b);
  for (int i = 0; i < 4; ++i) y[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

void test_bytes() {
  std::vector<int32_t> y(16 * 8);
  cuda::launch(multiply_bytes, {dim3(1), dim3(32)}, nullptr, y.data());
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int32_t sum = 1;
      for (int k = 0; k < 32; ++k) sum += static_cast<int8_t>(row * 3 - k) * (column - k % 7);
      CHECK(y[static_cast<size_t>(row * 8 + column)] == sum, "mma_int8 at %d, %d", row, column);
    }
  }
}

void reduce(float* out, uint32_t* bits) {
  const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  out[thread] = reduce_sum<8>(static_cast<float>(thread));
  bits[thread] = ballot(thread % 3 == 0) + reduce_max(static_cast<uint32_t>(thread));
}

void test_warps() {
  std::vector<float> sums(192);
  std::vector<uint32_t> bits(192);
  cuda::launch(reduce, {dim3(3), dim3(64)}, nullptr, sums.data(), bits.data());
  for (int i = 0; i < 192; ++i) {
    uint32_t expected = static_cast<uint32_t>(i / 32 * 32 + 31);
    for (int lane = 0; lane < 32; ++lane) expected += (i / 32 * 32 + lane) % 3 == 0 ? 1u << lane : 0;
    CHECK(sums[static_cast<size_t>(i)] == static_cast<float>(i / 8 * 64 + 28), "sum of %d", i);
    CHECK(bits[static_cast<size_t>(i)] == expected, "bits of %d", i);
  }
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_registers();
  test_bytes();
  test_warps();
  return fdq_test::finish("cuda_warp_products_test");
}
