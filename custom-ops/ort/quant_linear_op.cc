#include <memory>
#include <numeric>
#include <stdexcept>

#include "ort/compute_type.h"
#include "ort/linear_size.h"
#include "ort/registry.h"

namespace fdq::ort {
namespace {

WeightFormat parse_format(const std::string& name) {
  if (name == "int8") return WeightFormat::kInt8;
  if (name == "int4") return WeightFormat::kInt4;
  if (name == "e4m3") return WeightFormat::kE4M3;
  if (name == "bfloat16") return WeightFormat::kBFloat16;
  if (name == "float16") return WeightFormat::kFloat16;
  if (name == "float32") return WeightFormat::kFloat32;
  throw std::invalid_argument("unknown weight format " + name);
}

ActivationRule parse_activation(const std::string& name) {
  if (name == "none") return ActivationRule::kNone;
  if (name == "e4m3_group128") return ActivationRule::kE4M3Group128;
  throw std::invalid_argument("unknown activation rule " + name);
}

int64_t element_count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

ElementTypeId element_type_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat32:
      return kFloat;
    case WeightFormat::kFloat16:
      return kFloat16;
    case WeightFormat::kBFloat16:
      return kBFloat16;
    case WeightFormat::kInt8:
      return kInt8;
    case WeightFormat::kInt4:
      return kInt4;
    case WeightFormat::kE4M3:
      return kFloat8E4M3FN;
    case WeightFormat::kInt2:
    case WeightFormat::kNF4:
    case WeightFormat::kE2M1:
      return kUint8;
  }
  return kUndefined;
}

class QuantLinearKernel {
 public:
  QuantLinearKernel(const SessionContext& session, const KernelInfo& info) {
    LinearWeight weight;
    weight.shape.format = parse_format(info.get_string("format"));
    weight.shape.member_rows = info.get_ints("rows");
    weight.shape.k = k_ = info.get_int("k");
    weight.shape.group_n = static_cast<int>(info.get_int("group_n"));
    weight.shape.group_k = static_cast<int>(info.get_int("group_k"));
    n_ = std::accumulate(weight.shape.member_rows.begin(), weight.shape.member_rows.end(), int64_t{0});
    weight.data = info.constant(1);
    weight.scales = static_cast<const float*>(info.constant(2));
    weight.bias = static_cast<const float*>(info.constant(3));
    if (weight.data == nullptr) throw std::invalid_argument("the weight must be an initializer");
    if (info.constant_type(1) != element_type_of(weight.shape.format)) {
      throw std::invalid_argument("the weight's element type is not that of its format");
    }
    if (element_count(info.constant_shape(1)) != linear_weight_elements(weight.shape)) {
      throw std::invalid_argument("the weight's size does not fit rows, k and format");
    }
    const auto floats = [&](const float* data, size_t index) {
      return data == nullptr ? size_t{0} : static_cast<size_t>(element_count(info.constant_shape(index)));
    };
    const char* wrong = check_linear_size(weight.shape, {static_cast<size_t>(linear_weight_bytes(weight.shape)),
                                                         floats(weight.scales, 2), floats(weight.bias, 3)});
    if (wrong != nullptr) throw std::invalid_argument(wrong);
    plan_.reset(make_linear_plan(weight, parse_activation(info.get_string("activation")),
                                 parse_compute(info.get_string("compute")), session.isa));
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
  return std::make_unique<Op<QuantLinearKernel>>(
      OpSchema{"QuantLinear",
               {{kFloat, kRequired}, {kUndefined, kRequired}, {kFloat, kOptional}, {kFloat, kOptional}}},
      session);
}

}  // namespace fdq::ort
