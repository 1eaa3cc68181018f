// As much of ONNX Runtime as an op meets: attributes, initializers and an allocator when a kernel is made; an
// input, an output and a stream when it computes. Calls are counted.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "linear_support.h"
#include "ort/custom_op.h"

namespace fdq::ort {

struct OrtStatus {
  std::string text;
};
struct OrtValue {
  void* data;
  std::vector<int64_t> shape;
  ElementTypeId type;
};
struct OrtTensorTypeAndShapeInfo {
  const OrtValue* value;
};
struct OrtAllocator {
  int allocations = 0, live = 0, released = 0;
  bool is_full = false;
  std::map<void*, std::unique_ptr<test::Guarded>> pieces;
};
struct OrtKernelInfo {
  std::map<std::string, int64_t> ints;
  std::map<std::string, float> floats;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<int64_t>> lists;
  std::vector<OrtValue*> inputs;  // null: absent; the first is x, which is no initializer
  size_t computed = 0;            // another input that is none
  OrtAllocator* allocator;
};
struct OrtKernelContext {
  std::vector<OrtValue*> inputs;
  OrtValue* output;  // its data hold what the op may write
  void* stream;
};

}  // namespace fdq::ort

namespace fdq::test {

inline ort::OrtStatus* new_status(const std::string& text) { return new ort::OrtStatus{text}; }

template <typename Map, typename Out>
ort::OrtStatus* find_attribute(const Map& map, const char* name, Out* out) {
  const auto found = map.find(name);
  if (found == map.end()) return new_status(std::string("no attribute ") + name);
  *out = found->second;
  return nullptr;
}

inline void fill_info_functions(ort::Api& api) {
  using namespace ort;
  api.KernelInfoGetAttribute_int64 = [](const OrtKernelInfo* info, const char* name, int64_t* out) {
    return find_attribute(info->ints, name, out);
  };
  api.KernelInfoGetAttribute_float = [](const OrtKernelInfo* info, const char* name, float* out) {
    return find_attribute(info->floats, name, out);
  };
  api.KernelInfoGetAttribute_string = [](const OrtKernelInfo* info, const char* name, char* out,
                                         size_t* size) {
    std::string value;
    OrtStatus* status = find_attribute(info->strings, name, &value);
    if (status != nullptr) return status;
    *size = value.size() + 1;
    if (out != nullptr) std::memcpy(out, value.c_str(), *size);
    return status;
  };
  api.KernelInfoGetAttributeArray_int64 = [](const OrtKernelInfo* info, const char* name, int64_t* out,
                                             size_t* size) {
    std::vector<int64_t> value;
    OrtStatus* status = find_attribute(info->lists, name, &value);
    if (status != nullptr) return status;
    *size = value.size();
    if (out != nullptr) std::memcpy(out, value.data(), value.size() * sizeof(int64_t));
    return status;
  };
  api.KernelInfo_GetInputCount = [](const OrtKernelInfo* info, size_t* count) -> OrtStatus* {
    *count = info->inputs.size();
    return nullptr;
  };
  api.KernelInfo_GetInputName = [](const OrtKernelInfo* info, size_t index, char* out,
                                   size_t* size) -> OrtStatus* {
    const std::string name = info->inputs[index] == nullptr ? "" : "input" + std::to_string(index);
    *size = name.size() + 1;
    if (out != nullptr) std::memcpy(out, name.c_str(), *size);
    return nullptr;
  };
  api.KernelInfoGetConstantInput_tensor = [](const OrtKernelInfo* info, size_t index, int* is_constant,
                                             const OrtValue** value) -> OrtStatus* {
    *value = info->inputs[index];
    *is_constant = index > 0 && index != info->computed && *value != nullptr ? 1 : 0;
    return nullptr;
  };
  api.KernelInfoGetAllocator = [](const OrtKernelInfo* info, MemoryType, OrtAllocator** out) -> OrtStatus* {
    *out = info->allocator;
    return nullptr;
  };
}

inline void fill_memory_functions(ort::Api& api) {
  using namespace ort;
  api.AllocatorAlloc = [](OrtAllocator* allocator, size_t size, void** out) {
    if (allocator->is_full) return new_status("Available memory is smaller than requested");
    auto piece =
        std::make_unique<test::Guarded>(static_cast<size_t>(round_up(static_cast<int64_t>(size), 256)));
    *out = piece->bytes();
    std::memset(*out, 0xff, piece->size());  // not zeros, as the arena leaves it
    ++allocator->allocations;
    ++allocator->live;
    allocator->pieces[*out] = std::move(piece);
    return static_cast<OrtStatus*>(nullptr);
  };
  api.AllocatorFree = [](OrtAllocator* allocator, void* memory) {
    if (allocator->pieces.erase(memory) == 0) return new_status("not of this allocator");
    --allocator->live;
    return static_cast<OrtStatus*>(nullptr);
  };
  api.ReleaseAllocator = [](OrtAllocator* allocator) { ++allocator->released; };
  api.GetTensorMutableData = [](OrtValue* value, void** data) -> OrtStatus* {
    *data = value->data;
    return nullptr;
  };
  api.GetTensorTypeAndShape = [](const OrtValue* value, OrtTensorTypeAndShapeInfo** out) -> OrtStatus* {
    *out = new OrtTensorTypeAndShapeInfo{value};
    return nullptr;
  };
  api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo* info) { delete info; };
  api.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo* info, ElementTypeId* type) -> OrtStatus* {
    *type = info->value->type;
    return nullptr;
  };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* info, size_t* count) -> OrtStatus* {
    *count = info->value->shape.size();
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo* info, int64_t* out, size_t) -> OrtStatus* {
    std::copy(info->value->shape.begin(), info->value->shape.end(), out);
    return nullptr;
  };
}

inline void fill_context_functions(ort::Api& api) {
  using namespace ort;
  api.CreateStatus = [](ErrorCode, const char* text) { return new_status(text); };
  api.GetErrorMessage = [](const OrtStatus* status) { return status->text.c_str(); };
  api.ReleaseStatus = [](OrtStatus* status) { delete status; };
  api.KernelContext_GetInputCount = [](const OrtKernelContext* context, size_t* count) -> OrtStatus* {
    *count = context->inputs.size();
    return nullptr;
  };
  api.KernelContext_GetInput = [](const OrtKernelContext* context, size_t index,
                                  const OrtValue** value) -> OrtStatus* {
    *value = context->inputs[index];
    return nullptr;
  };
  api.KernelContext_GetOutput = [](OrtKernelContext* context, size_t, const int64_t* shape, size_t rank,
                                   OrtValue** value) -> OrtStatus* {
    context->output->shape.assign(shape, shape + rank);
    *value = context->output;
    return nullptr;
  };
  api.KernelContext_GetGPUComputeStream = [](const OrtKernelContext* context, void** stream) -> OrtStatus* {
    *stream = context->stream;
    return nullptr;
  };
}

inline const ort::Api& fake_ort() {
  static const ort::Api api = [] {
    ort::Api functions{};
    fill_info_functions(functions);
    fill_memory_functions(functions);
    fill_context_functions(functions);
    return functions;
  }();
  return api;
}

}  // namespace fdq::test
