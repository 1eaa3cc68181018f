#include "harness.h"

namespace fdq::provider_check {
namespace {

const Probe& as_probe(const OrtCustomOp* self) { return *static_cast<const Probe*>(self); }

OrtStatus* guarded(const std::function<void()>& work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& error) {
    return api().CreateStatus(kFail, error.what());
  }
}

OpSchema schema_of(const char* name, const std::vector<ProbeInput>& inputs, ElementTypeId output,
                   const char* provider) {
  OpSchema schema{name, {}, output, provider};
  for (const ProbeInput& input : inputs) schema.inputs.push_back({input.type, input.characteristic});
  return schema;
}

}  // namespace

Probe::Probe(const char* provider, std::vector<ProbeInput> inputs, ElementTypeId output, const char* name)
    : CustomOp(schema_of(name, inputs, output, provider), nullptr), inputs_(std::move(inputs)) {
  GetInputMemoryType = [](const OrtCustomOp* self, size_t i) {
    return static_cast<MemoryType>(as_probe(self).inputs()[i].memory);
  };
  CreateKernelV2 = [](const OrtCustomOp* self, const void*, const OrtKernelInfo* info, void** kernel) {
    auto* probe = const_cast<Probe*>(&as_probe(self));
    *kernel = probe;
    return guarded([&] { probe->created(info); });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guarded([&] { static_cast<Probe*>(kernel)->compute(context); });
  };
  KernelDestroy = [](void*) {};
}

void Probe::created(const OrtKernelInfo* info) {
  ++creates;
  constants.clear();
  size_t count = 0;
  check(api().KernelInfo_GetInputCount(info, &count));
  for (size_t i = 0; i < count; ++i) {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    check(api().KernelInfoGetConstantInput_tensor(info, i, &is_constant, &value));
    constants.push_back(is_constant != 0 ? look_at(value) : Seen{});
  }
  if (on_create) on_create(info);
}

void Probe::compute(OrtKernelContext* context) {
  size_t count = 0;
  check(api().KernelContext_GetInputCount(context, &count));
  std::vector<Seen> seen;
  for (size_t i = 0; i < count; ++i) {
    const OrtValue* value = nullptr;
    check(api().KernelContext_GetInput(context, i, &value));
    seen.push_back(value == nullptr ? Seen{} : look_at(value));
  }
  OrtValue* y = nullptr;
  const std::vector<int64_t>& shape = seen.at(0).shape;
  check(api().KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &y));
  void* own_stream = nullptr;
  check(provider_api().KernelContext_GetGPUComputeStream(context, &own_stream));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++computes;
    inputs_seen = std::move(seen);
    output_seen = look_at(y);
    stream = own_stream;
  }
  if (on_compute) on_compute(context);
}

}  // namespace fdq::provider_check
