// float32 activations to bfloat16 or float16. Bound by memory.
#include "cuda/device.cuh"
#include "cuda/values.cuh"

namespace fdq::cuda {
namespace {

constexpr int kThreads = 256;

struct ConvertJob {
  const uint32_t* x;
  int64_t units, units_of_row, k, x_stride;  // a unit: kPerLane values
  uint16_t* y;
  int64_t y_stride;
};

template <ElementType To, bool Whole>
__global__ void __launch_bounds__(kThreads) convert_rows(ConvertJob job) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= job.units) return;
  const int64_t token = unit / job.units_of_row, k = unit % job.units_of_row * kPerLane;
  const auto values = load_values<ElementType::kFloat32, Whole>(job.x + token * job.x_stride, k, job.k);
  ptx::Quad pairs;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs.word[i] = To == ElementType::kBFloat16 ? ptx::to_bfloat16_pair(values[2 * i], values[2 * i + 1])
                                                 : ptx::to_float16_pair(values[2 * i], values[2 * i + 1]);
  }
  ptx::store_quad(job.y + token * job.y_stride + k, pairs);
}

template <ElementType To>
Error launch_to(bool is_whole, const ConvertJob& job, void* stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div(job.units, kThreads))), dim3(kThreads)};
  return is_whole ? launch(convert_rows<To, true>, shape, stream, job)
                  : launch(convert_rows<To, false>, shape, stream, job);
}

Error check(const ConvertArgs& args) {
  if (args.tokens < 0 || args.k < 1 || args.x_stride < args.k) return "convert_activations: impossible shape";
  if (args.y_stride < args.k || args.y_stride % kPerLane != 0 ||
      reinterpret_cast<uintptr_t>(args.y) % 16 != 0) {
    return "convert_activations: rows of y must be multiples of 16 bytes";
  }
  return args.y_element == ElementType::kFloat32 ? "convert_activations: y is bfloat16 or float16" : nullptr;
}

}  // namespace

Error convert_activations(const ConvertArgs& args, void* stream) {
  const Error error = check(args);
  if (error != nullptr || args.tokens == 0) return error;
  ConvertJob job{};
  job.x = reinterpret_cast<const uint32_t*>(args.x);
  job.units_of_row = args.y_stride / kPerLane;
  job.units = args.tokens * job.units_of_row;
  job.k = args.k;
  job.x_stride = args.x_stride;
  job.y = static_cast<uint16_t*>(args.y);
  job.y_stride = args.y_stride;
  const bool is_whole = reinterpret_cast<uintptr_t>(args.x) % 16 == 0 && args.x_stride % 4 == 0;
  return args.y_element == ElementType::kBFloat16 ? launch_to<ElementType::kBFloat16>(is_whole, job, stream)
                                                  : launch_to<ElementType::kFloat16>(is_whole, job, stream);
}

}  // namespace fdq::cuda
