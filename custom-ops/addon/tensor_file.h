// Reading tensors from files, and what JS is told when that or a check of their values fails.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>

#include "fdq/ops.h"

namespace fdq::addon {

// QuantizeResult of src/runtime/addon.ts.
struct Outcome {
  enum Status { kOk, kNonFinite, kShortRead, kIoError } status = kOk;
  int64_t row = 0;
  int64_t column = 0;
  int error = 0;
};

Napi::Object outcome_to_js(Napi::Env env, const Outcome& outcome);

inline size_t element_size(ElementType type) { return type == ElementType::kFloat32 ? 4 : 2; }

// Reads `size` bytes at `offset`; kShortRead when the file ends before.
Outcome read_exactly(int fd, int64_t offset, uint8_t* target, int64_t size);

}  // namespace fdq::addon
