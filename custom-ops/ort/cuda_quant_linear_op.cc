// QuantLinear on the CUDA execution provider: one op for each type of x, which is also y's.
#include <stdexcept>

#include "ort/compute_type.h"
#include "ort/cuda_library.h"
#include "ort/cuda_workspaces.h"
#include "ort/quant_linear.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

constexpr ElementTypeId type_id_of(ElementType element) {
  switch (element) {
    case ElementType::kFloat16:
      return kFloat16;
    case ElementType::kBFloat16:
      return kBFloat16;
    default:
      return kFloat;
  }
}

template <ElementType T>
class CudaQuantLinearKernel {
 public:
  CudaQuantLinearKernel(const SessionContext& session, const KernelInfo& info)
      : linear_(cuda_library(), read_weight(info, kLinearInputs, WeightLayout::kCuda), read_activation(info),
                T, parse_compute(info.get_string("compute"))),
        shape_(read_weight_shape(info)),
        max_tokens_(session.max_tokens),
        workspaces_(CudaWorkspaces::shared(session, cuda_library(), info)) {
    if (max_tokens_ < 1)
      throw std::invalid_argument("the session does not say how many tokens a run may have");
    if (max_tokens_ > cuda::kMostCallTokens) {
      throw std::invalid_argument("the session's " + std::to_string(max_tokens_) +
                                  " tokens in a run are more than the " +
                                  std::to_string(cuda::kMostCallTokens) + " that a product takes");
    }
    workspaces_->reserve(linear_.needs(max_tokens_));
  }

  void compute(const KernelContext& context) {
    const Tensor x = context.input(0);
    const int64_t tokens = check_tokens(x, shape_.k);
    if (tokens > max_tokens_) {
      throw std::invalid_argument(std::to_string(tokens) + " tokens are more than the " +
                                  std::to_string(max_tokens_) + " that the session has memory for");
    }
    void* y = context.output<void>({tokens, total_rows(shape_)});
    void* stream = context.cuda_stream();
    linear_.run(x.data, tokens, y, workspaces_->of(stream), stream);
  }

 private:
  CudaLinear linear_;
  WeightShape shape_;
  int64_t max_tokens_;
  std::shared_ptr<CudaWorkspaces> workspaces_;
};

template <ElementType T>
std::unique_ptr<CustomOp> make_op(const SessionContext* session) {
  return std::make_unique<Op<CudaQuantLinearKernel<T>>>(quant_linear_schema(kCudaProvider, type_id_of(T)),
                                                        session);
}

}  // namespace

std::unique_ptr<CustomOp> make_cuda_quant_linear_op(const SessionContext* session, ElementType element) {
  switch (element) {
    case ElementType::kFloat16:
      return make_op<ElementType::kFloat16>(session);
    case ElementType::kBFloat16:
      return make_op<ElementType::kBFloat16>(session);
    default:
      return make_op<ElementType::kFloat32>(session);
  }
}

}  // namespace fdq::ort
