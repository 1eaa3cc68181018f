// The device of the calling thread.
#include "cuda/device.cuh"

namespace fdq::cuda {

#ifdef FDQ_CUDA_EMULATE

Error device_info(DeviceInfo* info) {
  const emu::Device& device = emu::device();
  *info = {device.major, device.minor, device.multiprocessors, device.shared_bytes_per_block};
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

#endif

}  // namespace fdq::cuda
