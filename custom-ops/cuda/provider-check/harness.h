// Sessions of ONNX Runtime on the fake CUDA runtime, an op that reports what it is given, and the checks'
// frame.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fake_cuda.h"
#include "model.h"
#include "ort/custom_op.h"
#include "provider_api.h"

namespace fdq::provider_check {

constexpr const char* kCpu = "CPUExecutionProvider";
constexpr const char* kCuda = "CUDAExecutionProvider";
// Session entry: where the files of external initializers are.
constexpr const char* kFolderEntry = "session.model_external_initializers_file_folder_path";

class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Check {
  const char* name;
  void (*run)();
};
std::vector<Check> schema_checks();
std::vector<Check> initializer_checks();
std::vector<Check> run_checks();
std::vector<Check> graph_checks();
std::vector<Check> placement_checks();
std::vector<Check> adapter_checks();

// Throws Failure with `what`, which says what was expected.
void expect(bool condition, const std::string& what);
void expect_same(uint64_t actual, uint64_t expected, const std::string& what);
void expect_contains(const std::string& text, const std::string& part, const std::string& what);
size_t count_of(const std::string& text, const std::string& part);

// Opens ONNX Runtime; its CUDA provider has to lie beside it.
void open_runtime(const char* library);
const Api& api();
const ProviderApi& provider_api();
OrtEnv* environment();
// Warnings and errors that ONNX Runtime has logged since the last call.
std::string take_log();
// Folder for files of this process, removed by the program.
const std::string& scratch_folder();
void check(OrtStatus* status);

// Where a tensor lies and what is in it.
struct Seen {
  const void* data = nullptr;
  FakeCudaMemory memory = kFakeHost;
  ElementTypeId type = kUndefined;
  std::vector<int64_t> shape;
  unsigned char first = 0;
};
Seen look_at(const OrtValue* value);
void* data_of(const OrtValue* value);

struct ProbeInput {
  ElementTypeId type = kFloat;
  Characteristic characteristic = kRequired;
  InputMemory memory = kInputDefault;
};

// fdq.Probe: one output with x's shape. Keeps what it saw of its inputs.
class Probe : public CustomOp {
 public:
  Probe(const char* provider, std::vector<ProbeInput> inputs, ElementTypeId output,
        const char* name = "Probe");

  std::function<void(const OrtKernelInfo*)> on_create;
  std::function<void(OrtKernelContext*)> on_compute;  // may run on several threads at once
  int creates = 0, computes = 0;
  std::vector<Seen> constants;  // of the last kernel; a constant that is none has no data
  std::vector<Seen> inputs_seen;
  Seen output_seen;
  void* stream = nullptr;

  const std::vector<ProbeInput>& inputs() const { return inputs_; }
  void created(const OrtKernelInfo* info);
  void compute(OrtKernelContext* context);

 private:
  std::vector<ProbeInput> inputs_;
  std::mutex mutex_;  // runs may be concurrent
};

class Value {
 public:
  Value(ElementTypeId type, std::vector<int64_t> shape, void* data, size_t bytes, bool on_device);
  explicit Value(OrtValue* value) : value_(value) {}
  ~Value();
  Value(const Value&) = delete;
  Value& operator=(const Value&) = delete;
  OrtValue* get() const { return value_; }

 private:
  OrtValue* value_ = nullptr;
};

// Memory of the fake device, as libfdq_cuda.so would allocate it.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  unsigned char* data() const { return static_cast<unsigned char*>(data_); }

 private:
  void* data_ = nullptr;
};

struct SessionSettings {
  bool cuda = true;
  std::map<std::string, std::string> cuda_options{};
  void* stream = nullptr;
  std::vector<OrtCustomOp*> ops{};
  std::map<std::string, std::string> entries{};
  std::vector<std::pair<std::string, OrtValue*>> initializers{};
};

class Session {
 public:
  // Throws Failure with ONNX Runtime's message.
  Session(const Model& model, const SessionSettings& settings);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  OrtSession* get() const { return session_; }
  // x -> y, through host memory.
  std::unique_ptr<Value> run(const OrtValue* x) const;
  // The same with one row of 64 floats.
  void run_row() const;

 private:
  OrtCustomOpDomain* domain_ = nullptr;
  OrtSession* session_ = nullptr;
};

// Runs a session on the same names with bound values.
class Binding {
 public:
  explicit Binding(const Session& session);
  ~Binding();
  Binding(const Binding&) = delete;
  Binding& operator=(const Binding&) = delete;
  // Forgets what the fake runtime saw before the run. `graph` is the run option gpu_graph_id.
  void run(const Value& x, const Value& y, const char* graph = nullptr) const;

 private:
  const Session& session_;
  OrtIoBinding* binding_ = nullptr;
};

// ONNX Runtime's reason for refusing the session, or an empty string.
std::string refusal(const Model& model, const SessionSettings& settings);

const OrtMemoryInfo* device_memory();

}  // namespace fdq::provider_check
