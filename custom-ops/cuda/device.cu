// The device of the calling thread, and its memory.
#include "cuda/device.cuh"

namespace fdq::cuda {
namespace {

Error check_capability() {
  DeviceInfo info{};
  if (const Error error = device_info(&info)) return error;
  return info.major < 8 ? "the kernels need a GPU of compute capability 8.0 or later" : nullptr;
}

}  // namespace

#ifdef FDQ_CUDA_EMULATE

Error device_info(DeviceInfo* info) {
  const emu::Device& device = emu::device();
  *info = {device.major, device.minor, device.multiprocessors, device.shared_bytes_per_block};
  return nullptr;
}

Error check_device() { return check_capability(); }

Error fill_zero(void* memory, int64_t bytes) {
  memset(memory, 0, static_cast<size_t>(bytes));
  return nullptr;
}

Error copy_to_host(void* host, const void* memory, int64_t bytes) {
  memcpy(host, memory, static_cast<size_t>(bytes));
  return nullptr;
}

#else

Error device_info(DeviceInfo* info) {
  int device = 0;
  cudaError_t status = cudaGetDevice(&device);
  const auto read = [&](int* value, cudaDeviceAttr attribute) {
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(value, attribute, device);
  };
  read(&info->major, cudaDevAttrComputeCapabilityMajor);
  read(&info->minor, cudaDevAttrComputeCapabilityMinor);
  read(&info->multiprocessors, cudaDevAttrMultiProcessorCount);
  read(&info->shared_bytes_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return error_text(status);
}

// In the library for every device that it was built for.
__global__ void built_for_device() {}

Error check_device() {
  if (const Error error = check_capability()) return error;
  cudaFuncAttributes attributes;
  return error_text(cudaFuncGetAttributes(&attributes, built_for_device));
}

// Sets up memory that no capture under way in another thread has to do with, so that it breaks none.
template <typename Call>
Error set_up(const Call& call) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaError_t status = cudaThreadExchangeStreamCaptureMode(&mode);
  if (status != cudaSuccess) return error_text(status);
  status = call();
  const cudaError_t restored = cudaThreadExchangeStreamCaptureMode(&mode);
  return error_text(status == cudaSuccess ? restored : status);
}

Error fill_zero(void* memory, int64_t bytes) {
  return set_up([=] {
    const cudaError_t status = cudaMemset(memory, 0, static_cast<size_t>(bytes));
    // Streams that do not wait for the default one must find the zeros too.
    return status == cudaSuccess ? cudaStreamSynchronize(nullptr) : status;
  });
}

Error copy_to_host(void* host, const void* memory, int64_t bytes) {
  return set_up([=] { return cudaMemcpy(host, memory, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost); });
}

#endif

}  // namespace fdq::cuda
