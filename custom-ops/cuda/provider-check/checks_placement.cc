// The ONNX ops of fdq's graphs for which the provider has kernels.
#include "harness.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kColumns = 64;

struct Operator {
  const char* name;
  const char* domain;
  std::vector<const char*> inputs;  // x and z are [n, 64], s is [64], w is [64, 64], i is [n] int64
  std::vector<Attribute> attributes;
  int opset = 21;
};

std::vector<Operator> operators() {
  const auto epsilon = make_attribute("epsilon", 1e-6f);
  const auto axis = [](int64_t value) { return make_attribute("axis", value); };
  return {{"Gather", "", {"x", "i"}, {axis(0)}},
          {"SimplifiedLayerNormalization", "", {"x", "s"}, {epsilon, axis(-1)}},
          {"SkipSimplifiedLayerNormalization", "com.microsoft", {"x", "z", "s"}, {epsilon}},
          {"RMSNormalization", "", {"x", "s"}, {epsilon, axis(-1)}, 23},
          {"LayerNormalization", "", {"x", "s"}, {epsilon, axis(-1)}},
          {"Add", "", {"x", "z"}, {}},
          {"Mul", "", {"x", "z"}, {}},
          {"Sigmoid", "", {"x"}, {}},
          {"Concat", "", {"x", "z"}, {axis(0)}},
          {"MatMul", "", {"x", "w"}, {}},
          {"Gemm", "", {"x", "w", "s"}, {make_attribute("transB", int64_t{1})}}};
}

Model model_of(const Operator& op, ElementTypeId type) {
  Model model(op.opset);
  const std::map<std::string, std::vector<int64_t>> shapes = {{"x", {kAnySize, kColumns}},
                                                              {"z", {kAnySize, kColumns}},
                                                              {"s", {kColumns}},
                                                              {"w", {kColumns, kColumns}}};
  for (const std::string name : op.inputs) {
    if (name == "i") {
      model.input(name, kInt64, {kAnySize});
    } else {
      model.input(name, type, shapes.at(name));
    }
  }
  model.output("y", type, {kAnySize, kColumns});
  return model.node({op.name, {op.inputs.begin(), op.inputs.end()}, {"y"}, op.domain, op.attributes});
}

const SessionSettings kCudaAlone{.entries = {{"session.disable_cpu_ep_fallback", "1"}}};

void has_kernels() {
  for (const Operator& op : operators()) {
    for (const ElementTypeId type : {kFloat, kFloat16, kBFloat16}) {
      const std::string reason = refusal(model_of(op, type), kCudaAlone);
      expect(reason.empty(),
             std::string(op.name) + " of type " + std::to_string(type) + " on CUDA: " + reason);
    }
  }
}

void has_casts() {
  for (const ElementTypeId from : {kFloat, kFloat16, kBFloat16}) {
    for (const ElementTypeId to : {kFloat, kFloat16, kBFloat16}) {
      if (from == to) continue;
      Model model;
      model.input("x", from, {kAnySize, kColumns}).output("y", to, {kAnySize, kColumns});
      model.node({"Cast", {"x"}, {"y"}, "", {make_attribute("to", static_cast<int64_t>(to))}});
      expect_same(refusal(model, kCudaAlone).size(), 0, "length of a refusal of Cast");
    }
  }
}

// Without this the checks above would pass whatever ONNX Runtime does.
void notices_the_cpu() {
  Model model;
  model.input("x", kFloat, {kAnySize}).output("y", kFloat, {kAnySize}).node({"Unique", {"x"}, {"y"}, "", {}});
  expect_contains(refusal(model, kCudaAlone), "assigned to the default CPU EP", "an op of the CPU alone");
}

}  // namespace

std::vector<Check> placement_checks() {
  return {{"CUDA has the ops of fdq's graphs in float, float16 and bfloat16", has_kernels},
          {"CUDA has casts among float, float16 and bfloat16", has_casts},
          {"a node that falls back to the CPU is noticed", notices_the_cpu}};
}

}  // namespace fdq::provider_check
