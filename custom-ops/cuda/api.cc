// The one symbol of libfdq_cuda.so.
#include "fdq/cuda.h"

const fdq::cuda::Api* fdq_cuda_api(uint32_t version) {
  static constexpr fdq::cuda::Api kApi = {
      fdq::cuda::kApiVersion,         fdq::cuda::device_info,
      fdq::cuda::check_device,        fdq::cuda::fill_zero,
      fdq::cuda::copy_to_host,        fdq::cuda::quantize_activations,
      fdq::cuda::convert_activations, fdq::cuda::repack_weight,
      fdq::cuda::fp8_linear,          fdq::cuda::fp8_linear_workspace,
      fdq::cuda::weight_only_linear,  fdq::cuda::weight_only_workspace,
      fdq::cuda::quantize_weight,
  };
  return version == fdq::cuda::kApiVersion ? &kApi : nullptr;
}
