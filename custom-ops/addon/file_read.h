// Reading parts of a file by descriptor
#pragma once

#include <cstdint>

namespace fdq::addon {

struct ReadOutcome {
  enum Status { kOk, kShortRead, kIoError } status = kOk;
  int error = 0;  // errno of kIoError
};

// Fills `target` from `offset` of the file; nothing but reading it changes the descriptor's state.
ReadOutcome read_exactly(int fd, int64_t offset, uint8_t* target, int64_t size);

}  // namespace fdq::addon
