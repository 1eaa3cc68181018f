// Compiled by scripts/check-abi.mjs against ONNX Runtime's official C header; it has no code to run.
#include <cstddef>

#include "cuda/provider-check/provider_api.h"
#include "onnxruntime_c_api.h"
#include "ort/ort_api.h"

#define FDQ_CHECK_SLOT(slot, name, result, args) \
  static_assert(offsetof(OrtApi, name) == slot * sizeof(void*), #name " is not in slot " #slot);
FDQ_ORT_FUNCTIONS(FDQ_CHECK_SLOT)
FDQ_PROVIDER_FUNCTIONS(FDQ_CHECK_SLOT)

#define FDQ_CHECK_FIELD(name) \
  static_assert(offsetof(OrtCustomOp, name) == offsetof(fdq::ort::OrtCustomOp, name), #name " has moved");
FDQ_CHECK_FIELD(version)
FDQ_CHECK_FIELD(CreateKernel)
FDQ_CHECK_FIELD(GetName)
FDQ_CHECK_FIELD(GetInputType)
FDQ_CHECK_FIELD(KernelDestroy)
FDQ_CHECK_FIELD(GetInputCharacteristic)
FDQ_CHECK_FIELD(GetVariadicOutputHomogeneity)
FDQ_CHECK_FIELD(CreateKernelV2)
FDQ_CHECK_FIELD(KernelComputeV2)
FDQ_CHECK_FIELD(InferOutputShapeFn)
FDQ_CHECK_FIELD(ReleaseAliasMap)
static_assert(sizeof(OrtCustomOp) == sizeof(fdq::ort::OrtCustomOp), "OrtCustomOp has grown");

static_assert(offsetof(OrtApiBase, GetVersionString) == offsetof(fdq::ort::ApiBase, GetVersionString));
static_assert(ORT_API_VERSION == fdq::ort::kApiVersion, "the header is of another API version");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 == static_cast<int>(fdq::ort::kBFloat16));
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN == static_cast<int>(fdq::ort::kFloat8E4M3FN));
static_assert(OrtMemTypeCPUInput == static_cast<int>(fdq::provider_check::kInputOnHost));
static_assert(OrtMemTypeCPUOutput == static_cast<int>(fdq::provider_check::kOutputOnHost));
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4 == static_cast<int>(fdq::ort::kInt4));
