// What the provider check calls of ONNX Runtime beyond ort/ort_api.h; `npm run check:abi` compares it too.
#pragma once

#include "ort/ort_api.h"

namespace fdq::provider_check {

using namespace fdq::ort;

struct OrtCUDAProviderOptionsV2;
struct OrtIoBinding;

enum InputMemory : int { kInputOnHost = -2, kOutputOnHost = -1, kInputDefault = 0 };

#define FDQ_PROVIDER_FUNCTIONS(X)                                                                         \
  X(68, CreateMemoryInfo, OrtStatus*, (const char*, AllocatorType, int, MemoryType, OrtMemoryInfo**))     \
  X(75, AllocatorAlloc, OrtStatus*, (OrtAllocator*, size_t, void**))                                      \
  X(132, ReleaseAllocator, void, (OrtAllocator*))                                                         \
  X(133, RunWithBinding, OrtStatus*, (OrtSession*, const OrtRunOptions*, const OrtIoBinding*))            \
  X(134, CreateIoBinding, OrtStatus*, (OrtSession*, OrtIoBinding**))                                      \
  X(135, ReleaseIoBinding, void, (OrtIoBinding*))                                                         \
  X(136, BindInput, OrtStatus*, (OrtIoBinding*, const char*, const OrtValue*))                            \
  X(137, BindOutput, OrtStatus*, (OrtIoBinding*, const char*, const OrtValue*))                           \
  X(165, AddRunConfigEntry, OrtStatus*, (OrtRunOptions*, const char*, const char*))                       \
  X(193, KernelContext_GetGPUComputeStream, OrtStatus*, (const OrtKernelContext*, void**))                \
  X(204, SessionOptionsAppendExecutionProvider_CUDA_V2, OrtStatus*,                                       \
    (OrtSessionOptions*, const OrtCUDAProviderOptionsV2*))                                                \
  X(205, CreateCUDAProviderOptions, OrtStatus*, (OrtCUDAProviderOptionsV2**))                             \
  X(206, UpdateCUDAProviderOptions, OrtStatus*,                                                           \
    (OrtCUDAProviderOptionsV2*, const char* const*, const char* const*, size_t))                          \
  X(208, ReleaseCUDAProviderOptions, void, (OrtCUDAProviderOptionsV2*))                                   \
  X(253, KernelContext_GetAllocator, OrtStatus*,                                                          \
    (const OrtKernelContext*, const OrtMemoryInfo*, OrtAllocator**))                                      \
  X(263, UpdateCUDAProviderOptionsWithValue, OrtStatus*, (OrtCUDAProviderOptionsV2*, const char*, void*)) \
  X(277, KernelContext_GetScratchBuffer, OrtStatus*,                                                      \
    (const OrtKernelContext*, const OrtMemoryInfo*, size_t, void**))                                      \
  X(278, KernelInfoGetAllocator, OrtStatus*, (const OrtKernelInfo*, InputMemory, OrtAllocator**))

struct ProviderApi {
#define FDQ_PROVIDER_MEMBER(slot, name, result, args) result(*name) args;
  FDQ_PROVIDER_FUNCTIONS(FDQ_PROVIDER_MEMBER)
#undef FDQ_PROVIDER_MEMBER
};

inline ProviderApi bind_provider_api(const void* const* table) {
  ProviderApi api;
#define FDQ_PROVIDER_BIND(slot, name, result, args) api.name = reinterpret_cast<result(*) args>(table[slot]);
  FDQ_PROVIDER_FUNCTIONS(FDQ_PROVIDER_BIND)
#undef FDQ_PROVIDER_BIND
  return api;
}

}  // namespace fdq::provider_check
