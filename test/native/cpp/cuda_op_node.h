// A QuantLinear node on CUDA below a fake ONNX Runtime and above emulated kernels. What stands for device
// memory can be touched by kernels alone.
#pragma once

#include <memory>

#include "cuda/emulator/emulator.h"
#include "fake_ort.h"
#include "linear_case.h"
#include "ort/cuda_library.h"
#include "ort/quant_weight.h"
#include "ort/registry.h"

namespace fdq::test {
namespace {

using ort::OrtValue;

// ---------------------------------------------------------------------------------------------------------
// Device memory: no access outside of calls of the kernels' library.

class DeviceMemory {
 public:
  DeviceMemory() {
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    CHECK(base_ != MAP_FAILED, "mmap");
  }
  ~DeviceMemory() { munmap(base_, kBytes); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void open() { CHECK(mprotect(base_, round_up(used_, 4096), PROT_READ | PROT_WRITE) == 0, "mprotect"); }
  void close() { CHECK(mprotect(base_, round_up(used_, 4096), PROT_NONE) == 0, "mprotect"); }
  // Aligned to 256 and poisoned.
  void* take(int64_t bytes) {
    uint8_t* piece = base_ + used_;
    used_ += round_up(bytes, 256) + 256;
    CHECK(used_ <= static_cast<int64_t>(kBytes), "the test's device memory is used up");
    open();
    std::memset(piece, 0xcd, static_cast<size_t>(bytes));
    close();
    return piece;
  }
  void* copy(const void* data, size_t bytes) {
    void* piece = take(static_cast<int64_t>(bytes));
    open();
    if (bytes > 0) std::memcpy(piece, data, bytes);
    close();
    return piece;
  }
  std::vector<uint8_t> read(const void* piece, size_t bytes) {
    open();
    const auto* from = static_cast<const uint8_t*>(piece);
    std::vector<uint8_t> out(from, from + bytes);
    close();
    return out;
  }

 private:
  static constexpr size_t kBytes = size_t{1} << 30;
  uint8_t* base_;
  int64_t used_ = 0;
};

DeviceMemory* g_device = nullptr;

// Each launch as it was asked for.
struct Launch {
  std::string name;
  void* stream;
  const void* memory;  // that the call shares with others: its workspace or what it makes of x
};
const void* memory_of(const cuda::ActivationArgs& args) { return args.codes; }
const void* memory_of(const cuda::ConvertArgs& args) { return args.y; }
template <typename Args>
const void* memory_of(const Args& args) {
  return args.workspace.counters;
}
std::vector<Launch> g_launches;
int g_zeroed = 0;
cuda::Error g_error = nullptr;  // what the products answer instead, once

template <typename Args>
cuda::Error launch(const char* name, cuda::Error (*kernel)(const Args&, void*), const Args& args,
                   void* stream) {
  if (args.tokens > 0) g_launches.push_back({name, stream, memory_of(args)});
  g_device->open();
  const cuda::Error error = kernel(args, nullptr);
  g_device->close();
  return error;
}
cuda::Error multiply_error() {
  const cuda::Error error = g_error;
  g_error = nullptr;
  return error;
}

cuda::Error g_device_error = nullptr;  // what is wrong with the device

cuda::Error check_device() { return g_device_error != nullptr ? g_device_error : cuda::check_device(); }

const cuda::Api kRecordingApi = {
    cuda::kApiVersion,
    &cuda::device_info,
    &check_device,
    [](void* memory, int64_t bytes) {
      ++g_zeroed;
      return cuda::fill_zero(memory, bytes);
    },
    [](void* host, const void* memory, int64_t bytes) {
      g_device->open();
      const cuda::Error error = cuda::copy_to_host(host, memory, bytes);
      g_device->close();
      return error;
    },
    [](const cuda::ActivationArgs& args, void* stream) {
      return launch("quantize", &cuda::quantize_activations, args, stream);
    },
    [](const cuda::ConvertArgs& args, void* stream) {
      return launch("convert", &cuda::convert_activations, args, stream);
    },
    nullptr,
    [](const cuda::Fp8LinearArgs& args, void* stream) {
      if (const cuda::Error error = multiply_error()) return error;
      return launch("fp8", &cuda::fp8_linear, args, stream);
    },
    &cuda::fp8_linear_workspace,
    [](const cuda::WeightOnlyArgs& args, void* stream) {
      if (const cuda::Error error = multiply_error()) return error;
      return launch("weight_only", &cuda::weight_only_linear, args, stream);
    },
    &cuda::weight_only_workspace,
    nullptr,
};

}  // namespace
}  // namespace fdq::test

// In place of the library that is opened at run time.
const fdq::cuda::Api& fdq::ort::cuda_library() { return fdq::test::kRecordingApi; }

namespace fdq::test {
namespace {

// ---------------------------------------------------------------------------------------------------------
// A node: its attributes, its initializers on the device, its kernel.

const char* name_of(ActivationRule rule) {
  static const char* const kNames[] = {"none",       "e4m3_group128", "e4m3_token",
                                       "int8_token", "e4m3_static",   "int8_static"};
  return kNames[static_cast<int>(rule)];
}

int64_t bytes_of(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

// The panels of each member in the layout of the device; formats that have none stay as they are.
void* to_device(const LinearWeight& weight) {
  const WeightShape& shape = weight.shape;
  const bool has_layout = shape.format == WeightFormat::kE4M3 || shape.format == WeightFormat::kInt8 ||
                          shape.format == WeightFormat::kInt4;
  if (!has_layout) return g_device->copy(weight.data, static_cast<size_t>(linear_weight_bytes(shape)));
  const int64_t panel = panel_bytes(shape.format, shape.k);
  std::vector<uint8_t> repacked;
  for (const int64_t rows : shape.member_rows) {
    const auto bytes = static_cast<size_t>(num_panels(rows) * panel);
    const Guarded source(bytes), target(bytes);
    std::memcpy(source.bytes(), static_cast<const uint8_t*>(weight.data) + repacked.size(), bytes);
    const cuda::Error error =
        cuda::repack_weight({shape.format, rows, shape.k, false, source.bytes(), target.bytes()}, nullptr);
    CHECK(error == nullptr, "%s", error);
    repacked.insert(repacked.end(), target.bytes(), target.bytes() + bytes);
  }
  return g_device->copy(repacked.data(), repacked.size());
}

// One scale a tensor is repeated for every row.
std::vector<float> device_scales(const Weight& weight) {
  const WeightShape& shape = weight.linear.shape;
  const auto count = static_cast<int64_t>(weight.scales->size() / sizeof(float));
  if (shape.group_n != 0) return {weight.linear.scales, weight.linear.scales + count};
  std::vector<float> scales;
  for (size_t member = 0; member < shape.member_rows.size(); ++member) {
    const int64_t padded = num_panels(shape.member_rows[member]) * kPanelRows;
    scales.insert(scales.end(), static_cast<size_t>(padded), weight.linear.scales[member]);
  }
  return scales;
}

ort::ElementTypeId type_of(ElementType element) {
  if (element == ElementType::kFloat16) return ort::kFloat16;
  return element == ElementType::kBFloat16 ? ort::kBFloat16 : ort::kFloat;
}

struct Session {
  ort::OrtAllocator allocator{};
  ort::SessionContext context{};
  std::vector<std::unique_ptr<ort::CustomOp>> ops;

  explicit Session(int64_t max_tokens) {
    context.api = &fake_ort();
    context.max_tokens = max_tokens;
    ops = ort::make_ops(&context);
  }
  // The op that ONNX Runtime would take on CUDA for this type of x.
  const ort::CustomOp& find(ElementType element) const {
    for (const auto& op : ops) {
      if (std::string(op->GetExecutionProviderType(op.get())) != "CUDAExecutionProvider") continue;
      if (op->GetInputType(op.get(), 0) != type_of(element)) continue;
      CHECK(std::string(op->GetName(op.get())) == "QuantLinear", "%s", op->GetName(op.get()));
      CHECK(op->GetOutputType(op.get(), 0) == type_of(element), "y is of x's type");
      return *op;
    }
    CHECK(false, "no op on CUDA takes this type");
    return *ops.front();
  }
};

class Node {
 public:
  Node(const Case& c, const Weight& weight) : case_(c) {
    const WeightShape& s = c.shape;
    static const char* const kFormats[] = {"float32", "float16", "bfloat16", "int8", "int4",
                                           "e4m3",    "int2",    "nf4",      "e2m1"};
    info.ints = {{"k", s.k}, {"group_n", s.group_n}, {"group_k", s.group_k}, {"block_k", 0}};
    info.floats = {{"activation_scale", c.x_scale}};
    info.strings = {{"format", kFormats[static_cast<int>(s.format)]},
                    {"block_type", ""},
                    {"layout", "cuda"},
                    {"activation", name_of(c.rule)},
                    {"compute", c.compute == ComputeType::kFloat32 ? "float32" : "bfloat16"}};
    info.lists = {{"rows", s.member_rows}};
    const std::vector<float> scales = device_scales(weight);
    const auto num_scales = static_cast<int64_t>(scales.size());
    values[0] = {to_device(weight.linear), {linear_weight_elements(s)}, ort::element_type_of(s.format)};
    values[1] = {g_device->copy(scales.data(), scales.size() * 4), {num_scales}, ort::kFloat};
    info.inputs = {nullptr, &values[0], &values[1]};
    if (c.bias || c.zero_points) {
      values[2] = {c.bias ? g_device->copy(weight.linear.bias, static_cast<size_t>(c.n()) * 4) : nullptr,
                   {c.n()},
                   ort::kFloat};
      info.inputs.push_back(c.bias ? &values[2] : nullptr);
    }
    if (c.zero_points) {
      values[3] = {g_device->copy(weight.linear.zero_points, weight.zeros->size()), {num_scales}, ort::kInt8};
      info.inputs.insert(info.inputs.end(), {nullptr, &values[3]});
    }
  }

  // Null, or why there is no kernel.
  std::string create(Session& session, ElementType element) {
    element_ = element;
    op_ = &session.find(element);
    info.allocator = &session.allocator;
    ort::OrtStatus* status = op_->CreateKernelV2(op_, nullptr, &info, &kernel_);
    return text(status);
  }
  void destroy() {
    if (kernel_ != nullptr) op_->KernelDestroy(kernel_);
    kernel_ = nullptr;
  }
  ~Node() { destroy(); }

  // y as float32.
  std::vector<float> run(const std::vector<float>& x, int64_t tokens, void* stream) {
    const int64_t k = case_.shape.k, size = bytes_of(element_);
    const int64_t before = misalign * size;
    std::vector<uint8_t> stored(static_cast<size_t>(before + tokens * k * size));
    for (int64_t i = 0; i < tokens * k; ++i) {
      store(x[static_cast<size_t>(i)], stored.data() + before + i * size);
    }
    auto* x_piece = static_cast<uint8_t*>(g_device->copy(stored.data(), stored.size()));
    OrtValue input{x_piece + before, {tokens, k}, type_of(element_)};
    const int64_t count = tokens * case_.n();
    auto* y_piece = static_cast<uint8_t*>(g_device->take(before + count * size));
    OrtValue output{y_piece + before, {}, type_of(element_)};
    ort::OrtKernelContext context{{&input}, &output, stream};
    error = text(op_->KernelComputeV2(kernel_, &context));
    if (!error.empty()) return {};
    CHECK((output.shape == std::vector<int64_t>{tokens, case_.n()}), "shape of y");
    const std::vector<uint8_t> bytes = g_device->read(output.data, static_cast<size_t>(count * size));
    std::vector<float> y;
    for (int64_t i = 0; i < count; ++i) y.push_back(load(bytes.data() + i * size));
    return y;
  }

  ort::OrtKernelInfo info{};
  OrtValue values[4];
  int64_t misalign = 0;  // elements by which x and y are off 256 bytes
  std::string error;

 private:
  static std::string text(ort::OrtStatus* status) {
    const std::unique_ptr<ort::OrtStatus> owned(status);
    return owned == nullptr ? "" : owned->text;
  }
  void store(float value, uint8_t* out) const {
    if (element_ == ElementType::kFloat32) {
      std::memcpy(out, &value, 4);
      return;
    }
    const uint16_t bits =
        element_ == ElementType::kFloat16 ? emu::float_to_float16(value) : float_to_bfloat16(value);
    std::memcpy(out, &bits, 2);
  }
  float load(const uint8_t* in) const {
    if (element_ == ElementType::kFloat32) {
      float value;
      std::memcpy(&value, in, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, in, 2);
    return element_ == ElementType::kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits);
  }

  Case case_;
  ElementType element_ = ElementType::kFloat32;
  const ort::CustomOp* op_ = nullptr;
  void* kernel_ = nullptr;
};

}  // namespace
}  // namespace fdq::test
