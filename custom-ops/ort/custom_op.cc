#include "ort/custom_op.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <stdexcept>

namespace fdq::ort {
namespace {

const CustomOp& as_op(const OrtCustomOp* self) { return *static_cast<const CustomOp*>(self); }

// Batches a thread: enough to even out a thread that was preempted; claiming one costs nothing beside its
// work.
constexpr int64_t kBatchesPerThread = 32;

// A text that `ask(text, size)` gives, or its size where text is null.
template <typename Ask>
std::string read_text(const Api& api, const Ask& ask) {
  size_t size = 0;  // with the terminating zero
  check(api, ask(nullptr, &size));
  std::string text(size, '\0');
  check(api, ask(text.data(), &size));
  text.resize(size - 1);
  return text;
}

}  // namespace

OrtStatus* fail(const Api& api, const char* op, const char* what) {
  return api.CreateStatus(kFail, (std::string("fdq.") + op + ": " + what).c_str());
}

CustomOp::CustomOp(OpSchema schema, const SessionContext* session)
    : OrtCustomOp{}, schema_(std::move(schema)), session_(session) {
  version = kApiVersion;
  GetName = [](const OrtCustomOp* self) { return as_op(self).schema().name; };
  GetExecutionProviderType = [](const OrtCustomOp* self) { return as_op(self).schema().provider; };
  GetInputType = [](const OrtCustomOp* self, size_t index) {
    return as_op(self).schema().inputs[index].type;
  };
  GetInputTypeCount = [](const OrtCustomOp* self) { return as_op(self).schema().inputs.size(); };
  GetInputCharacteristic = [](const OrtCustomOp* self, size_t index) {
    return as_op(self).schema().inputs[index].characteristic;
  };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return kMemoryDefault; };
  GetOutputType = [](const OrtCustomOp* self, size_t) { return as_op(self).schema().output; };
  GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return kRequired; };
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
}

int64_t KernelInfo::get_int(const char* name) const {
  int64_t value = 0;
  check(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value));
  return value;
}

float KernelInfo::get_float(const char* name) const {
  float value = 0;
  check(api_, api_.KernelInfoGetAttribute_float(info_, name, &value));
  return value;
}

std::string KernelInfo::get_string(const char* name) const {
  return read_text(api_, [&](char* text, size_t* size) {
    return api_.KernelInfoGetAttribute_string(info_, name, text, size);
  });
}

std::string KernelInfo::get_string_or(const char* name, const char* absent) const {
  size_t size = 0;
  OrtStatus* status = api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size);
  if (status == nullptr) return get_string(name);
  api_.ReleaseStatus(status);
  return absent;
}

std::vector<int64_t> KernelInfo::get_ints(const char* name) const {
  size_t size = 0;
  check(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size));
  std::vector<int64_t> value(size);
  check(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, value.data(), &size));
  return value;
}

const OrtValue* KernelInfo::constant_value(size_t index) const {
  size_t count = 0;
  check(api_, api_.KernelInfo_GetInputCount(info_, &count));
  if (index >= count) return nullptr;
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(api_, api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
  if (is_constant != 0) return value;
  const std::string name = input_name(index);
  if (!name.empty()) throw std::invalid_argument("input " + name + " must be an initializer");
  return nullptr;
}

// Empty where an optional input is left out.
std::string KernelInfo::input_name(size_t index) const {
  return read_text(
      api_, [&](char* text, size_t* size) { return api_.KernelInfo_GetInputName(info_, index, text, size); });
}

const void* KernelInfo::constant(size_t index) const {
  const OrtValue* value = constant_value(index);
  if (value == nullptr) return nullptr;
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return data;
}

std::vector<int64_t> KernelInfo::constant_shape(size_t index) const {
  const OrtValue* value = constant_value(index);
  return value == nullptr ? std::vector<int64_t>{} : tensor_shape(api_, value);
}

ElementTypeId KernelInfo::constant_type(size_t index) const {
  const OrtValue* value = constant_value(index);
  if (value == nullptr) return kUndefined;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api_, api_.GetTensorTypeAndShape(value, &info));
  ElementTypeId type = kUndefined;
  OrtStatus* status = api_.GetTensorElementType(info, &type);
  api_.ReleaseTensorTypeAndShapeInfo(info);
  check(api_, status);
  return type;
}

OrtAllocator* KernelInfo::new_allocator() const {
  OrtAllocator* allocator = nullptr;
  check(api_, api_.KernelInfoGetAllocator(info_, kMemoryDefault, &allocator));
  return allocator;
}

std::vector<int64_t> tensor_shape(const Api& api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  OrtStatus* status = api.GetDimensionsCount(info, &rank);
  std::vector<int64_t> shape(rank);
  if (status == nullptr) status = api.GetDimensions(info, shape.data(), rank);
  api.ReleaseTensorTypeAndShapeInfo(info);
  check(api, status);
  return shape;
}

Tensor KernelContext::input(size_t index) const {
  const Api& api = *session_.api;
  size_t count = 0;
  check(api, api.KernelContext_GetInputCount(context_, &count));
  if (index >= count) return {};
  const OrtValue* value = nullptr;
  check(api, api.KernelContext_GetInput(context_, index, &value));
  if (value == nullptr) return {};
  void* data = nullptr;
  check(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return {data, tensor_shape(api, value)};
}

void* KernelContext::output_data(const std::vector<int64_t>& shape) const {
  const Api& api = *session_.api;
  OrtValue* value = nullptr;
  check(api, api.KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api, api.GetTensorMutableData(value, &data));
  return data;
}

void* KernelContext::cuda_stream() const {
  const Api& api = *session_.api;
  void* stream = nullptr;
  check(api, api.KernelContext_GetGPUComputeStream(context_, &stream));
  return stream;
}

Parallel KernelContext::parallel() const {
  return {&KernelContext::run_parallel, const_cast<KernelContext*>(this), session_.num_threads};
}

void KernelContext::run_parallel(void* pool, int64_t count, void (*body)(void*, int64_t), void* context) {
  const auto* self = static_cast<const KernelContext*>(pool);
  const int threads = self->session_.num_threads;
  if (count <= 1 || threads == 1) {
    for (int64_t i = 0; i < count; ++i) body(context, i);
    return;
  }
  // An exception must not leave a body on a thread of ONNX Runtime: the first is kept and thrown from here.
  struct Call {
    void (*body)(void*, int64_t);
    void* context;
    std::atomic<bool> failed{false};
    std::exception_ptr failure{};
  } call{body, context};
  const Api& api = *self->session_.api;
  check(api, api.KernelContext_ParallelFor(
                 self->context_,
                 [](void* data, size_t index) {
                   auto* c = static_cast<Call*>(data);
                   try {
                     c->body(c->context, static_cast<int64_t>(index));
                   } catch (...) {
                     if (!c->failed.exchange(true)) c->failure = std::current_exception();
                   }
                 },
                 static_cast<size_t>(count),
                 static_cast<size_t>(std::min(count, threads * kBatchesPerThread)), &call));
  if (call.failure) std::rethrow_exception(call.failure);
}

}  // namespace fdq::ort
