#include "addon/tensor_file.h"

#include <unistd.h>

#include <cerrno>

namespace fdq::addon {

Napi::Object outcome_to_js(Napi::Env env, const Outcome& outcome) {
  Napi::Object object = Napi::Object::New(env);
  switch (outcome.status) {
    case Outcome::kOk:
      object.Set("status", "ok");
      break;
    case Outcome::kNonFinite:
      object.Set("status", "non_finite");
      object.Set("row", Napi::Number::New(env, static_cast<double>(outcome.row)));
      object.Set("column", Napi::Number::New(env, static_cast<double>(outcome.column)));
      break;
    case Outcome::kShortRead:
      object.Set("status", "short_read");
      break;
    case Outcome::kIoError:
      object.Set("status", "io_error");
      object.Set("errno", Napi::Number::New(env, outcome.error));
      break;
  }
  return object;
}

Outcome read_exactly(int fd, int64_t offset, uint8_t* target, int64_t size) {
  Outcome outcome;
  while (size > 0) {
    const ssize_t got = pread(fd, target, static_cast<size_t>(size), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      outcome.status = Outcome::kIoError;
      outcome.error = errno;
      return outcome;
    }
    if (got == 0) {
      outcome.status = Outcome::kShortRead;
      return outcome;
    }
    target += got;
    offset += got;
    size -= got;
  }
  return outcome;
}

}  // namespace fdq::addon
