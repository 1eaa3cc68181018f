#include "ort/cuda_library.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "ort/runtime.h"

namespace fdq::ort {
namespace {

constexpr const char* kName = "libfdq_cuda.so";
constexpr const char* kHelp = ". Build it with npm run build:cuda, or name another file in FDQ_CUDA_LIBRARY";

}  // namespace

std::string cuda_library_path() {
  const char* named = getenv("FDQ_CUDA_LIBRARY");
  if (named != nullptr && named[0] != '\0') return named;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&cuda_library_path), &info) == 0) return kName;
  const std::string addon = info.dli_fname;
  return addon.substr(0, addon.rfind('/') + 1) + kName;
}

const cuda::Api& open_cuda_library(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw Error("The CUDA kernels of fdq cannot be loaded: " + std::string(dlerror()) + kHelp);
  }
  const auto get_api = reinterpret_cast<decltype(&fdq_cuda_api)>(dlsym(library, "fdq_cuda_api"));
  if (get_api == nullptr) throw Error(path + " is not the library of fdq's CUDA kernels" + kHelp);
  const cuda::Api* api = get_api(cuda::kApiVersion);
  if (api == nullptr) throw Error(path + " was built from another version of fdq" + kHelp);
  return *api;
}

const cuda::Api& cuda_library() {
  static const cuda::Api& api = open_cuda_library(cuda_library_path());
  return api;
}

}  // namespace fdq::ort
