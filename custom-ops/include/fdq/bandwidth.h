#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

// Best of several passes of every thread summing a buffer of its own of `bytes_per_thread`, in bytes per second:
// the limit a memory-bound kernel is measured against.
double read_bandwidth(int64_t bytes_per_thread, const Parallel& parallel);

}  // namespace fdq
