// Conversions between JS values and C++, with JS TypeErrors that name what was expected.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "fdq/ops.h"

namespace fdq::addon {

[[noreturn]] void throw_type_error(Napi::Env env, const std::string& message);

Napi::Value get(const Napi::Object& object, const char* key);
bool has(const Napi::Object& object, const char* key);
int64_t get_int(const Napi::Object& object, const char* key);
double get_number(const Napi::Object& object, const char* key);
bool get_bool(const Napi::Object& object, const char* key);
std::string get_string(const Napi::Object& object, const char* key);
int get_int32(const Napi::Object& object, const char* key);
std::vector<int64_t> get_ints(const Napi::Object& object, const char* key);

// The ArrayBuffers that asynchronous work uses. It holds this list, not the objects they came in: those the caller
// may change while the work runs.
class Pins {
 public:
  explicit Pins(Napi::Env env) : list_(Napi::Array::New(env)) {}
  void add(const Napi::Value& value) { list_.Set(list_.Length(), value); }
  const Napi::Array& list() const { return list_; }

 private:
  Napi::Array list_;
};

// Bytes of a typed array or DataView. Valid while the pins are held and the caller does not detach the buffer, which
// Node-API cannot prevent. Resizable buffers are refused: shrinking one unmaps its end.
struct Bytes {
  uint8_t* data = nullptr;
  size_t size = 0;
};
Bytes get_bytes(const Napi::Object& object, const char* key, Pins& pins);

// A typed array of exactly this element type.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;
};
template <typename T>
Span<T> get_span(const Napi::Object& object, const char* key, Pins& pins) {
  const Bytes bytes = get_bytes(object, key, pins);
  if (bytes.size % sizeof(T) != 0 || reinterpret_cast<uintptr_t>(bytes.data) % alignof(T) != 0) {
    throw_type_error(object.Env(), std::string(key) + " has the wrong element size or alignment");
  }
  return {reinterpret_cast<T*>(bytes.data), bytes.size / sizeof(T)};
}

WeightFormat parse_weight_format(Napi::Env env, const std::string& name);
ElementType parse_element_type(Napi::Env env, const std::string& name);
Isa get_isa(const Napi::Object& object);

}  // namespace fdq::addon
