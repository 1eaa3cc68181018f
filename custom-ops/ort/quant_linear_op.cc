#include <memory>
#include <stdexcept>

#include "ort/compute_type.h"
#include "ort/quant_weight.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

LinearActivation read_activation(const KernelInfo& info) {
  LinearActivation activation{};
  const std::string name = info.get_string("activation");
  if (!parse_activation_rule(name, &activation.rule)) {
    throw std::invalid_argument("unknown activation rule " + name);
  }
  activation.scale = info.get_float("activation_scale");
  const char* wrong = check_activation(activation);
  if (wrong != nullptr) throw std::invalid_argument(wrong);
  return activation;
}

class QuantLinearKernel {
 public:
  QuantLinearKernel(const SessionContext& session, const KernelInfo& info) {
    const LinearWeight weight = read_weight(info, {1, 2, 3, 4, 5});
    k_ = weight.shape.k;
    n_ = total_rows(weight.shape);
    plan_.reset(make_linear_plan(weight, read_activation(info), parse_compute(info.get_string("compute")),
                                 session.isa));
  }

  void compute(const KernelContext& context) {
    const Tensor x = context.input(0);
    if (x.shape.size() != 2 || x.shape[1] != k_) throw std::invalid_argument("x must be [tokens, k]");
    float* y = context.output({x.shape[0], n_});
    run_linear(*plan_, x.as<float>(), x.shape[0], y, context.parallel());
  }

 private:
  struct FreePlan {
    void operator()(LinearPlan* plan) const { free_linear_plan(plan); }
  };
  int64_t k_ = 0;
  int64_t n_ = 0;
  std::unique_ptr<LinearPlan, FreePlan> plan_;
};

}  // namespace

std::unique_ptr<CustomOp> make_quant_linear_op(const SessionContext* session) {
  return std::make_unique<Op<QuantLinearKernel>>(OpSchema{"QuantLinear",
                                                          {{kFloat, kRequired},
                                                           {kUndefined, kRequired},
                                                           {kFloat, kOptional},
                                                           {kFloat, kOptional},
                                                           {kUndefined, kOptional},
                                                           {kInt8, kOptional}}},
                                                 session);
}

}  // namespace fdq::ort
