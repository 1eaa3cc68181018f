#include "addon/napi_util.h"

#include "ort/linear_size.h"

namespace fdq::addon {

void throw_type_error(Napi::Env env, const std::string& message) { throw Napi::TypeError::New(env, message); }

Napi::Value get(const Napi::Object& object, const char* key) { return object.Get(key); }

bool has(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  return !value.IsUndefined() && !value.IsNull();
}

double get_number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) throw_type_error(object.Env(), std::string(key) + " must be a number");
  return value.As<Napi::Number>().DoubleValue();
}

namespace {

bool is_safe_integer(double value) {
  return value >= -9007199254740991.0 && value <= 9007199254740991.0 &&
         value == static_cast<double>(static_cast<int64_t>(value));
}

}  // namespace

int64_t get_int(const Napi::Object& object, const char* key) {
  const double value = get_number(object, key);
  if (!is_safe_integer(value)) throw_type_error(object.Env(), std::string(key) + " must be a safe integer");
  return static_cast<int64_t>(value);
}

int get_int32(const Napi::Object& object, const char* key) {
  const int64_t value = get_int(object, key);
  if (value < INT32_MIN || value > INT32_MAX)
    throw_type_error(object.Env(), std::string(key) + " is out of range");
  return static_cast<int>(value);
}

bool get_bool(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsBoolean()) throw_type_error(object.Env(), std::string(key) + " must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string get_string(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) throw_type_error(object.Env(), std::string(key) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

std::vector<int64_t> get_ints(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw_type_error(object.Env(), std::string(key) + " must be an array of integers");
  const auto array = value.As<Napi::Array>();
  std::vector<int64_t> result;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsNumber() || !is_safe_integer(item.As<Napi::Number>().DoubleValue())) {
      throw_type_error(object.Env(), std::string(key) + " must be an array of integers");
    }
    result.push_back(item.As<Napi::Number>().Int64Value());
  }
  return result;
}

namespace {

template <typename View>
Bytes pin(const View& view, const char* what, Pins& pins) {
  Napi::ArrayBuffer buffer = view.ArrayBuffer();
  const Napi::Value resizable = buffer.Get("resizable");
  if (resizable.IsBoolean() && resizable.As<Napi::Boolean>().Value()) {
    throw_type_error(view.Env(), std::string(what) + " must not be in a resizable ArrayBuffer");
  }
  pins.add(buffer);
  return {static_cast<uint8_t*>(buffer.Data()) + view.ByteOffset(), view.ByteLength()};
}

}  // namespace

Bytes get_bytes(const Napi::Object& object, const char* key, Pins& pins) {
  const Napi::Value value = object.Get(key);
  if (value.IsTypedArray()) return pin(value.As<Napi::TypedArray>(), key, pins);
  if (value.IsDataView()) return pin(value.As<Napi::DataView>(), key, pins);
  throw_type_error(object.Env(), std::string(key) + " must be a typed array");
}

WeightFormat parse_weight_format(Napi::Env env, const std::string& name) {
  WeightFormat format;
  if (!parse_weight_format_name(name, &format)) throw_type_error(env, "unknown weight format " + name);
  return format;
}

ElementType parse_element_type(Napi::Env env, const std::string& name) {
  if (name == "float32") return ElementType::kFloat32;
  if (name == "float16") return ElementType::kFloat16;
  if (name == "bfloat16") return ElementType::kBFloat16;
  throw_type_error(env, "unknown element type " + name);
}

Isa get_isa(const Napi::Object& object) {
  const std::string name = get_string(object, "isa");
  Isa isa;
  if (!parse_isa(name.c_str(), &isa)) throw_type_error(object.Env(), "unknown isa " + name);
  if (isa > detect_isa()) throw_type_error(object.Env(), "this machine has no " + name);
  return isa;
}

}  // namespace fdq::addon
