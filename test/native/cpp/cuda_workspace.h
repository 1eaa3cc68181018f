// A workspace of a CUDA kernel: partials are NaNs, counters must be zero whenever no kernel runs.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.h"
#include "fdq/cuda.h"
#include "linear_support.h"

namespace fdq::test {

class CheckedWorkspace {
 public:
  explicit CheckedWorkspace(const cuda::WorkspaceSize& size)
      : size_(size), counters_(at_least_one(size.counters)), partials_(at_least_one(size.partials)) {
    std::memset(counters_.bytes(), 0, counters_.size());
    std::memset(partials_.bytes(), 0xff, partials_.size());
  }
  ~CheckedWorkspace() {
    const uint8_t* end = counters_.bytes() + counters_.size();
    CHECK(std::find_if(counters_.bytes(), const_cast<uint8_t*>(end), [](uint8_t b) { return b != 0; }) == end,
          "a counter of the workspace is not zero");
  }
  cuda::Workspace get() const {
    return {reinterpret_cast<uint32_t*>(counters_.bytes()), partials_.floats(), size_};
  }
  bool is_used() const { return size_.counters > 0; }

 private:
  static size_t at_least_one(int64_t bytes) {
    return static_cast<size_t>(bytes > 0 ? round_up(bytes, 16) : 16);
  }
  cuda::WorkspaceSize size_;
  Guarded counters_, partials_;
};

constexpr uint8_t kPoison = 0xcd;

// The bytes of y, poisoned before, as `multiply` leaves them after one call, or `repeats` ones: the counters
// must be back at 0 for each. Empty where it failed.
template <typename Args>
std::vector<uint8_t> run_product(Args args, cuda::WorkspaceSize (*workspace_of)(const Args&),
                                 cuda::Error (*multiply)(const Args&, void*), int repeats) {
  const int64_t element = args.y_element == ElementType::kFloat32 ? 4 : 2;
  const Guarded y(static_cast<size_t>(args.tokens * args.y_stride * element));
  std::memset(y.bytes(), kPoison, y.size());
  args.y = y.bytes();
  const CheckedWorkspace workspace(workspace_of(args));
  args.workspace = workspace.get();
  for (int i = 0; i < (workspace.is_used() ? repeats : 1); ++i) {
    const cuda::Error error = multiply(args, nullptr);
    CHECK(error == nullptr, "%s", error);
    if (error != nullptr) return {};
  }
  return {y.bytes(), y.bytes() + y.size()};
}

// What is enough for some tokens must be enough for fewer.
template <typename Args>
void check_workspace_covers_fewer(Args args, cuda::WorkspaceSize (*workspace)(const Args&), int64_t tokens) {
  args.tokens = tokens;
  const cuda::WorkspaceSize most = workspace(args);
  for (int64_t fewer = 1; fewer < tokens; ++fewer) {
    args.tokens = fewer;
    const cuda::WorkspaceSize size = workspace(args);
    CHECK(size.counters <= most.counters && size.partials <= most.partials,
          "%lld tokens need more workspace than %lld", static_cast<long long>(fewer),
          static_cast<long long>(tokens));
  }
}

}  // namespace fdq::test
