// The ONNX Runtime library of this process: opened once, its environment shared by all sessions.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/ort_api.h"

namespace fdq::ort {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with ONNX Runtime's own message and releases the status.
void check(const Api& api, OrtStatus* status);

class Runtime {
 public:
  // Opens libonnxruntime at `path`. Later calls return the same runtime; a different path is an Error, two
  // libraries in one process would not share their environment.
  static std::shared_ptr<Runtime> open(const std::string& path);
  // The runtime opened before, or null.
  static std::shared_ptr<Runtime> get();

  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Api& api() const { return api_; }
  OrtEnv* env() const { return env_; }
  const std::string& version() const { return version_; }
  std::string build_info() const { return api_.GetBuildInfoString(); }
  std::vector<std::string> providers() const;

 private:
  Runtime() = default;

  std::string path_;
  std::string version_;
  Api api_{};
  OrtEnv* env_ = nullptr;
};

}  // namespace fdq::ort
