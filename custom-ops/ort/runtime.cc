#include "ort/runtime.h"

#include <dlfcn.h>
#include <stdlib.h>

#include <mutex>

namespace fdq::ort {
namespace {

std::mutex g_mutex;
std::shared_ptr<Runtime> g_runtime;

// Errors reach the caller as a status; ONNX Runtime's own copy of them on stderr would only repeat it.
void drop_log(void*, LoggingLevel, const char*, const char*, const char*, const char*) {}

}  // namespace

void check(const Api& api, OrtStatus* status) {
  if (status == nullptr) return;
  std::string message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw Error(message);
}

std::shared_ptr<Runtime> Runtime::get() {
  std::lock_guard<std::mutex> lock(g_mutex);
  return g_runtime;
}

std::shared_ptr<Runtime> Runtime::open(const std::string& path) {
  std::lock_guard<std::mutex> lock(g_mutex);
  if (g_runtime) {
    if (g_runtime->path_ == path) return g_runtime;
    throw Error("ONNX Runtime is already loaded from " + g_runtime->path_);
  }
  // From 1.29 on Microsoft's builds report every session to their author unless this is set before the
  // library initializes: a device id and a database in the user's cache, uploads over HTTPS. fdq sends
  // nothing to anyone.
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  // Never closed: ONNX Runtime's threads and thread-local state do not survive unloading.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error(dlerror());
  auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  if (get_base == nullptr) throw Error(path + " is not ONNX Runtime: it has no OrtGetApiBase");
  const ApiBase* base = get_base();
  const void* const* table = base->GetApi(kApiVersion);
  if (table == nullptr) {
    throw Error("ONNX Runtime " + std::string(base->GetVersionString()) + " is older than fdq needs (1.24)");
  }
  std::shared_ptr<Runtime> runtime(new Runtime());
  runtime->path_ = path;
  runtime->version_ = base->GetVersionString();
  runtime->api_ = bind_api(table);
  check(runtime->api_,
        runtime->api_.CreateEnvWithCustomLogger(drop_log, nullptr, kFatal, "fdq", &runtime->env_));
  g_runtime = runtime;
  return runtime;
}

Runtime::~Runtime() {
  if (env_ != nullptr) api_.ReleaseEnv(env_);
}

std::vector<std::string> Runtime::providers() const {
  char** names = nullptr;
  int count = 0;
  check(api_, api_.GetAvailableProviders(&names, &count));
  std::vector<std::string> result(names, names + count);
  check(api_, api_.ReleaseAvailableProviders(names, count));
  return result;
}

}  // namespace fdq::ort
