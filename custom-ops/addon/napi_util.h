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
std::vector<int64_t> get_ints(const Napi::Object& object, const char* key);

// Bytes of a typed array or DataView. Valid while the JS object lives: keep a reference for asynchronous work.
struct Bytes {
  uint8_t* data = nullptr;
  size_t size = 0;
};
Bytes get_bytes(const Napi::Object& object, const char* key);
Bytes view_bytes(Napi::Env env, const Napi::Value& value, const char* what);

// A typed array of exactly this element type.
template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;
};
template <typename T>
Span<T> get_span(const Napi::Object& object, const char* key) {
  const Bytes bytes = get_bytes(object, key);
  if (bytes.size % sizeof(T) != 0 || reinterpret_cast<uintptr_t>(bytes.data) % alignof(T) != 0) {
    throw_type_error(object.Env(), std::string(key) + " has the wrong element size or alignment");
  }
  return {reinterpret_cast<T*>(bytes.data), bytes.size / sizeof(T)};
}

WeightFormat parse_weight_format(Napi::Env env, const std::string& name);
ElementType parse_element_type(Napi::Env env, const std::string& name);
Isa get_isa(const Napi::Object& object);

}  // namespace fdq::addon
