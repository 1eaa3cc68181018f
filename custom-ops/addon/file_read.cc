#include "addon/file_read.h"

#include <unistd.h>

#include <cerrno>

namespace fdq::addon {

ReadOutcome read_exactly(int fd, int64_t offset, uint8_t* target, int64_t size) {
  while (size > 0) {
    const ssize_t got = pread(fd, target, static_cast<size_t>(size), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {ReadOutcome::kIoError, errno};
    if (got == 0) return {ReadOutcome::kShortRead, 0};
    target += got;
    offset += got;
    size -= got;
  }
  return ReadOutcome();
}

}  // namespace fdq::addon
