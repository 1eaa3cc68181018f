#include <memory>

#include "ort/compute_type.h"
#include "ort/quant_linear.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

class QuantLinearKernel {
 public:
  QuantLinearKernel(const SessionContext& session, const KernelInfo& info) {
    const LinearWeight weight = read_weight(info, kLinearInputs, WeightLayout::kPanels);
    k_ = weight.shape.k;
    n_ = total_rows(weight.shape);
    plan_.reset(make_linear_plan(weight, read_activation(info), parse_compute(info.get_string("compute")),
                                 session.isa));
  }

  void compute(const KernelContext& context) {
    const Tensor x = context.input(0);
    const int64_t tokens = check_tokens(x, k_);
    float* y = context.output({tokens, n_});
    run_linear(*plan_, x.as<float>(), tokens, y, context.parallel());
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
  return std::make_unique<Op<QuantLinearKernel>>(quant_linear_schema(kCpuProvider, kFloat), session);
}

}  // namespace fdq::ort
