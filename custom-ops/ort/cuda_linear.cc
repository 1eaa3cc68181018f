#include "ort/cuda_linear.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "ort/linear_size.h"
#include "ort/runtime.h"

namespace fdq::ort {
namespace {

constexpr int64_t kCodeAlign = 16;    // bytes of a row of e4m3 codes
constexpr int64_t kHalfAlign = 8;     // elements of a row that TMA reads
constexpr int64_t kScaleAlign = 4;    // tokens of a row of scales
constexpr int64_t kPieceAlign = 256;  // bytes, of what shares one allocation

const char* unsupported(const LinearWeight& weight, const LinearActivation& activation, ElementType element,
                        ComputeType compute) {
  const WeightFormat format = weight.shape.format;
  const bool is_tiled = weight.shape.group_n == kTile;
  switch (activation.rule) {
    case ActivationRule::kNone:
      if (format != WeightFormat::kInt8 && format != WeightFormat::kInt4) {
        return "CUDA has kernels for int8 and int4 weights, and for e4m3 weights with e4m3 activations";
      }
      if (element == ElementType::kFloat32 && compute == ComputeType::kFloat32) {
        return "CUDA multiplies int8 and int4 weights in bfloat16 or float16, not in float32";
      }
      return weight.shape.group_n == 1 ? nullptr
                                       : "CUDA takes int8 and int4 weights with scales of rows or groups";
    case ActivationRule::kE4M3Group128:
      if (format != WeightFormat::kE4M3 || !is_tiled) {
        return "CUDA multiplies e4m3 activations in groups of 128 with e4m3 weights in tiles of 128 x 128";
      }
      return nullptr;
    case ActivationRule::kE4M3Token:
    case ActivationRule::kE4M3Static:
      if (format != WeightFormat::kE4M3 || is_tiled || weight.shape.group_k != 0) {
        return "CUDA multiplies e4m3 activations with a scale a token with e4m3 weights with a scale a row "
               "or one in all";
      }
      return nullptr;
    case ActivationRule::kInt8Token:
    case ActivationRule::kInt8Static:
      return "CUDA has no kernel for int8 activations";
  }
  return "unknown activation rule";
}

}  // namespace

void check_cuda(cuda::Error error) {
  if (error == nullptr) return;
  const bool is_other_device = std::strstr(error, "no kernel image") != nullptr;
  throw Error(std::string(error) +
              (is_other_device ? ". The library of CUDA kernels has none for this GPU; npm run build:cuda -- "
                                 "--all builds those of compute capability 8.0, 8.9, 9.0 and 10.0"
                               : ""));
}

CudaLinear::CudaLinear(const cuda::Api& api, const LinearWeight& weight, const LinearActivation& activation,
                       ElementType element, ComputeType compute)
    : api_(api),
      activation_(activation),
      element_(element),
      is_fp8_(weight.shape.format == WeightFormat::kE4M3),
      is_converted_(!is_fp8_ && element == ElementType::kFloat32),
      k_(weight.shape.k),
      n_(total_rows(weight.shape)),
      input_stride_(is_fp8_         ? round_up(k_, kCodeAlign)
                    : is_converted_ ? round_up(k_, kHalfAlign)
                                    : k_) {
  const char* wrong = unsupported(weight, activation, element, compute);
  if (wrong != nullptr) throw std::invalid_argument(wrong);
  check_cuda(api_.check_device());
  check_zeros(weight);
  add_parts(weight);
  // With no tokens a kernel only checks its arguments.
  for (const Part& part : parts_) {
    const Inputs none{nullptr, nullptr, 0, 0};
    if (const cuda::Error error = multiply(part, none, nullptr, {}, nullptr))
      throw std::invalid_argument(error);
  }
}

// The kernels do not look at them, and would multiply other numbers.
void CudaLinear::check_zeros(const LinearWeight& weight) const {
  if (weight.zero_points == nullptr) return;
  std::vector<int8_t> zeros(static_cast<size_t>(linear_scale_count(weight.shape)));
  check_cuda(api_.copy_to_host(zeros.data(), weight.zero_points, static_cast<int64_t>(zeros.size())));
  const char* wrong = check_zero_points(zeros.data(), zeros.size());
  if (wrong != nullptr) throw std::invalid_argument(wrong);
}

// A fused layer is one matrix as long as no member ends within a panel or a tile.
void CudaLinear::add_parts(const LinearWeight& weight) {
  const WeightShape& shape = weight.shape;
  const bool is_tiled = shape.group_n == kTile;
  const int64_t unit = is_tiled ? kTile : kPanelRows;
  const int64_t scales_of_unit =
      is_tiled ? ceil_div(shape.k, kTile) : num_groups(shape.k, shape.group_k) * kPanelRows;
  const auto* codes = static_cast<const uint8_t*>(weight.data);
  int64_t row = 0, panels = 0, units = 0;
  for (const int64_t rows : shape.member_rows) {
    if (parts_.empty() || parts_.back().weight.n % unit != 0) {
      const int64_t scale = units * scales_of_unit;
      const int8_t* zeros = weight.zero_points == nullptr ? nullptr : weight.zero_points + scale;
      parts_.push_back({row,
                        {shape.format, 0, shape.k, is_tiled ? kTile : 1, is_tiled ? kTile : shape.group_k,
                         codes + panels * panel_bytes(shape.format, shape.k), weight.scales + scale, zeros},
                        weight.bias == nullptr ? nullptr : weight.bias + row});
    }
    parts_.back().weight.n += rows;
    row += rows;
    panels += num_panels(rows);
    units += ceil_div(rows, unit);
  }
}

// Of x's codes, or of x in 16 bits, or none.
int64_t CudaLinear::code_bytes(int64_t tokens) const {
  if (!is_fp8_ && !is_converted_) return 0;
  return round_up(tokens * input_stride_ * (is_fp8_ ? 1 : 2), kPieceAlign);
}

CudaNeeds CudaLinear::needs(int64_t tokens) const {
  CudaNeeds needs;
  for (const Part& part : parts_) {
    // Kernels choose by the alignment of x, which ONNX Runtime or its caller decides where x is read as it
    // is.
    for (const uintptr_t address : {uintptr_t{0}, uintptr_t{2}}) {
      if (address != 0 && (is_fp8_ || is_converted_)) continue;
      const Inputs inputs{reinterpret_cast<const void*>(address), nullptr, tokens,
                          round_up(tokens, kScaleAlign)};
      const cuda::WorkspaceSize size = is_fp8_ ? api_.fp8_linear_workspace(fp8_args(part, inputs))
                                               : api_.weight_only_workspace(weight_only_args(part, inputs));
      needs.workspace.counters = std::max(needs.workspace.counters, size.counters);
      needs.workspace.partials = std::max(needs.workspace.partials, size.partials);
    }
  }
  const int64_t groups = !is_fp8_ || is_static(activation_.rule)             ? 0
                         : activation_.rule == ActivationRule::kE4M3Group128 ? ceil_div(k_, kTile)
                                                                             : 1;
  needs.activations =
      code_bytes(tokens) + groups * round_up(tokens, kScaleAlign) * static_cast<int64_t>(sizeof(float));
  return needs;
}

CudaLinear::Inputs CudaLinear::prepare(const void* x, int64_t tokens, void* memory, void* stream) const {
  Inputs inputs{x, nullptr, tokens, round_up(tokens, kScaleAlign)};
  if (!is_fp8_ && !is_converted_) return inputs;
  inputs.x = memory;
  if (is_converted_) {
    check_cuda(api_.convert_activations(
        {static_cast<const float*>(x), tokens, k_, k_, memory, ElementType::kBFloat16, input_stride_},
        stream));
    return inputs;
  }
  auto* scales = reinterpret_cast<float*>(static_cast<uint8_t*>(memory) + code_bytes(tokens));
  check_cuda(api_.quantize_activations({x, element_, tokens, k_, k_, activation_.rule, activation_.scale,
                                        memory, input_stride_, scales, inputs.scale_stride},
                                       stream));
  inputs.scales = scales;
  return inputs;
}

// What the arguments of both kernels have.
template <typename Args>
Args CudaLinear::product(const Part& part, const Inputs& inputs) const {
  Args args{};
  args.x = inputs.x;
  args.tokens = inputs.tokens;
  args.x_stride = input_stride_;
  args.weight = part.weight;
  args.bias = part.bias;
  args.y_element = element_;
  args.y_stride = n_;
  return args;
}

cuda::Fp8LinearArgs CudaLinear::fp8_args(const Part& part, const Inputs& inputs) const {
  auto args = product<cuda::Fp8LinearArgs>(part, inputs);
  args.x_scales = inputs.scales;
  args.x_scale_stride = inputs.scale_stride;
  args.rule = activation_.rule;
  args.static_scale = activation_.scale;
  return args;
}

cuda::WeightOnlyArgs CudaLinear::weight_only_args(const Part& part, const Inputs& inputs) const {
  auto args = product<cuda::WeightOnlyArgs>(part, inputs);
  args.x_element = is_converted_ ? ElementType::kBFloat16 : element_;
  return args;
}

cuda::Error CudaLinear::multiply(const Part& part, const Inputs& inputs, void* y,
                                 const cuda::Workspace& workspace, void* stream) const {
  if (is_fp8_) {
    cuda::Fp8LinearArgs args = fp8_args(part, inputs);
    args.y = y;
    args.workspace = workspace;
    return api_.fp8_linear(args, stream);
  }
  cuda::WeightOnlyArgs args = weight_only_args(part, inputs);
  args.y = y;
  args.workspace = workspace;
  return api_.weight_only_linear(args, stream);
}

void CudaLinear::run(const void* x, int64_t tokens, void* y, const CudaScratch& scratch, void* stream) const {
  if (tokens == 0) return;
  const Inputs inputs = prepare(x, tokens, scratch.activations, stream);
  const int64_t size = element_ == ElementType::kFloat32 ? 4 : 2;
  for (const Part& part : parts_) {
    uint8_t* columns = static_cast<uint8_t*>(y) + part.first_row * size;
    check_cuda(multiply(part, inputs, columns, scratch.workspace, stream));
  }
}

}  // namespace fdq::ort
