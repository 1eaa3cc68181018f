// What every op adapter shares: the callbacks ONNX Runtime asks for, typed access to attributes and tensors,
// and C++ exceptions turned into statuses.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "fdq/ops.h"
#include "ort/runtime.h"

namespace fdq::ort {

class CudaWorkspaces;

constexpr const char* kCpuProvider = "CPUExecutionProvider";
constexpr const char* kCudaProvider = "CUDAExecutionProvider";

// What the ops of one session share. Outlives the session's kernels.
struct SessionContext {
  const Api* api = nullptr;
  Isa isa = Isa::kScalar;
  int num_threads = 1;
  KvPool kv_pool{};
  int64_t max_tokens = 0;  // of a run; kernels on CUDA have no memory for more
  // Owned by those kernels, so that it goes before the allocator it came from.
  mutable std::weak_ptr<CudaWorkspaces> cuda_workspaces;
};

struct OpInput {
  ElementTypeId type;  // kUndefined: any
  Characteristic characteristic;
};

// Name and signature of an op; every op of fdq has one output. ONNX Runtime chooses among ops of one name by
// provider and types.
struct OpSchema {
  const char* name;
  std::vector<OpInput> inputs;
  ElementTypeId output = kFloat;
  const char* provider = kCpuProvider;
};

class KernelInfo {
 public:
  KernelInfo(const Api& api, const OrtKernelInfo* info) : api_(api), info_(info) {}
  int64_t get_int(const char* name) const;
  float get_float(const char* name) const;
  std::string get_string(const char* name) const;
  std::string get_string_or(const char* name, const char* absent) const;
  std::vector<int64_t> get_ints(const char* name) const;
  // Data of an input that must be an initializer, on the device the kernel runs on; null when the optional
  // input is absent.
  const void* constant(size_t index) const;
  std::vector<int64_t> constant_shape(size_t index) const;
  ElementTypeId constant_type(size_t index) const;  // kUndefined when absent
  // Of the device the kernel runs on; to be released by the caller.
  OrtAllocator* new_allocator() const;

 private:
  const OrtValue* constant_value(size_t index) const;
  std::string input_name(size_t index) const;
  const Api& api_;
  const OrtKernelInfo* info_;
};

struct Tensor {
  const void* data = nullptr;
  std::vector<int64_t> shape;
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

class KernelContext {
 public:
  KernelContext(const SessionContext& session, OrtKernelContext* context)
      : session_(session), context_(context) {}
  Tensor input(size_t index) const;
  template <typename T = float>
  T* output(const std::vector<int64_t>& shape) const {
    return static_cast<T*>(output_data(shape));
  }
  // The cudaStream_t of this run; null on the CPU.
  void* cuda_stream() const;
  // Runs on ONNX Runtime's own intra-op threads, this thread included.
  Parallel parallel() const;

 private:
  void* output_data(const std::vector<int64_t>& shape) const;
  static void run_parallel(void* pool, int64_t count, void (*body)(void*, int64_t), void* context);
  const SessionContext& session_;
  OrtKernelContext* context_;
};

std::vector<int64_t> tensor_shape(const Api& api, const OrtValue* value);

// One op object per session: CreateKernelV2 gets it back and with it the session's context.
class CustomOp : public OrtCustomOp {
 public:
  CustomOp(OpSchema schema, const SessionContext* session);
  virtual ~CustomOp() = default;

  const OpSchema& schema() const { return schema_; }
  const SessionContext& session() const { return *session_; }

 private:
  OpSchema schema_;
  const SessionContext* session_;
};

OrtStatus* fail(const Api& api, const char* op, const char* what);

// Kernel: constructible from (const SessionContext&, const KernelInfo&), with compute(const KernelContext&).
template <typename Kernel>
class Op final : public CustomOp {
 public:
  Op(OpSchema schema, const SessionContext* session) : CustomOp(std::move(schema), session) {
    CreateKernelV2 = [](const OrtCustomOp* self, const void*, const OrtKernelInfo* info, void** kernel) {
      const auto* op = static_cast<const Op*>(self);
      const Api& api = *op->session().api;
      try {
        *kernel = new Bound{op, Kernel(op->session(), KernelInfo(api, info))};
        return static_cast<OrtStatus*>(nullptr);
      } catch (const std::exception& error) {
        return fail(api, op->schema().name, error.what());
      }
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      auto* bound = static_cast<Bound*>(kernel);
      const SessionContext& session = bound->op->session();
      try {
        bound->kernel.compute(KernelContext(session, context));
        return static_cast<OrtStatus*>(nullptr);
      } catch (const std::exception& error) {
        return fail(*session.api, bound->op->schema().name, error.what());
      }
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Bound*>(kernel); };
  }

 private:
  struct Bound {
    const Op* op;
    Kernel kernel;
  };
};

}  // namespace fdq::ort
