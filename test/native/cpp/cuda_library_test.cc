// How libfdq_cuda.so is found, opened and refused. The emulated kernels stand in for it.
#include "ort/cuda_library.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "check.h"
#include "ort/runtime.h"

namespace fdq::test {
namespace {

void refuse(const std::string& path, const char* text) {
  try {
    ort::open_cuda_library(path);
    CHECK(false, "%s was opened", path.c_str());
  } catch (const ort::Error& error) {
    CHECK(std::strstr(error.what(), text) != nullptr, "expected '%s', got '%s'", text, error.what());
    CHECK(std::strstr(error.what(), path.c_str()) != nullptr, "'%s' does not name the file", error.what());
    CHECK(std::strstr(error.what(), "npm run build:cuda") != nullptr, "'%s' does not help", error.what());
  }
}

void test_path() {
  unsetenv("FDQ_CUDA_LIBRARY");
  const std::string beside = ort::cuda_library_path();
  const std::string name = "/libfdq_cuda.so";
  CHECK(beside.size() > name.size() && beside.substr(beside.size() - name.size()) == name, "%s",
        beside.c_str());
  setenv("FDQ_CUDA_LIBRARY", "", 1);
  CHECK(ort::cuda_library_path() == beside, "an empty variable names nothing");
  setenv("FDQ_CUDA_LIBRARY", "/somewhere/else.so", 1);
  CHECK(ort::cuda_library_path() == "/somewhere/else.so", "%s", ort::cuda_library_path().c_str());
}

void test_refusals() {
  refuse("/absent/libfdq_cuda.so", "cannot open shared object file");
  refuse("libm.so.6", "is not the library");
  refuse(FDQ_CUDA_OTHER_VERSION, "another version");
}

void test_open() {
  setenv("FDQ_CUDA_LIBRARY", FDQ_CUDA_EMULATED_LIBRARY, 1);
  const cuda::Api& api = ort::cuda_library();
  CHECK(api.version == cuda::kApiVersion, "version %u", api.version);
  cuda::DeviceInfo device{};
  CHECK(api.device_info(&device) == nullptr && device.major == 9, "the emulated device answers");
  setenv("FDQ_CUDA_LIBRARY", "/absent/libfdq_cuda.so", 1);
  CHECK(&ort::cuda_library() == &api, "it is opened once");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_path();
  test_refusals();
  test_open();
  return fdq_test::finish("cuda_library_test");
}
