// Codes of a weight between the panels of the CPU and the layout of the device.
#include "cuda/device.cuh"
#include "cuda/layout.h"
#include "cuda/ptx/memory.cuh"

namespace fdq::cuda {
namespace {

constexpr int kThreads = 256;

struct RepackJob {
  const uint8_t* source;
  uint8_t* target;
  Layout from, to;
  int64_t padded, panel_units, units;
};

// A thread makes 16 bytes of the target.
template <WeightFormat F>
__global__ void repack_codes(RepackJob job) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= job.units) return;
  const int64_t panel = index / job.panel_units, unit = index % job.panel_units;
  const uint8_t* source = job.source + panel * job.panel_units * kUnitBytes;
  constexpr uint32_t kMask = (1u << code_bits(F)) - 1;
  constexpr int kPerWord = 32 / code_bits(F);
  ptx::Quad out;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kPerWord; ++i) {
      const Place place =
          place_of(job.from, F, job.padded, code_of(job.to, F, job.padded, unit, word * kPerWord + i));
      bits |= (static_cast<uint32_t>(source[place.byte]) >> place.shift & kMask) << i * code_bits(F);
    }
    out.word[word] = bits;
  }
  ptx::store_quad(job.target + index * kUnitBytes, out);
}

}  // namespace

Error repack_weight(const RepackArgs& args, void* stream) {
  if (args.format != WeightFormat::kE4M3 && args.format != WeightFormat::kInt8 &&
      args.format != WeightFormat::kInt4) {
    return "only e4m3, int8 and int4 weights have a layout on the device";
  }
  if (args.n <= 0 || args.k <= 0) return "a weight must not be empty";
  const Layout device = device_layout(args.format);
  RepackJob job{};
  job.source = static_cast<const uint8_t*>(args.source);
  job.target = static_cast<uint8_t*>(args.target);
  job.from = args.to_panels ? device : Layout::kPanels;
  job.to = args.to_panels ? Layout::kPanels : device;
  job.padded = padded_k(args.k);
  job.panel_units = panel_bytes(args.format, args.k) / kUnitBytes;
  job.units = num_panels(args.n) * job.panel_units;
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div(job.units, kThreads))), dim3(kThreads)};
  return args.format == WeightFormat::kInt4 ? launch(repack_codes<WeightFormat::kInt4>, shape, stream, job)
                                            : launch(repack_codes<WeightFormat::kInt8>, shape, stream, job);
}

}  // namespace fdq::cuda
