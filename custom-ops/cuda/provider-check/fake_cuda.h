// What the fake CUDA runtime saw, for the program that checks ONNX Runtime's CUDA execution provider on it.
#pragma once

#include <cstddef>
#include <cstdint>

struct FakeCudaStats {
  uint64_t device_bytes;        // allocated now
  uint64_t to_device, to_host;  // bytes copied since the last reset
  uint64_t copies, set_device_calls;
  uint64_t violations;  // of all time: what real CUDA forbids, each with a line in the log
};

enum FakeCudaMemory : int { kFakeHost = 0, kFakeDevice = 1, kFakePinned = 2 };

extern "C" {
FakeCudaStats fake_cuda_stats();
// Empties the log and zeroes the counts of what has happened, except for violations.
void fake_cuda_reset();
// One line for each call that matters, oldest first, until the next reset.
const char* fake_cuda_log();
FakeCudaMemory fake_cuda_memory_of(const void* pointer);
}
