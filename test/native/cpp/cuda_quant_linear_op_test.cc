// QuantLinear on CUDA: values of every kind of layer, what is refused, and that a run only launches.
#include <functional>
#include <map>
#include <set>

#include "cuda_op_node.h"
#include "ort/cuda_linear.h"

namespace fdq::test {
namespace {

std::vector<float> draw_x(ElementType element, int64_t count, Random& random) {
  std::vector<float> x;
  for (int64_t i = 0; i < count; ++i) {
    const float value = random.normal();
    x.push_back(element == ElementType::kFloat32   ? value
                : element == ElementType::kFloat16 ? float16_to_float(emu::float_to_float16(value))
                                                   : bfloat16_to_float(float_to_bfloat16(value)));
  }
  return x;
}

void check_output(const Case& c, ElementType element, const Weight& weight, const std::vector<float>& x,
                  int64_t tokens, const std::vector<float>& y) {
  Case effective = c;
  // 16-bit inputs are multiplied as they are.
  if (element != ElementType::kFloat32) effective.compute = ComputeType::kFloat32;
  const std::vector<double> values = effective_x(effective, x, tokens);
  const double unit = element == ElementType::kFloat32   ? 0
                      : element == ElementType::kFloat16 ? 0x1p-11
                                                         : 0x1p-8;
  const int64_t n = c.n(), k = c.shape.k;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < n; ++r) {
      double sum = c.bias ? static_cast<double>(weight.linear.bias[r]) : 0.0, size = std::fabs(sum);
      for (int64_t i = 0; i < k; ++i) {
        const double product =
            values[static_cast<size_t>(t * k + i)] * weight.values[static_cast<size_t>(r * k + i)];
        sum += product;
        size += std::fabs(product);
      }
      const double got = y[static_cast<size_t>(t * n + r)];
      CHECK(std::fabs(sum - got) <= size * 2e-6 + std::fabs(sum) * unit + 1e-30,
            "%s, element %d: token %ld of %ld, row %ld: %.9g, not %.9g", c.describe(Isa::kScalar).c_str(),
            static_cast<int>(element), static_cast<long>(t), static_cast<long>(tokens), static_cast<long>(r),
            got, sum);
    }
  }
}

constexpr ElementType kElements[] = {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16};
using F = WeightFormat;
using R = ActivationRule;
constexpr ComputeType kB = ComputeType::kBFloat16;

std::vector<Case> all_cases() {
  return {
      {{F::kInt8, {48}, 64, 1, 0}, R::kNone, kB, true},
      {{F::kInt8, {32, 16, 40}, 200, 1, 0}, R::kNone, kB, true},
      {{F::kInt4, {24, 40, 7}, 192, 1, 64}, R::kNone, kB, true},
      {{F::kInt4, {32, 33}, 256, 1, 128}, R::kNone, kB, false, true},
      {{F::kInt4, {9, 16, 16}, 96, 1, 32}, R::kNone, kB, true, true},
      {{F::kE4M3, {128, 256, 100}, 200, 128, 128}, R::kE4M3Group128, kB, true},
      {{F::kE4M3, {100, 60}, 384, 128, 128}, R::kE4M3Group128, kB, true},
      {{F::kE4M3, {20, 44}, 130, 1, 0}, R::kE4M3Token, kB, true},
      {{F::kE4M3, {32, 16, 24}, 130, 0, 0}, R::kE4M3Token, kB, false},
      {{F::kE4M3, {16, 10}, 256, 0, 0}, R::kE4M3Static, kB, true},
      {{F::kE4M3, {64}, 64, 1, 0}, R::kE4M3Static, ComputeType::kFloat32, false},
  };
}

// Every layer in one session: they share a workspace, and are run in turns.
void test_values(int major, ElementType element, const std::vector<int64_t>& batches) {
  emu::device() = {major, 0, 5, 227 * 1024};
  Random random(17 + static_cast<uint64_t>(major));
  DeviceMemory device;
  g_device = &device;
  Session session(100);
  std::vector<Case> cases = all_cases();
  std::vector<Weight> weights;
  std::vector<std::unique_ptr<Node>> nodes;
  for (const Case& c : cases) {
    weights.push_back(make_weight(c, random));
    nodes.push_back(std::make_unique<Node>(c, weights.back()));
    const std::string error = nodes.back()->create(session, element);
    CHECK(error.empty(), "%s", error.c_str());
  }
  g_zeroed = 0;
  int stream = 0;
  for (const int64_t tokens : batches) {
    for (size_t i = 0; i < nodes.size(); ++i) {
      const std::vector<float> x = draw_x(element, tokens * cases[i].shape.k, random);
      g_launches.clear();
      const std::vector<float> y = nodes[i]->run(x, tokens, &stream);
      CHECK(nodes[i]->error.empty(), "%s", nodes[i]->error.c_str());
      check_output(cases[i], element, weights[i], x, tokens, y);
      for (const Launch& each : g_launches) CHECK(each.stream == &stream, "%s: stream", each.name.c_str());
    }
  }
  CHECK(session.allocator.allocations == 1 && g_zeroed == 1, "%d allocations, %d times zeroed",
        session.allocator.allocations, g_zeroed);
  for (auto& node : nodes) node->destroy();
  CHECK(session.allocator.live == 0 && session.allocator.released == 1, "the workspace outlives its kernels");
  g_device = nullptr;
}

// ---------------------------------------------------------------------------------------------------------

// A session with one node.
struct Single {
  DeviceMemory device;
  Random random{5};
  Case c;
  Weight weight;
  Session session;
  Node node;

  Single(Case of, int64_t max_tokens)
      : c(std::move(of)), weight(make_weight(c, random)), session(max_tokens), node(enter(c), weight) {}
  ~Single() {
    node.destroy();
    g_device = nullptr;
  }

 private:
  const Case& enter(const Case& of) {
    g_device = &device;
    return of;
  }
};

// As many tokens as the session has memory for: what a kernel writes beyond ends the process. Members, k and
// the addresses of x and y are odd.
void test_tight(int major, ElementType element, int64_t tokens) {
  emu::device() = {major, 0, 5, 227 * 1024};
  const Case kCases[] = {
      {{F::kInt8, {33, 31}, 77, 1, 0}, R::kNone, kB, true},
      {{F::kInt4, {17, 70}, 1091, 1, 32}, R::kNone, kB, true, true},
      {{F::kInt4, {70}, 1096, 1, 0}, R::kNone, kB, false},
      {{F::kE4M3, {33, 31}, 1130, 1, 0}, R::kE4M3Token, kB, true},
      {{F::kE4M3, {65, 128, 3}, 1031, 128, 128}, R::kE4M3Group128, kB, true},
      {{F::kE4M3, {7, 5}, 77, 0, 0}, R::kE4M3Static, kB, false},
  };
  for (const Case& c : kCases) {
    for (const int64_t misalign : {0, 1}) {
      Single single(c, tokens);
      single.node.misalign = misalign;
      CHECK(single.node.create(single.session, element).empty(), "create");
      const std::vector<float> x = draw_x(element, tokens * c.shape.k, single.random);
      const std::vector<float> y = single.node.run(x, tokens, nullptr);
      CHECK(single.node.error.empty(), "%s: %s", c.describe(Isa::kScalar).c_str(), single.node.error.c_str());
      if (single.node.error.empty()) check_output(c, element, single.weight, x, tokens, y);
    }
  }
}

// With as many multiprocessors as a GPU has the kernel for rows that TMA cannot read needs more counters than
// those for aligned ones.
void test_needs() {
  emu::device() = {9, 0, 132, 227 * 1024};
  DeviceMemory device;
  g_device = &device;
  alignas(256) static const uint8_t memory[256] = {};
  LinearWeight weight{};
  weight.shape = {F::kInt8, {4160}, 1024, 1, 0};
  weight.data = memory;
  weight.scales = reinterpret_cast<const float*>(memory);
  const ort::CudaLinear linear(kRecordingApi, weight, {R::kNone, 0}, ElementType::kBFloat16, kB);
  for (const int64_t tokens : {1, 16, 64, 700}) {
    const ort::CudaNeeds needs = linear.needs(tokens);
    for (const uintptr_t address : {256, 258}) {
      for (const int64_t of : {int64_t{1}, tokens}) {
        cuda::WeightOnlyArgs args{};
        args.x = reinterpret_cast<const void*>(address);
        args.x_element = args.y_element = ElementType::kBFloat16;
        args.tokens = of;
        args.x_stride = 1024;
        args.weight = {F::kInt8, 4160, 1024, 1, 0, memory, weight.scales, nullptr};
        args.y_stride = 4160;
        const cuda::WorkspaceSize size = cuda::weight_only_workspace(args);
        CHECK(size.counters > 0, "the shape was chosen to need some");
        CHECK(size.counters <= needs.workspace.counters && size.partials <= needs.workspace.partials,
              "%ld tokens of %ld, x at %ld: %ld and %ld bytes, not %ld and %ld", static_cast<long>(of),
              static_cast<long>(tokens), static_cast<long>(address), static_cast<long>(size.counters),
              static_cast<long>(size.partials), static_cast<long>(needs.workspace.counters),
              static_cast<long>(needs.workspace.partials));
      }
    }
  }
  g_device = nullptr;
}

std::string names(const std::vector<Launch>& launches) {
  std::string text;
  for (const Launch& each : launches) text += each.name + " ";
  return text;
}

// Members that lie as one matrix are one product, and one pass over the activations serves all.
void test_launches() {
  emu::device() = {9, 0, 5, 227 * 1024};
  const struct {
    Case c;
    ElementType element;
    const char* expected;
  } kExpected[] = {
      {{{F::kInt4, {32, 16, 40}, 128, 1, 128}, R::kNone, kB, true}, ElementType::kBFloat16, "weight_only "},
      {{{F::kInt4, {32, 16, 40}, 128, 1, 128}, R::kNone, kB, true},
       ElementType::kFloat32,
       "convert weight_only "},
      {{{F::kInt4, {8, 16, 4}, 128, 1, 128}, R::kNone, kB, true},
       ElementType::kFloat16,
       "weight_only weight_only "},
      {{{F::kE4M3, {128, 256, 100}, 128, 128, 128}, R::kE4M3Group128, kB, true},
       ElementType::kFloat32,
       "quantize fp8 "},
      {{{F::kE4M3, {128, 96, 100}, 128, 128, 128}, R::kE4M3Group128, kB, true},
       ElementType::kBFloat16,
       "quantize fp8 fp8 "},
      {{{F::kE4M3, {16, 32}, 128, 0, 0}, R::kE4M3Static, kB, true}, ElementType::kBFloat16, "quantize fp8 "},
  };
  for (const auto& each : kExpected) {
    Single single(each.c, 8);
    CHECK(single.node.create(single.session, each.element).empty(), "create");
    g_launches.clear();
    const std::vector<float> x = draw_x(each.element, 8 * each.c.shape.k, single.random);
    const std::vector<float> y = single.node.run(x, 8, nullptr);
    CHECK(names(g_launches) == each.expected, "%s, not %s", names(g_launches).c_str(), each.expected);
    check_output(each.c, each.element, single.weight, x, 8, y);
    g_launches.clear();
    single.node.run({}, 0, nullptr);
    CHECK(single.node.error.empty() && g_launches.empty(), "no tokens: %s", single.node.error.c_str());
  }
}

// Two streams may overlap: each has memory of its own, taken once.
void test_streams() {
  emu::device() = {9, 0, 5, 227 * 1024};
  Single single({{F::kInt4, {64}, 2048, 1, 128}, R::kNone, kB, false}, 16);
  CHECK(single.node.create(single.session, ElementType::kFloat32).empty(), "create");
  CHECK(single.session.allocator.allocations == 0, "memory is taken when a stream is first seen");
  int streams[2];
  std::map<std::string, std::set<const void*>> memory[2];  // by what is launched
  for (int i = 0; i < 6; ++i) {
    g_launches.clear();
    single.node.run(draw_x(ElementType::kFloat32, 16 * 2048, single.random), 16, &streams[i % 2]);
    CHECK(single.node.error.empty(), "%s", single.node.error.c_str());
    CHECK(single.session.allocator.allocations == std::min(i + 1, 2), "%d allocations after %d runs",
          single.session.allocator.allocations, i + 1);
    for (const Launch& each : g_launches) memory[i % 2][each.name].insert(each.memory);
  }
  for (const char* name : {"convert", "weight_only"}) {
    const auto &first = memory[0][name], &second = memory[1][name];
    CHECK(first.size() == 1 && second.size() == 1 && first != second, "%s: the memory of the streams", name);
  }
  single.node.destroy();
  CHECK(single.session.allocator.live == 0, "both are given back");
}

// ---------------------------------------------------------------------------------------------------------

void refuse(
    const Case& c, ElementType element, const char* expected,
    const std::function<void(Single&)>& change = [](Single&) {}) {
  Single single(c, 8);
  change(single);
  const std::string error = single.node.create(single.session, element);
  CHECK(error.find(expected) != std::string::npos, "expected '%s', got '%s'", expected, error.c_str());
  CHECK(error.empty() || error.rfind("fdq.QuantLinear: ", 0) == 0, "'%s' does not name the op",
        error.c_str());
  CHECK(single.session.allocator.live == 0, "memory is left");
}

void test_unsupported() {
  emu::device() = {9, 0, 5, 227 * 1024};
  constexpr ElementType kX = ElementType::kBFloat16;
  refuse({{F::kInt8, {32}, 64, 1, 0}, R::kInt8Token, kB, false}, kX, "int8 activations");
  refuse({{F::kNF4, {32}, 64, 1, 64}, R::kNone, kB, false}, kX, "int8 and int4 weights");
  refuse({{F::kE4M3, {32}, 64, 1, 0}, R::kNone, kB, false}, kX, "e4m3 activations");
  refuse({{F::kE4M3, {32}, 64, 1, 0}, R::kE4M3Group128, kB, false}, kX, "tiles of 128 x 128");
  refuse({{F::kE4M3, {32}, 64, 128, 128}, R::kE4M3Token, kB, false}, kX, "a scale a row");
  refuse({{F::kInt4, {32}, 96, 1, 48}, R::kNone, kB, false}, kX, "multiple of 32");
  refuse({{F::kInt8, {32}, 64, 1, 0}, R::kNone, ComputeType::kFloat32, false}, ElementType::kFloat32,
         "not in float32");
  emu::device() = {7, 5, 5, 64 * 1024};
  const Case plain{{F::kInt8, {32}, 64, 1, 0}, R::kNone, kB, false};
  refuse(plain, kX, "8.0");
  g_device_error = "no kernel image is available for execution on the device";
  refuse(plain, kX, "npm run build:cuda -- --all");
  g_device_error = nullptr;
}

void test_bad_nodes() {
  emu::device() = {9, 0, 5, 227 * 1024};
  constexpr ElementType kX = ElementType::kBFloat16;
  const Case c{{F::kInt4, {32}, 64, 1, 0}, R::kNone, kB, false};
  refuse(c, kX, "not CUDA's", [](Single& s) { s.node.info.strings.erase("layout"); });
  refuse(c, kX, "not CUDA's", [](Single& s) { s.node.info.strings["layout"] = "panels"; });
  refuse(c, kX, "unknown layout rows", [](Single& s) { s.node.info.strings["layout"] = "rows"; });
  refuse(c, kX, "the weight's size", [](Single& s) { s.node.values[0].shape[0] -= 2; });
  refuse(c, kX, "the scales' size", [](Single& s) { s.node.values[1].shape[0] -= 1; });
  refuse(c, kX, "element type of the weight", [](Single& s) { s.node.values[0].type = ort::kUint8; });
  refuse(c, kX, "the weight must be an initializer", [](Single& s) { s.node.info.inputs[1] = nullptr; });
  for (const size_t input : {1, 2, 3}) {
    const Case biased{c.shape, R::kNone, kB, true};
    const std::string expected = "input" + std::to_string(input) + " must be an initializer";
    refuse(biased, kX, expected.c_str(), [input](Single& s) { s.node.info.computed = input; });
  }
  refuse(c, kX, "how many tokens", [](Single& s) { s.session.context.max_tokens = 0; });
  refuse(c, kX, "4194241 tokens in a run are more than the 4194240",
         [](Single& s) { s.session.context.max_tokens = cuda::kMostCallTokens + 1; });
  refuse(c, kX, "no attribute k", [](Single& s) { s.node.info.ints.erase("k"); });
  const Case with_zeros{c.shape, R::kNone, kB, false, true};
  for (const int zero : {-9, 9}) {
    refuse(with_zeros, kX, "a zero point is outside -8 to 8", [zero](Single& s) {
      std::vector<int8_t> zeros(32, int8_t{-8});
      zeros.back() = static_cast<int8_t>(zero);
      s.node.values[3].data = s.device.copy(zeros.data(), zeros.size());
    });
  }
  const Case tensor{{F::kE4M3, {32}, 64, 0, 0}, R::kE4M3Token, kB, false};
  refuse(tensor, kX, "the scales' size", [](Single& s) { s.node.values[1].shape[0] = 1; });
}

void test_bad_runs() {
  emu::device() = {9, 0, 5, 227 * 1024};
  const Case c{{F::kInt4, {32}, 2048, 1, 0}, R::kNone, kB, false};
  Single single(c, 8);
  CHECK(single.node.create(single.session, ElementType::kBFloat16).empty(), "create");
  const auto fail = [&](int64_t tokens, const char* expected) {
    single.node.run(draw_x(ElementType::kBFloat16, tokens * 2048, single.random), tokens, nullptr);
    CHECK(single.node.error.find(expected) != std::string::npos, "expected '%s', got '%s'", expected,
          single.node.error.c_str());
  };
  fail(9, "9 tokens are more than the 8");
  single.session.allocator.is_full = true;
  fail(8, "Available memory");
  CHECK(single.session.allocator.live == 0, "nothing is kept");
  single.session.allocator.is_full = false;
  g_error = "no kernel image is available for execution on the device";
  fail(8, "npm run build:cuda -- --all");
  g_error = "unspecified launch failure";
  fail(8, "unspecified launch failure");
  const std::vector<float> x = draw_x(ElementType::kBFloat16, 8 * 2048, single.random);
  const std::vector<float> y = single.node.run(x, 8, nullptr);
  CHECK(single.node.error.empty(), "%s", single.node.error.c_str());
  check_output(c, ElementType::kBFloat16, single.weight, x, 8, y);
}

// A piece of memory that a stream has does not grow.
void test_late_kernel() {
  emu::device() = {9, 0, 5, 227 * 1024};
  Single single({{F::kInt4, {32}, 64, 1, 0}, R::kNone, kB, false}, 8);
  CHECK(single.node.create(single.session, ElementType::kBFloat16).empty(), "create");
  single.node.run(draw_x(ElementType::kBFloat16, 8 * 64, single.random), 8, nullptr);
  CHECK(single.node.error.empty(), "%s", single.node.error.c_str());
  Node late(single.c, single.weight);
  const std::string error = late.create(single.session, ElementType::kBFloat16);
  CHECK(error.find("after the session had run") != std::string::npos, "'%s'", error.c_str());
}

// The CPU's op refuses what was laid out for CUDA.
void test_cpu_op() {
  Single single({{F::kInt8, {32}, 64, 1, 0}, R::kNone, kB, false}, 8);
  const ort::CustomOp& op = *single.session.ops.front();
  CHECK(std::string(op.GetExecutionProviderType(&op)) == "CPUExecutionProvider", "the CPU's comes first");
  void* kernel = nullptr;
  const std::unique_ptr<ort::OrtStatus> status(op.CreateKernelV2(&op, nullptr, &single.node.info, &kernel));
  CHECK(status != nullptr && status->text.find("not the CPU's") != std::string::npos, "%s",
        status == nullptr ? "no error" : status->text.c_str());
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  for (const fdq::ElementType element : kElements) test_values(9, element, {3, 70, 1, 20});
  test_values(9, fdq::ElementType::kBFloat16, {100, 3, 70, 100});
  test_values(8, fdq::ElementType::kFloat32, {3, 70, 3});
  test_values(10, fdq::ElementType::kBFloat16, {3, 40});
  test_tight(9, fdq::ElementType::kBFloat16, 5);
  test_tight(9, fdq::ElementType::kFloat32, 66);
  test_tight(8, fdq::ElementType::kFloat16, 30);
  test_needs();
  test_launches();
  test_streams();
  test_unsupported();
  test_bad_nodes();
  test_bad_runs();
  test_late_kernel();
  test_cpu_op();
  return fdq_test::finish("cuda_quant_linear_op_test");
}
