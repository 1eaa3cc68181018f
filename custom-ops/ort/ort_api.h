// The slice of ONNX Runtime's stable C ABI that fdq calls: opaque types, the functions by their slot in the
// OrtApi table, and the one struct we fill. Slots never move once released; `npm run check:abi` compares every
// slot and struct offset below with the official header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fdq::ort {

struct OrtEnv;
struct OrtStatus;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtAllocator;
struct OrtCustomOpDomain;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
struct OrtCustomOp;

// ONNX TensorProto.DataType and ONNXTensorElementDataType share these numbers.
enum ElementTypeId : int {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kInt4 = 22,
};

enum LoggingLevel : int { kVerbose, kInfo, kWarning, kError, kFatal };
enum ErrorCode : int { kOk, kFail, kInvalidArgument };
enum GraphOptimization : int { kDisableAll = 0, kEnableBasic = 1, kEnableExtended = 2, kEnableAll = 99 };
enum AllocatorType : int { kDeviceAllocator = 0, kArenaAllocator = 1 };
enum MemoryType : int { kMemoryDefault = 0 };
enum Characteristic : int { kRequired = 0, kOptional = 1, kVariadic = 2 };

using LoggingFunction = void (*)(void* param, LoggingLevel severity, const char* category, const char* logid,
                                 const char* code_location, const char* message);

constexpr uint32_t kApiVersion = 24;  // newest the official header could be checked against

#define FDQ_ORT_FUNCTIONS(X)                                                                                   \
  X(0, CreateStatus, OrtStatus*, (ErrorCode, const char*))                                                     \
  X(2, GetErrorMessage, const char*, (const OrtStatus*))                                                       \
  X(4, CreateEnvWithCustomLogger, OrtStatus*, (LoggingFunction, void*, LoggingLevel, const char*, OrtEnv**))   \
  X(8, CreateSessionFromArray, OrtStatus*,                                                                     \
    (const OrtEnv*, const void*, size_t, const OrtSessionOptions*, OrtSession**))                              \
  X(9, Run, OrtStatus*,                                                                                        \
    (OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t, const char* const*, \
     size_t, OrtValue**))                                                                                      \
  X(10, CreateSessionOptions, OrtStatus*, (OrtSessionOptions**))                                               \
  X(22, SetSessionLogSeverityLevel, OrtStatus*, (OrtSessionOptions*, int))                                     \
  X(23, SetSessionGraphOptimizationLevel, OrtStatus*, (OrtSessionOptions*, GraphOptimization))                 \
  X(24, SetIntraOpNumThreads, OrtStatus*, (OrtSessionOptions*, int))                                           \
  X(26, CreateCustomOpDomain, OrtStatus*, (const char*, OrtCustomOpDomain**))                                  \
  X(27, CustomOpDomain_Add, OrtStatus*, (OrtCustomOpDomain*, const OrtCustomOp*))                              \
  X(28, AddCustomOpDomain, OrtStatus*, (OrtSessionOptions*, OrtCustomOpDomain*))                               \
  X(30, SessionGetInputCount, OrtStatus*, (const OrtSession*, size_t*))                                        \
  X(31, SessionGetOutputCount, OrtStatus*, (const OrtSession*, size_t*))                                       \
  X(36, SessionGetInputName, OrtStatus*, (const OrtSession*, size_t, OrtAllocator*, char**))                   \
  X(37, SessionGetOutputName, OrtStatus*, (const OrtSession*, size_t, OrtAllocator*, char**))                  \
  X(39, CreateRunOptions, OrtStatus*, (OrtRunOptions**))                                                       \
  X(46, RunOptionsSetTerminate, OrtStatus*, (OrtRunOptions*))                                                  \
  X(49, CreateTensorWithDataAsOrtValue, OrtStatus*,                                                            \
    (const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, ElementTypeId, OrtValue**))                  \
  X(51, GetTensorMutableData, OrtStatus*, (OrtValue*, void**))                                                 \
  X(60, GetTensorElementType, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, ElementTypeId*))                    \
  X(61, GetDimensionsCount, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, size_t*))                           \
  X(62, GetDimensions, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, int64_t*, size_t))                       \
  X(65, GetTensorTypeAndShape, OrtStatus*, (const OrtValue*, OrtTensorTypeAndShapeInfo**))                     \
  X(69, CreateCpuMemoryInfo, OrtStatus*, (AllocatorType, MemoryType, OrtMemoryInfo**))                         \
  X(75, AllocatorAlloc, OrtStatus*, (OrtAllocator*, size_t, void**))                                           \
  X(76, AllocatorFree, OrtStatus*, (OrtAllocator*, void*))                                                     \
  X(78, GetAllocatorWithDefaultOptions, OrtStatus*, (OrtAllocator**))                                          \
  X(85, KernelInfoGetAttribute_float, OrtStatus*, (const OrtKernelInfo*, const char*, float*))                 \
  X(86, KernelInfoGetAttribute_int64, OrtStatus*, (const OrtKernelInfo*, const char*, int64_t*))               \
  X(87, KernelInfoGetAttribute_string, OrtStatus*, (const OrtKernelInfo*, const char*, char*, size_t*))        \
  X(88, KernelContext_GetInputCount, OrtStatus*, (const OrtKernelContext*, size_t*))                           \
  X(90, KernelContext_GetInput, OrtStatus*, (const OrtKernelContext*, size_t, const OrtValue**))               \
  X(91, KernelContext_GetOutput, OrtStatus*,                                                                   \
    (OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**))                                           \
  X(92, ReleaseEnv, void, (OrtEnv*))                                                                           \
  X(93, ReleaseStatus, void, (OrtStatus*))                                                                     \
  X(94, ReleaseMemoryInfo, void, (OrtMemoryInfo*))                                                             \
  X(95, ReleaseSession, void, (OrtSession*))                                                                   \
  X(96, ReleaseValue, void, (OrtValue*))                                                                       \
  X(97, ReleaseRunOptions, void, (OrtRunOptions*))                                                             \
  X(99, ReleaseTensorTypeAndShapeInfo, void, (OrtTensorTypeAndShapeInfo*))                                     \
  X(100, ReleaseSessionOptions, void, (OrtSessionOptions*))                                                    \
  X(101, ReleaseCustomOpDomain, void, (OrtCustomOpDomain*))                                                    \
  X(125, GetAvailableProviders, OrtStatus*, (char***, int*))                                                   \
  X(126, ReleaseAvailableProviders, OrtStatus*, (char**, int))                                                 \
  X(130, AddSessionConfigEntry, OrtStatus*, (OrtSessionOptions*, const char*, const char*))                    \
  X(132, ReleaseAllocator, void, (OrtAllocator*))                                                              \
  X(150, AddInitializer, OrtStatus*, (OrtSessionOptions*, const char*, const OrtValue*))                       \
  X(163, KernelInfoGetAttributeArray_int64, OrtStatus*, (const OrtKernelInfo*, const char*, int64_t*, size_t*)) \
  X(193, KernelContext_GetGPUComputeStream, OrtStatus*, (const OrtKernelContext*, void**))                     \
  X(230, KernelInfo_GetInputCount, OrtStatus*, (const OrtKernelInfo*, size_t*))                                \
  X(232, KernelInfo_GetInputName, OrtStatus*, (const OrtKernelInfo*, size_t, char*, size_t*))                  \
  X(249, KernelInfoGetConstantInput_tensor, OrtStatus*, (const OrtKernelInfo*, size_t, int*, const OrtValue**)) \
  X(254, GetBuildInfoString, const char*, ())                                                                  \
  X(274, KernelContext_ParallelFor, OrtStatus*,                                                                \
    (const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*))                                 \
  X(278, KernelInfoGetAllocator, OrtStatus*, (const OrtKernelInfo*, MemoryType, OrtAllocator**))

struct Api {
#define FDQ_ORT_MEMBER(slot, name, result, args) result(*name) args;
  FDQ_ORT_FUNCTIONS(FDQ_ORT_MEMBER)
#undef FDQ_ORT_MEMBER
};

struct ApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

inline Api bind_api(const void* const* table) {
  Api api;
#define FDQ_ORT_BIND(slot, name, result, args) api.name = reinterpret_cast<result(*) args>(table[slot]);
  FDQ_ORT_FUNCTIONS(FDQ_ORT_BIND)
#undef FDQ_ORT_BIND
  return api;
}

// Field for field OrtCustomOp of API version 24.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const void* api, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  ElementTypeId (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  ElementTypeId (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  Characteristic (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  MemoryType (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const void* api, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};

}  // namespace fdq::ort
