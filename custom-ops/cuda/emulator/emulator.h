// CUDA kernels on the host, to prove them without a GPU: every thread of a block is a fiber, and what
// hardware does asynchronously happens late, early or in any order in between, drawn from a seed.
//
// A kernel that would hang, or read what is not there yet, is reported as a Fault:
//   - all threads wait (with who waits for what), a barrier that is misused, lanes that diverge in a
//   collective;
//   - the destination of a copy under way is read by ldmatrix, wgmma or a TMA store (a plain load sees NaNs);
//   - shared memory written by plain stores is read by TMA or wgmma without fence_async_shared(), or is
//   written
//     while those still read it; shared memory out of range; misaligned addresses, wrong swizzle atoms;
//   - accumulators of wgmma that are used before the wait (they hold NaNs until then), products without a
//     fence, a commit or a wait, warps of a warpgroup that issue different ones;
//   - barriers that part of a warp arrives at; setmaxnreg by part of a warpgroup, or for more registers than
//   there are;
//   - a block that ends with copies or products under way, or with arrivals left at a barrier.
// Global memory is the caller's: with AddressSanitizer or guard pages behind it, every access is checked.
//
// Not emulated: the registers, timing and bank conflicts; the narrow accumulator of fp8 products (sums here
// are exact to float32); the visibility of plain stores between threads without a barrier.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

// The words of CUDA C++ that kernels use.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
// Of the thread that runs.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace fdq::emu {

struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Grid {
  dim3 grid, block;
  int64_t shared_bytes;
  unsigned cluster;
};

// Runs every block, a few at a time. Throws Fault.
void run_grid(const Grid& grid, const std::function<void()>& kernel);

// Of all runs that follow. Equal seeds give equal runs.
void set_seed(uint64_t seed);

struct Device {
  int major = 9, minor = 0;
  int multiprocessors = 3;
  int shared_bytes_per_block = 227 * 1024;
};
Device& device();

// ---------------------------------------------------------------------------------------------------------
// What ptx/*.cuh and device.cuh call, by the thread that runs.

unsigned char* shared_memory();
uint32_t shared_address(const void* pointer);
void check_aligned(const char* what, const void* pointer, uintptr_t alignment);
uint16_t float_to_float16(float value);

std::array<uint32_t, 32> warp_exchange(const char* name, uint32_t value);
int block_threads();
void block_barrier(int barrier, int threads, bool wait);
void set_max_registers(int count);
uint32_t cluster_rank();
void cluster_barrier();

uint32_t atomic_add(uint32_t* global, uint32_t value);
uint32_t load_acquire(const uint32_t* global);

void barrier_init(uint64_t* barrier, uint32_t count);
void fence_barrier_init();
void barrier_arrive(uint64_t* barrier, uint32_t expected_bytes);
void barrier_arrive_cluster(uint64_t* barrier, uint32_t rank);
bool barrier_try_wait(uint64_t* barrier, uint32_t parity);
void barrier_wait(uint64_t* barrier, uint32_t parity);
void fence_async_shared();

void cp_async(void* shared, const void* global, int bytes);
void cp_async_commit();
void cp_async_wait(int pending);
void load_matrix(uint32_t (&out)[4], const void* shared_row, int matrices);

// `map` is a cuda::TensorMap made by make_tensor_map; blocks 0: to this block only.
void tma_load(void* shared, const void* map, uint64_t* barrier, int row, int column, uint16_t blocks);
void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);
void tma_store(const void* map, const void* shared, int row, int column);
void tma_store_commit();
void tma_store_wait(int pending);

enum class MmaKind { kBFloat16, kFloat16, kE4M3 };
void mma(MmaKind kind, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_int8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

void wgmma_fence();
// A from the registers at a, or by its descriptor where a is null.
void wgmma(MmaKind kind, int n, float* d, const uint32_t* a, uint64_t a_operand, uint64_t b_operand,
           bool accumulate);
void wgmma_commit();
void wgmma_wait(int pending);

}  // namespace fdq::emu

namespace fdq::cuda {
inline unsigned char* shared_memory() { return emu::shared_memory(); }
}  // namespace fdq::cuda
