#pragma once

#include <napi.h>

namespace fdq::addon {

// allocate(byteLength): zero-filled, page-aligned memory outside the JS heap.
Napi::Value allocate(const Napi::CallbackInfo& info);
// mapFile(path, offset, byteLength): copy-on-write view of a file.
Napi::Value map_file(const Napi::CallbackInfo& info);
// prefetch(fd, offset, byteLength)
void prefetch(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
