// What library.py calls by ctypes: the bytes that the CPU's quantizers make, in the layouts of the device,
// and the layout of the structs of fdq/cuda.h.
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/number_formats.h"
#include "cpu/quantize.h"
#include "cuda/layout.h"
#include "fdq/cuda.h"

#define FDQ_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using fdq::ElementType;
using fdq::WeightFormat;

std::string describe_layout() {
  std::string text;
  const auto add = [&](const char* name, size_t number) {
    text += std::string(name) + " " + std::to_string(number) + "\n";
  };
  add("version", fdq::cuda::kApiVersion);
  add("Weight", sizeof(fdq::cuda::Weight));
  add("ActivationArgs", sizeof(fdq::cuda::ActivationArgs));
  add("ConvertArgs", sizeof(fdq::cuda::ConvertArgs));
  add("Fp8LinearArgs", sizeof(fdq::cuda::Fp8LinearArgs));
  add("WeightOnlyArgs", sizeof(fdq::cuda::WeightOnlyArgs));
  add("RepackArgs", sizeof(fdq::cuda::RepackArgs));
  add("QuantizeWeightArgs", sizeof(fdq::cuda::QuantizeWeightArgs));
  add("DeviceInfo", sizeof(fdq::cuda::DeviceInfo));
#define FDQ_FUNCTION(name) add(#name, offsetof(fdq::cuda::Api, name))
  FDQ_FUNCTION(device_info);
  FDQ_FUNCTION(quantize_activations);
  FDQ_FUNCTION(convert_activations);
  FDQ_FUNCTION(repack_weight);
  FDQ_FUNCTION(fp8_linear);
  FDQ_FUNCTION(fp8_linear_workspace);
  FDQ_FUNCTION(weight_only_linear);
  FDQ_FUNCTION(weight_only_workspace);
  FDQ_FUNCTION(quantize_weight);
#undef FDQ_FUNCTION
  return text;
}

}  // namespace

// Lines of a name and a number: sizes of structs, offsets of functions in the table.
FDQ_EXPORT const char* fdq_oracle_layout() {
  static const std::string text = describe_layout();
  return text.c_str();
}

// Panels of formats.h to the layout of the device, a code at a time.
FDQ_EXPORT void fdq_oracle_to_device(WeightFormat format, int64_t n, int64_t k, const uint8_t* panels,
                                     uint8_t* out) {
  using fdq::cuda::Layout;
  const int64_t padded = fdq::padded_k(k), bytes = fdq::panel_bytes(format, k);
  const int mask = (1 << fdq::cuda::code_bits(format)) - 1;
  std::memset(out, 0, static_cast<size_t>(fdq::num_panels(n) * bytes));
  for (int64_t panel = 0; panel < fdq::num_panels(n); ++panel) {
    for (int row = 0; row < fdq::kPanelRows; ++row) {
      for (int64_t column = 0; column < padded; ++column) {
        const fdq::cuda::Code code{row, column};
        const auto from = fdq::cuda::place_of(Layout::kPanels, format, padded, code);
        const auto to = fdq::cuda::place_of(fdq::cuda::device_layout(format), format, padded, code);
        const int value = panels[panel * bytes + from.byte] >> from.shift & mask;
        out[panel * bytes + to.byte] |= static_cast<uint8_t>(value << to.shift);
      }
    }
  }
}

// Codes in the layout of the device and scales, as quantize_weight of fdq/cuda.h promises them. Returns the
// row-major index of the first value that is not finite, or -1.
FDQ_EXPORT int64_t fdq_oracle_quantize_weight(const void* source, ElementType element, WeightFormat format,
                                              int64_t n, int64_t k, int group_n, int group_k, uint8_t* codes,
                                              float* scales, int64_t num_scales) {
  const fdq::Isa isa = fdq::detect_isa();
  std::vector<uint8_t> panels(static_cast<size_t>(fdq::num_panels(n) * fdq::panel_bytes(format, k)));
  fdq::QuantizeArgs args{};
  args.source = source;
  args.element = element;
  args.n = args.rows = n;
  args.k = k;
  args.format = format;
  args.group_n = group_n;
  args.group_k = group_k;
  args.weight = panels.data();
  args.scales = scales;
  args.packed = true;
  fdq::NonFinite bad;
  if (group_n == 0) {
    float largest = 0;
    bad = measure_rows(args, isa, &largest);
    for (int64_t i = 0; i < num_scales; ++i) scales[i] = fdq::tensor_scale(format, largest);
  }
  if (!bad.found) bad = quantize_rows(args, isa);
  if (bad.found) return bad.row * k + bad.column;
  fdq_oracle_to_device(format, n, k, panels.data(), codes);
  return -1;
}

// One run of values that share a scale: codes, and the scale unless it is given (static_scale > 0).
FDQ_EXPORT float fdq_oracle_quantize_run(const void* source, ElementType element, int64_t count, int is_int8,
                                         float static_scale, uint8_t* codes) {
  const WeightFormat format = is_int8 != 0 ? WeightFormat::kInt8 : WeightFormat::kE4M3;
  const fdq::QuantizeKernels kernels = fdq::quantize_kernels(fdq::detect_isa());
  const float scale =
      static_scale > 0
          ? static_scale
          : fdq::scale_of(fdq::bits_float(kernels.max_magnitude(source, element, count)), format);
  kernels.encode(source, element, count, format, scale, codes);
  return scale;
}
