// One op name for the CPU and for CUDA: what ONNX Runtime takes, and whose kernel runs.
#include "harness.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kColumns = 64;

Model chain(ElementTypeId type, size_t length = 1) {
  Model model;
  model.input("x", type, {kAnySize, kColumns}).output("y", type, {kAnySize, kColumns});
  model.initializer("w", kInt8, {4, 4}, std::string(16, '\1'));
  std::string from = "x";
  for (size_t i = 0; i < length; ++i) {
    const std::string to = i + 1 == length ? "y" : std::string("h").append(std::to_string(i));
    model.node({"Probe", {from, "w"}, {to}, "fdq", {}});
    from = to;
  }
  return model;
}

std::vector<ProbeInput> inputs_of(ElementTypeId type) { return {{type}, {kUndefined}}; }

struct Registered {
  Probe cpu{kCpu, inputs_of(kFloat), kFloat};
  Probe cuda_float{kCuda, inputs_of(kFloat), kFloat};
  Probe cuda_float16{kCuda, inputs_of(kFloat16), kFloat16};
  Probe cuda_bfloat16{kCuda, inputs_of(kBFloat16), kBFloat16};
  std::vector<OrtCustomOp*> all() { return {&cpu, &cuda_float, &cuda_float16, &cuda_bfloat16}; }
};

void runs_on_the_device() {
  Registered ops;
  const Session session(chain(kFloat), {.ops = ops.all()});
  session.run_row();
  expect_same(static_cast<uint64_t>(ops.cuda_float.computes), 1, "runs of the CUDA kernel");
  expect_same(static_cast<uint64_t>(ops.cpu.creates), 0, "CPU kernels");
  for (const Seen& seen : ops.cuda_float.inputs_seen)
    expect(seen.memory == kFakeDevice, "inputs on the device");
  expect(ops.cuda_float.output_seen.memory == kFakeDevice, "the output on the device");
}

void chooses_by_element_type() {
  Registered ops;
  const Session float16(chain(kFloat16), {.ops = ops.all()});
  const Session bfloat16(chain(kBFloat16, 2), {.ops = ops.all()});
  expect_same(static_cast<uint64_t>(ops.cuda_float16.creates), 1, "float16 kernels");
  // The second node's input has no declared type: it is the first one's output.
  expect_same(static_cast<uint64_t>(ops.cuda_bfloat16.creates), 2, "bfloat16 kernels");
  std::vector<unsigned char> row(2 * kColumns);
  const Value x(kBFloat16, {1, kColumns}, row.data(), row.size(), false);
  expect(look_at(bfloat16.run(x.get())->get()).type == kBFloat16, "a bfloat16 result");
}

void keeps_cpu_sessions_whole() {
  Registered ops;
  const Session session(chain(kFloat), {.cuda = false, .ops = ops.all()});
  session.run_row();
  expect_same(static_cast<uint64_t>(ops.cpu.computes), 1, "runs of the CPU kernel");
  expect(ops.cpu.stream == nullptr, "no stream on the CPU");
  expect_contains(refusal(chain(kBFloat16), {.cuda = false, .ops = ops.all()}),
                  "Could not find an implementation", "a bfloat16 model without CUDA");
}

void refuses_other_signatures() {
  const auto attempt = [](std::vector<ProbeInput> second, ElementTypeId output) {
    Probe cpu(kCpu, inputs_of(kFloat), kFloat), cuda(kCuda, std::move(second), output);
    return refusal(chain(kFloat), {.ops = {&cpu, &cuda}});
  };
  expect_contains(attempt({{kFloat}, {kUndefined}, {kFloat}}, kFloat), "input count",
                  "another number of inputs");
  expect_contains(attempt({{kFloat}, {kUndefined, kOptional}}, kFloat), "to be of optional type",
                  "an input optional for CUDA alone");
  Probe any(kCuda, {{kUndefined}, {kUndefined}}, kUndefined);
  expect_contains(refusal(chain(kFloat), {.ops = {&any}}), "num_inputs_with_dynamic_type",
                  "an output of any type beside two inputs of any type");
}

void first_output_type_wins() {
  Probe widens(kCuda, inputs_of(kBFloat16), kFloat), keeps(kCuda, inputs_of(kBFloat16), kBFloat16);
  expect_same(refusal(chain(kBFloat16), {.ops = {&keeps, &widens}}).size(), 0, "length of a refusal");
  expect_contains(refusal(chain(kBFloat16), {.ops = {&widens, &keeps}}), "does not match expected type",
                  "the other order");
}

}  // namespace

std::vector<Check> schema_checks() {
  return {
      {"a custom op of the CUDA provider runs on device memory", runs_on_the_device},
      {"kernels of one name are chosen by the type of x, which the output follows", chooses_by_element_type},
      {"a CPU session takes the CPU's kernel while CUDA's are registered", keeps_cpu_sessions_whole},
      {"kernels of one name need the same inputs", refuses_other_signatures},
      {"of two kernels that differ by the output's type the first is taken", first_output_type_wins}};
}

}  // namespace fdq::provider_check
