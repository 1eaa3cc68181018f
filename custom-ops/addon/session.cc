#include "addon/session.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace fdq {

using ort::check;

namespace {

// Releases what ONNX Runtime made during one call, however it ends.
class OptionsGuard {
 public:
  explicit OptionsGuard(const ort::Api& api) : api_(api) { check(api, api.CreateSessionOptions(&options_)); }
  ~OptionsGuard() { api_.ReleaseSessionOptions(options_); }
  OptionsGuard(const OptionsGuard&) = delete;
  OptionsGuard& operator=(const OptionsGuard&) = delete;
  ort::OrtSessionOptions* get() const { return options_; }

 private:
  const ort::Api& api_;
  ort::OrtSessionOptions* options_ = nullptr;
};

class ValueList {
 public:
  ValueList(const ort::Api& api, const ort::OrtMemoryInfo* memory, const std::vector<TensorView>& tensors) : api_(api) {
    for (const TensorView& tensor : tensors) {
      ort::OrtValue* value = nullptr;
      check(api, api.CreateTensorWithDataAsOrtValue(memory, tensor.data, tensor.size, tensor.shape.data(),
                                                    tensor.shape.size(), tensor.type, &value));
      values_.push_back(value);
      names_.push_back(tensor.name.c_str());
    }
  }
  ~ValueList() {
    for (ort::OrtValue* value : values_) api_.ReleaseValue(value);
  }
  ValueList(const ValueList&) = delete;
  ValueList& operator=(const ValueList&) = delete;
  ort::OrtValue** values() { return values_.data(); }
  const char* const* names() const { return names_.data(); }
  size_t size() const { return values_.size(); }

 private:
  const ort::Api& api_;
  std::vector<ort::OrtValue*> values_;
  std::vector<const char*> names_;
};

}  // namespace

Session::Session(std::shared_ptr<ort::Runtime> runtime, const SessionConfig& config) : runtime_(std::move(runtime)) {
  context_.api = &runtime_->api();
  context_.isa = config.isa;
  context_.num_threads = config.threads;
  try {
    if (config.has_kv_cache) map_kv_pool(config.kv_cache);
    create(config);
  } catch (...) {
    close(false);
    throw;
  }
}

Session::~Session() { close(true); }

void Session::map_kv_pool(const KvCacheConfig& config) {
  constexpr int64_t kMaxHeadDim = int64_t{1} << 32;  // a record of it is far from overflowing
  bool overflows = config.head_dim > kMaxHeadDim;
  auto size = static_cast<size_t>(overflows ? 0 : kv_record_bytes(config.type, config.head_dim));
  for (const int64_t factor : {config.num_layers, config.num_blocks, int64_t{2}, config.num_kv_heads}) {
    overflows = __builtin_mul_overflow(size, static_cast<size_t>(factor), &size) || overflows;
  }
  if (overflows) throw ort::Error("the size of the KV cache overflows");
  if (size != static_cast<size_t>(config.byte_length)) {
    throw ort::Error("the KV cache takes " + std::to_string(size) + " bytes, not " + std::to_string(config.byte_length));
  }
  kv_bytes_ = size;
  void* base = mmap(nullptr, kv_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    const size_t wanted = kv_bytes_;
    kv_bytes_ = 0;
    throw ort::Error("cannot allocate a KV cache of " + std::to_string(wanted) + " bytes: " + std::strerror(errno));
  }
  context_.kv_pool = {base, config.type, config.num_layers, config.num_blocks, config.num_kv_heads, config.head_dim};
}

void Session::create(const SessionConfig& config) {
  const ort::Api& api = runtime_->api();
  check(api, api.CreateCpuMemoryInfo(ort::kDeviceAllocator, ort::kMemoryDefault, &memory_info_));
  check(api, api.CreateRunOptions(&run_options_));
  check(api, api.CreateCustomOpDomain("fdq", &domain_));
  ops_ = ort::make_ops(&context_);
  for (const auto& op : ops_) check(api, api.CustomOpDomain_Add(domain_, op.get()));

  const OptionsGuard options(api);
  check(api, api.SetSessionLogSeverityLevel(options.get(), ort::kFatal));
  check(api, api.SetIntraOpNumThreads(options.get(), config.threads));
  check(api, api.SetSessionGraphOptimizationLevel(options.get(), ort::kEnableExtended));
  check(api, api.AddSessionConfigEntry(options.get(), "session.intra_op.allow_spinning", config.spinning ? "1" : "0"));
  check(api, api.AddSessionConfigEntry(options.get(), "session.model_external_initializers_file_folder_path",
                                       config.placeholder_folder.c_str()));
  check(api, api.AddCustomOpDomain(options.get(), domain_));
  for (const InitializerView& view : config.initializers) {
    ort::OrtValue* value = nullptr;
    check(api, api.CreateTensorWithDataAsOrtValue(memory_info_, view.data, view.size, view.shape.data(),
                                                  view.shape.size(), view.type, &value));
    initializers_.push_back(value);
    check(api, api.AddInitializer(options.get(), view.name.c_str(), value));
  }
  check(api, api.CreateSessionFromArray(runtime_->env(), config.model.data(), config.model.size(), options.get(),
                                        &session_));
  input_names_ = names(true);
  output_names_ = names(false);
}

std::vector<std::string> Session::names(bool inputs) const {
  const ort::Api& api = runtime_->api();
  ort::OrtAllocator* allocator = nullptr;
  check(api, api.GetAllocatorWithDefaultOptions(&allocator));
  size_t count = 0;
  check(api, inputs ? api.SessionGetInputCount(session_, &count) : api.SessionGetOutputCount(session_, &count));
  std::vector<std::string> result;
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    check(api, inputs ? api.SessionGetInputName(session_, i, allocator, &name)
                      : api.SessionGetOutputName(session_, i, allocator, &name));
    result.emplace_back(name);
    check(api, api.AllocatorFree(allocator, name));
  }
  return result;
}

void Session::run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) throw ort::Error("the session is closed");
    if (kv_bytes_ > 0 && running_ > 0) throw ort::Error("a session with a KV cache runs one step at a time");
    ++running_;
  }
  struct Leave {
    Session* self;
    ~Leave() {
      std::lock_guard<std::mutex> lock(self->mutex_);
      --self->running_;
      self->idle_.notify_all();
    }
  } leave{this};
  const ort::Api& api = runtime_->api();
  ValueList in(api, memory_info_, inputs);
  ValueList out(api, memory_info_, outputs);
  check(api, api.Run(session_, run_options_, in.names(), in.values(), in.size(), out.names(), out.size(), out.values()));
}

void Session::close(bool terminate) {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool first = !closed_;
  closed_ = true;
  const ort::Api& api = runtime_->api();
  if (terminate && running_ > 0) {
    if (ort::OrtStatus* status = api.RunOptionsSetTerminate(run_options_)) api.ReleaseStatus(status);
  }
  idle_.wait(lock, [this] { return running_ == 0; });
  if (!first) return;
  if (session_ != nullptr) api.ReleaseSession(session_);
  for (ort::OrtValue* value : initializers_) api.ReleaseValue(value);
  if (domain_ != nullptr) api.ReleaseCustomOpDomain(domain_);
  if (run_options_ != nullptr) api.ReleaseRunOptions(run_options_);
  if (memory_info_ != nullptr) api.ReleaseMemoryInfo(memory_info_);
  ops_.clear();
  if (kv_bytes_ > 0) munmap(context_.kv_pool.base, kv_bytes_);
}

}  // namespace fdq
