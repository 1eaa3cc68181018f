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

}  // namespace

Probe::Probe(const char* provider, std::vector<ProbeInput> inputs, ElementTypeId output, const char* name)
    : OrtCustomOp{}, provider_(provider), inputs_(std::move(inputs)), output_(output), name_(name) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* self) { return as_probe(self).name(); };
  GetExecutionProviderType = [](const OrtCustomOp* self) { return as_probe(self).provider(); };
  GetInputType = [](const OrtCustomOp* self, size_t i) { return as_probe(self).inputs()[i].type; };
  GetInputTypeCount = [](const OrtCustomOp* self) { return as_probe(self).inputs().size(); };
  GetInputCharacteristic = [](const OrtCustomOp* self, size_t i) {
    return as_probe(self).inputs()[i].characteristic;
  };
  GetInputMemoryType = [](const OrtCustomOp* self, size_t i) {
    return static_cast<MemoryType>(as_probe(self).inputs()[i].memory);
  };
  GetOutputType = [](const OrtCustomOp* self, size_t) { return as_probe(self).output(); };
  GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return kRequired; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
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
