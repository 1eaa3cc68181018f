// fdq.QuantLinear inside the CUDA provider, with emulated kernels, beside the CPU's of the same weight.
#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>

#include "cpu/number_formats.h"
#include "harness.h"
#include "ort/cuda_library.h"
#include "ort/registry.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kMaxTokens = 40;
constexpr const char* kPlaceholder = "placeholder";

struct Layer {
  const char* format;
  WeightFormat id;
  ElementTypeId type;
  int64_t n, k;
  int group_n, group_k;
  const char* activation;
};
constexpr Layer kLayers[] = {
    {"int8", WeightFormat::kInt8, kInt8, 64, 192, 1, 0, "none"},
    {"int4", WeightFormat::kInt4, kInt4, 48, 256, 1, 128, "none"},
    {"e4m3", WeightFormat::kE4M3, kFloat8E4M3FN, 128, 256, 128, 128, "e4m3_group128"},
};

// Numbers whose sums are exact in float32, in whatever order.
std::string make_codes(const Layer& layer) {
  constexpr unsigned char kE4M3[] = {0x00, 0x38, 0x40, 0x44, 0x48,
                                     0xb8, 0xc0, 0xc4, 0xc8};  // 0 to 4, -1 to -4
  std::string codes(static_cast<size_t>(layer.n / kPanelRows * panel_bytes(layer.id, layer.k)), '\0');
  unsigned state = 1;
  for (char& code : codes) {
    state = state * 1664525 + 1013904223;
    code = static_cast<char>(layer.id == WeightFormat::kE4M3 ? kE4M3[(state >> 16) % sizeof kE4M3]
                                                             : state >> 24);
  }
  return codes;
}

std::vector<float> make_scales(const Layer& layer) {
  const int64_t groups = layer.group_k == 0 ? 1 : layer.k / layer.group_k;
  std::vector<float> scales(static_cast<size_t>(layer.n / layer.group_n * groups));
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = std::ldexp(1.0f, -6 - static_cast<int>(i % 3));
  return scales;
}

// Each group of 128 has 448, so that e4m3 holds the others as they are.
std::vector<float> make_x(const Layer& layer, int64_t tokens, int seed) {
  std::vector<float> x(static_cast<size_t>(tokens * layer.k));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = i % 128 == 0
               ? 448
               : static_cast<float>(static_cast<int>((i * 7 + i / 5 + static_cast<size_t>(seed)) % 9) - 4);
  }
  return x;
}

// Exact for the numbers above, rounded to nearest even else.
uint16_t to_float16(float value) {
  if (value == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // 0.5 to 1
  const auto mantissa = static_cast<unsigned>(std::nearbyint(std::ldexp(fraction, 11)));
  const unsigned bits = static_cast<unsigned>(exponent + 13) * 1024 + mantissa;
  return static_cast<uint16_t>(bits | (value < 0 ? 0x8000u : 0));
}

std::string encode(const std::vector<float>& values, ElementTypeId type) {
  if (type == kFloat) return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
  std::string bytes(values.size() * 2, '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = type == kFloat16 ? to_float16(values[i]) : float_to_bfloat16(values[i]);
    std::memcpy(&bytes[2 * i], &bits, 2);
  }
  return bytes;
}

Model model_of(const Layer& layer, ElementTypeId type, const char* layout) {
  Model model;
  model.input("x", type, {kAnySize, layer.k}).output("y", type, {kAnySize, layer.n});
  const std::string codes = make_codes(layer);
  const int64_t elements = static_cast<int64_t>(codes.size()) * (layer.type == kInt4 ? 2 : 1);
  const size_t scales = make_scales(layer).size();
  // Never read, but it must be there: the session is given the weights in memory.
  std::ofstream(scratch_folder() + "/" + kPlaceholder);
  model.external("w", layer.type, {elements}, kPlaceholder, codes.size());
  model.external("s", kFloat, {static_cast<int64_t>(scales)}, kPlaceholder, scales * sizeof(float));
  return model.node(
      {"QuantLinear",
       {"x", "w", "s"},
       {"y"},
       "fdq",
       {make_attribute("format", layer.format), make_attribute("k", layer.k),
        make_attribute("rows", std::vector<int64_t>{layer.n}),
        make_attribute("group_n", int64_t{layer.group_n}), make_attribute("group_k", int64_t{layer.group_k}),
        make_attribute("block_k", int64_t{0}), make_attribute("block_type", ""),
        make_attribute("activation", layer.activation), make_attribute("activation_scale", 0.0f),
        make_attribute("compute", "bfloat16"), make_attribute("layout", layout)}});
}

// A session with one layer whose weight lies in memory of its device.
class LayerSession {
 public:
  LayerSession(const Layer& layer, ElementTypeId type, bool cuda,
               std::map<std::string, std::string> options = {})
      : layer_(layer), type_(type), codes_(make_codes(layer)), scales_(make_scales(layer)) {
    context_.api = &api();
    context_.isa = detect_isa();
    context_.max_tokens = kMaxTokens;
    ops_ = make_ops(&context_);
    const size_t scale_bytes = scales_.size() * sizeof(float);
    void *codes = codes_.data(), *scales = scales_.data();
    if (cuda) {
      codes = (device_codes_ = std::make_unique<DeviceBuffer>(codes_.size()))->data();
      const cuda::RepackArgs repack{layer.id, layer.n, layer.k, false, codes_.data(), codes};
      const char* error = cuda_library().repack_weight(repack, nullptr);
      if (error != nullptr) throw Failure(error);
      scales = (device_scales_ = std::make_unique<DeviceBuffer>(scale_bytes))->data();
      std::memcpy(scales, scales_.data(), scale_bytes);
    }
    const int64_t elements = static_cast<int64_t>(codes_.size()) * (layer.type == kInt4 ? 2 : 1);
    const Value w(layer.type, {elements}, codes, codes_.size(), cuda);
    const Value s(kFloat, {static_cast<int64_t>(scales_.size())}, scales, scale_bytes, cuda);
    SessionSettings settings{.cuda = cuda, .cuda_options = std::move(options)};
    for (const auto& op : ops_) settings.ops.push_back(op.get());
    settings.entries = {{kFolderEntry, scratch_folder()}};
    settings.initializers = {{"w", w.get()}, {"s", s.get()}};
    session_ = std::make_unique<Session>(model_of(layer, type, cuda ? "cuda" : "panels"), settings);
  }

  std::vector<float> run(const std::vector<float>& x) const {
    std::string bytes = encode(x, type_);
    const int64_t tokens = static_cast<int64_t>(x.size()) / layer_.k;
    const Value value(type_, {tokens, layer_.k}, bytes.data(), bytes.size(), false);
    const auto y = session_->run(value.get());
    return decode(data_of(y->get()), static_cast<size_t>(tokens * layer_.n));
  }

  std::vector<float> decode(const void* data, size_t count) const {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
      if (type_ == kFloat) {
        std::memcpy(&values[i], static_cast<const char*>(data) + 4 * i, 4);
        continue;
      }
      uint16_t bits = 0;
      std::memcpy(&bits, static_cast<const char*>(data) + 2 * i, 2);
      values[i] = type_ == kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits);
    }
    return values;
  }

  const Session& session() const { return *session_; }

 private:
  Layer layer_;
  ElementTypeId type_;
  std::string codes_;
  std::vector<float> scales_;
  SessionContext context_;
  std::vector<std::unique_ptr<CustomOp>> ops_;
  std::unique_ptr<DeviceBuffer> device_codes_, device_scales_;
  std::unique_ptr<Session> session_;
};

// Exact in float32; half a unit in the last place of a 16-bit y.
void expect_equal(const std::vector<float>& actual, const std::vector<float>& expected, ElementTypeId type) {
  const float unit = type == kFloat ? 0 : type == kFloat16 ? 0x1p-11f : 0x1p-8f;
  expect_same(actual.size(), expected.size(), "the number of outputs");
  for (size_t i = 0; i < actual.size(); ++i) {
    expect(std::fabs(actual[i] - expected[i]) <= std::fabs(expected[i]) * unit,
           "output " + std::to_string(i) + " to be " + std::to_string(expected[i]) + ", not " +
               std::to_string(actual[i]));
  }
}

void computes_what_the_cpu_computes() {
  for (const Layer& layer : kLayers) {
    const LayerSession cpu(layer, kFloat, false);
    for (const ElementTypeId type : {kFloat, kFloat16, kBFloat16}) {
      const LayerSession cuda(layer, type, true);
      for (const int64_t tokens : {int64_t{1}, int64_t{5}, kMaxTokens}) {
        const std::vector<float> x = make_x(layer, tokens, 1);
        expect_equal(cuda.run(x), cpu.run(x), type);
      }
    }
  }
}

void only_launches() {
  const LayerSession cuda(kLayers[2], kBFloat16, true);
  const std::vector<float> x = make_x(kLayers[2], kMaxTokens, 1);
  cuda.run(x);
  fake_cuda_reset();
  cuda.run(x);
  const std::string log = fake_cuda_log();
  expect_same(count_of(log, "cudaMalloc"), 0, "allocations of a second run");
  expect_same(count_of(log, "cudaFree"), 0, "frees of a second run");
  expect_same(count_of(log, "cudaMemset"), 0, "memsets of a second run");
  expect_same(fake_cuda_stats().copies, 2, "copies of a second run: x and y");
}

void runs_concurrently() {
  constexpr int kThreads = 3, kRuns = 8;
  const LayerSession cpu(kLayers[1], kFloat, false), cuda(kLayers[1], kFloat, true);
  std::vector<std::string> failures(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      try {
        for (int run = 0; run < kRuns; ++run) {
          const std::vector<float> x = make_x(kLayers[1], 3 + thread, run);
          expect_equal(cuda.run(x), cpu.run(x), kFloat);
        }
      } catch (const std::exception& error) {
        failures[static_cast<size_t>(thread)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) expect(failure.empty(), "equal outputs: " + failure);
}

// The emulated kernels work at once, captured or not, so that the values are there without a replay.
void is_captured() {
  const Layer& layer = kLayers[2];
  const LayerSession cpu(layer, kFloat, false), cuda(layer, kFloat, true, {{"enable_cuda_graph", "1"}});
  const std::vector<float> x = make_x(layer, 4, 2);
  const size_t x_bytes = x.size() * sizeof(float), y_count = static_cast<size_t>(4 * layer.n);
  const DeviceBuffer x_buffer(x_bytes), y_buffer(y_count * sizeof(float));
  std::memcpy(x_buffer.data(), x.data(), x_bytes);
  const Value x_value(kFloat, {4, layer.k}, x_buffer.data(), x_bytes, true);
  const Value y_value(kFloat, {4, layer.n}, y_buffer.data(), y_count * sizeof(float), true);
  const Binding binding(cuda.session());
  binding.run(x_value, y_value);
  expect_same(count_of(fake_cuda_log(), "cudaStreamBeginCapture"), 1, "captures");
  expect_equal(cuda.decode(y_buffer.data(), y_count), cpu.run(x), kFloat);
  binding.run(x_value, y_value);
  expect_same(count_of(fake_cuda_log(), "cudaGraphLaunch"), 1, "replays");
}

void refuses_too_many_tokens() {
  const LayerSession cuda(kLayers[0], kFloat, true);
  std::string reason;
  try {
    cuda.run(make_x(kLayers[0], kMaxTokens + 1, 1));
  } catch (const Failure& failure) {
    reason = failure.what();
  }
  expect_contains(reason, "41 tokens are more than the 40", "the run's status");
}

void returns_its_memory() {
  const uint64_t before = fake_cuda_stats().device_bytes;
  {
    const LayerSession cuda(kLayers[0], kFloat, true);
    cuda.run(make_x(kLayers[0], 1, 1));
    expect(fake_cuda_stats().device_bytes > before, "device memory in use");
  }
  expect_same(fake_cuda_stats().device_bytes, before, "device memory after the session");
}

}  // namespace

std::vector<Check> adapter_checks() {
  return {{"QuantLinear on CUDA gives what the CPU's gives", computes_what_the_cpu_computes},
          {"a run of QuantLinear allocates, copies and clears nothing", only_launches},
          {"runs of QuantLinear may be concurrent", runs_concurrently},
          {"QuantLinear may be captured", is_captured},
          {"QuantLinear refuses more tokens than it has memory for", refuses_too_many_tokens},
          {"QuantLinear's memory ends with its session", returns_its_memory}};
}

}  // namespace fdq::provider_check
