// Checks what fdq relies on of ONNX Runtime's CUDA execution provider, on a CUDA runtime without a GPU.
//   FDQ_CUDA_LIBRARY=<emulated kernels> provider_check <libonnxruntime> <folder for files>
#include <cstdio>

#include "harness.h"

namespace fdq::provider_check {
namespace {

std::string g_scratch;

// A check holds when it does not throw and nothing in it is forbidden by real CUDA.
void run_one(const Check& one) {
  const uint64_t before = fake_cuda_stats().violations;
  fake_cuda_reset();
  one.run();
  if (fake_cuda_stats().violations != before)
    throw Failure(std::string("misuse of CUDA:\n") + fake_cuda_log());
}

int run_all() {
  int failures = 0;
  for (const auto& group : {schema_checks(), initializer_checks(), run_checks(), graph_checks(),
                            placement_checks(), adapter_checks()}) {
    for (const Check& one : group) {
      try {
        run_one(one);
        std::printf("ok      %s\n", one.name);
      } catch (const std::exception& error) {
        ++failures;
        std::printf("FAILED  %s\n        %s\n", one.name, error.what());
      }
      std::fflush(stdout);
    }
  }
  return failures;
}

}  // namespace

const std::string& scratch_folder() { return g_scratch; }

}  // namespace fdq::provider_check

int main(int count, char** arguments) {
  using namespace fdq::provider_check;
  if (count != 3) {
    std::fprintf(stderr, "usage: %s <libonnxruntime> <folder for files>\n", arguments[0]);
    return 2;
  }
  g_scratch = arguments[2];
  try {
    open_runtime(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return run_all() == 0 ? 0 : 1;
}
