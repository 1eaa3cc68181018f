#include "harness.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdlib.h>

#include <mutex>

namespace fdq::provider_check {
namespace {

Api g_api;
ProviderApi g_provider_api;
OrtEnv* g_environment = nullptr;
std::mutex g_log_mutex;
std::string g_log;

void keep_log(void*, LoggingLevel severity, const char*, const char*, const char*, const char* message) {
  if (severity < kWarning) return;
  std::lock_guard<std::mutex> lock(g_log_mutex);
  g_log += std::string(message) + '\n';
}

std::string take_message(OrtStatus* status) {
  std::string message = g_api.GetErrorMessage(status);
  g_api.ReleaseStatus(status);
  return message;
}

const OrtMemoryInfo* host_memory() {
  static OrtMemoryInfo* memory = [] {
    OrtMemoryInfo* made = nullptr;
    check(g_api.CreateCpuMemoryInfo(kDeviceAllocator, kMemoryDefault, &made));
    return made;
  }();
  return memory;
}

void append_provider(OrtSessionOptions* options, const SessionSettings& settings) {
  OrtCUDAProviderOptionsV2* provider = nullptr;
  check(g_provider_api.CreateCUDAProviderOptions(&provider));
  for (const auto& [key, value] : settings.cuda_options) {
    const char *name = key.c_str(), *text = value.c_str();
    check(g_provider_api.UpdateCUDAProviderOptions(provider, &name, &text, 1));
  }
  if (settings.stream != nullptr) {
    check(
        g_provider_api.UpdateCUDAProviderOptionsWithValue(provider, "user_compute_stream", settings.stream));
  }
  OrtStatus* status = g_provider_api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, provider);
  g_provider_api.ReleaseCUDAProviderOptions(provider);
  check(status);
}

}  // namespace

void expect(bool condition, const std::string& what) {
  if (!condition) throw Failure("expected " + what);
}

void expect_same(uint64_t actual, uint64_t expected, const std::string& what) {
  if (actual == expected) return;
  throw Failure("expected " + what + " to be " + std::to_string(expected) + ", not " +
                std::to_string(actual));
}

void expect_contains(const std::string& text, const std::string& part, const std::string& what) {
  if (text.find(part) == std::string::npos) {
    throw Failure("expected " + what + " to have '" + part + "' in: " + text);
  }
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

void open_runtime(const char* library) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Failure(dlerror());
  const auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) throw Failure(std::string(library) + " is not ONNX Runtime");
  const void* const* table = get_base()->GetApi(kApiVersion);
  if (table == nullptr) throw Failure("this ONNX Runtime is older than fdq needs");
  g_api = bind_api(table);
  g_provider_api = bind_provider_api(table);
  check(g_api.CreateEnvWithCustomLogger(keep_log, nullptr, kWarning, "check", &g_environment));
}

const Api& api() { return g_api; }
const ProviderApi& provider_api() { return g_provider_api; }
OrtEnv* environment() { return g_environment; }

std::string take_log() {
  std::lock_guard<std::mutex> lock(g_log_mutex);
  return std::exchange(g_log, std::string());
}

void check(OrtStatus* status) {
  if (status != nullptr) throw Failure(take_message(status));
}

const OrtMemoryInfo* device_memory() {
  static OrtMemoryInfo* memory = [] {
    OrtMemoryInfo* made = nullptr;
    check(g_provider_api.CreateMemoryInfo("Cuda", kDeviceAllocator, 0, kMemoryDefault, &made));
    return made;
  }();
  return memory;
}

void* data_of(const OrtValue* value) {
  void* data = nullptr;
  check(g_api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return data;
}

Seen look_at(const OrtValue* value) {
  Seen seen;
  seen.data = data_of(value);
  seen.memory = fake_cuda_memory_of(seen.data);
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(g_api.GetTensorTypeAndShape(value, &info));
  size_t rank = 0;
  check(g_api.GetTensorElementType(info, &seen.type));
  check(g_api.GetDimensionsCount(info, &rank));
  seen.shape.resize(rank);
  check(g_api.GetDimensions(info, seen.shape.data(), rank));
  g_api.ReleaseTensorTypeAndShapeInfo(info);
  if (seen.data != nullptr) seen.first = *static_cast<const unsigned char*>(seen.data);
  return seen;
}

Value::Value(ElementTypeId type, std::vector<int64_t> shape, void* data, size_t bytes, bool on_device) {
  check(g_api.CreateTensorWithDataAsOrtValue(on_device ? device_memory() : host_memory(), data, bytes,
                                             shape.data(), shape.size(), type, &value_));
}
Value::~Value() { g_api.ReleaseValue(value_); }

DeviceBuffer::DeviceBuffer(size_t bytes) {
  if (cudaMalloc(&data_, bytes) != cudaSuccess) throw Failure("the fake device is full");
}
DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

Session::Session(const Model& model, const SessionSettings& settings) {
  const std::string bytes = model.serialize();
  OrtSessionOptions* options = nullptr;
  check(g_api.CreateSessionOptions(&options));
  std::unique_ptr<OrtSessionOptions, void (*)(OrtSessionOptions*)> guard(options,
                                                                         g_api.ReleaseSessionOptions);
  check(g_api.SetSessionLogSeverityLevel(options, kWarning));
  check(g_api.SetIntraOpNumThreads(options, 1));
  check(g_api.SetSessionGraphOptimizationLevel(options, kEnableBasic));
  if (settings.cuda) append_provider(options, settings);
  for (const auto& [key, value] : settings.entries) {
    check(g_api.AddSessionConfigEntry(options, key.c_str(), value.c_str()));
  }
  for (const auto& [name, value] : settings.initializers)
    check(g_api.AddInitializer(options, name.c_str(), value));
  check(g_api.CreateCustomOpDomain("fdq", &domain_));
  OrtStatus* status = nullptr;
  for (OrtCustomOp* op : settings.ops) {
    if (status == nullptr) status = g_api.CustomOpDomain_Add(domain_, op);
  }
  if (status == nullptr && !settings.ops.empty()) status = g_api.AddCustomOpDomain(options, domain_);
  if (status == nullptr) {
    status = g_api.CreateSessionFromArray(g_environment, bytes.data(), bytes.size(), options, &session_);
  }
  if (status == nullptr) return;
  g_api.ReleaseCustomOpDomain(domain_);
  throw Failure(take_message(status));
}

Session::~Session() {
  g_api.ReleaseSession(session_);
  g_api.ReleaseCustomOpDomain(domain_);
}

std::unique_ptr<Value> Session::run(const OrtValue* x) const {
  const char *input = "x", *output = "y";
  OrtValue* y = nullptr;
  check(g_api.Run(session_, nullptr, &input, &x, 1, &output, 1, &y));
  return std::make_unique<Value>(y);
}

void Session::run_row() const {
  float row[64] = {};
  const Value x(kFloat, {1, 64}, row, sizeof row, false);
  run(x.get());
}

Binding::Binding(const Session& session) : session_(session) {
  check(g_provider_api.CreateIoBinding(session.get(), &binding_));
}
Binding::~Binding() { g_provider_api.ReleaseIoBinding(binding_); }

void Binding::run(const Value& x, const Value& y, const char* graph) const {
  check(g_provider_api.BindInput(binding_, "x", x.get()));
  check(g_provider_api.BindOutput(binding_, "y", y.get()));
  OrtRunOptions* options = nullptr;
  check(g_api.CreateRunOptions(&options));
  std::unique_ptr<OrtRunOptions, void (*)(OrtRunOptions*)> guard(options, g_api.ReleaseRunOptions);
  if (graph != nullptr) check(g_provider_api.AddRunConfigEntry(options, "gpu_graph_id", graph));
  fake_cuda_reset();
  check(g_provider_api.RunWithBinding(session_.get(), options, binding_));
}

std::string refusal(const Model& model, const SessionSettings& settings) {
  try {
    const Session session(model, settings);
    return {};
  } catch (const Failure& failure) {
    return failure.what();
  }
}

}  // namespace fdq::provider_check
