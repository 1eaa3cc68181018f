#pragma once

#include <memory>
#include <vector>

#include "ort/custom_op.h"

namespace fdq::ort {

// The ops of domain `fdq` for one session.
std::vector<std::unique_ptr<CustomOp>> make_ops(const SessionContext* session);

std::unique_ptr<CustomOp> make_quant_linear_op(const SessionContext* session);
// `element`: of x and y.
std::unique_ptr<CustomOp> make_cuda_quant_linear_op(const SessionContext* session, ElementType element);
std::unique_ptr<CustomOp> make_quant_gather_op(const SessionContext* session);
std::unique_ptr<CustomOp> make_paged_attention_op(const SessionContext* session);
std::unique_ptr<CustomOp> make_rotary_table_op(const SessionContext* session);
std::unique_ptr<CustomOp> make_swiglu_op(const SessionContext* session);

}  // namespace fdq::ort
