// A model in memory: ONNX Runtime's session, the ops' shared context and the KV pool.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fdq/ops.h"
#include "ort/registry.h"
#include "ort/runtime.h"

namespace fdq {

struct InitializerView {
  std::string name;
  ort::ElementTypeId type;
  std::vector<int64_t> shape;
  void* data;
  size_t size;
};

struct KvCacheConfig {
  KvType type = KvType::kFloat32;
  int64_t num_layers = 0, num_blocks = 0, num_kv_heads = 0, head_dim = 0;
  int64_t byte_length = 0;  // what the caller reckons with; must be what kv_cache.h says
};

struct SessionConfig {
  std::vector<uint8_t> model;
  std::vector<InitializerView> initializers;
  // Folder with an empty file `fdq-weights`: the location every absent initializer names. ONNX Runtime insists that
  // it exists, but takes the data from the initializers added here.
  std::string placeholder_folder;
  int threads = 1;
  bool spinning = true;
  Isa isa = Isa::kScalar;
  bool has_kv_cache = false;
  KvCacheConfig kv_cache;
};

struct TensorView {
  std::string name;
  ort::ElementTypeId type;
  std::vector<int64_t> shape;
  void* data;
  size_t size;
};

// Thread-safe; runs may overlap, but those of one KV cache may not: the second is refused.
class Session {
 public:
  Session(std::shared_ptr<ort::Runtime> runtime, const SessionConfig& config);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::vector<std::string>& input_names() const { return input_names_; }
  const std::vector<std::string>& output_names() const { return output_names_; }

  // Throws ort::Error, also when the session is closed.
  void run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs);
  // Makes runs under way stop at their next operator, waits for them and frees the session. Idempotent.
  void close(bool terminate);

 private:
  void map_kv_pool(const KvCacheConfig& config);
  void create(const SessionConfig& config);
  std::vector<std::string> names(bool inputs) const;

  std::shared_ptr<ort::Runtime> runtime_;
  ort::SessionContext context_;
  size_t kv_bytes_ = 0;
  std::vector<std::unique_ptr<ort::CustomOp>> ops_;
  ort::OrtCustomOpDomain* domain_ = nullptr;
  ort::OrtMemoryInfo* memory_info_ = nullptr;
  ort::OrtRunOptions* run_options_ = nullptr;
  ort::OrtSession* session_ = nullptr;
  std::vector<ort::OrtValue*> initializers_;
  std::vector<std::string> input_names_, output_names_;

  std::mutex mutex_;
  std::condition_variable idle_;
  int running_ = 0;
  bool closed_ = false;
};

}  // namespace fdq
