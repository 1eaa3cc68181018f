#include "ort/registry.h"

namespace fdq::ort {

std::vector<std::unique_ptr<CustomOp>> make_ops(const SessionContext* session) {
  std::vector<std::unique_ptr<CustomOp>> ops;
  ops.push_back(make_quant_linear_op(session));
  for (const ElementType element : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
    ops.push_back(make_cuda_quant_linear_op(session, element));
  }
  ops.push_back(make_quant_gather_op(session));
  ops.push_back(make_paged_attention_op(session));
  ops.push_back(make_rotary_table_op(session));
  ops.push_back(make_swiglu_op(session));
  return ops;
}

}  // namespace fdq::ort
