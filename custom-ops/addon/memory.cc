#include "addon/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <string>

#include "addon/napi_util.h"

namespace fdq::addon {
namespace {

struct Mapping {
  void* base;
  size_t size;
};

Napi::ArrayBuffer wrap(Napi::Env env, Mapping mapping, size_t skip, size_t size) {
  return Napi::ArrayBuffer::New(
      env, static_cast<uint8_t*>(mapping.base) + skip, size,
      [](Napi::Env, void*, Mapping* owned) {
        munmap(owned->base, owned->size);
        delete owned;
      },
      new Mapping(mapping));
}

size_t size_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const double value = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : -1.0;
  if (!(value >= 0 && value <= 9007199254740991.0) || value != std::floor(value)) {
    throw_type_error(info.Env(), std::string(name) + " must be a whole number of bytes");
  }
  return static_cast<size_t>(value);
}

[[noreturn]] void throw_errno(Napi::Env env, const std::string& what) {
  Napi::Error error = Napi::Error::New(env, what + ": " + std::strerror(errno));
  error.Set("errno", Napi::Number::New(env, errno));
  throw error;
}

}  // namespace

Napi::Value allocate(const Napi::CallbackInfo& info) {
  const size_t size = size_argument(info, 0, "byteLength");
  if (size == 0) return Napi::ArrayBuffer::New(info.Env(), 0);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw_errno(info.Env(), "cannot allocate " + std::to_string(size) + " bytes");
  madvise(base, size, MADV_HUGEPAGE);
  return wrap(info.Env(), {base, size}, 0, size);
}

Napi::Value map_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw_type_error(env, "path must be a string");
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const size_t offset = size_argument(info, 1, "offset");
  const size_t size = size_argument(info, 2, "byteLength");
  if (size == 0) return Napi::ArrayBuffer::New(env, 0);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_errno(env, "cannot open " + path);
  struct stat status;
  const bool fits = fstat(fd, &status) == 0 && offset + size >= offset && offset + size <= static_cast<size_t>(status.st_size);
  const size_t skip = offset % static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* base = fits ? mmap(nullptr, size + skip, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, static_cast<off_t>(offset - skip))
                    : MAP_FAILED;
  close(fd);
  if (!fits) throw_type_error(env, path + " ends before byte " + std::to_string(offset + size));
  if (base == MAP_FAILED) throw_errno(env, "cannot map " + path);
  return wrap(env, {base, size + skip}, skip, size);
}

void prefetch(const Napi::CallbackInfo& info) {
  // Advice only: an error here shows again, with its message, when the bytes are read.
  posix_fadvise(static_cast<int>(size_argument(info, 0, "fd")), static_cast<off_t>(size_argument(info, 1, "offset")),
                static_cast<off_t>(size_argument(info, 2, "byteLength")), POSIX_FADV_WILLNEED);
}

}  // namespace fdq::addon
