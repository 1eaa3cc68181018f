#include "addon/session_object.h"

#include "addon/async.h"
#include "addon/instance.h"
#include "addon/napi_util.h"
#include "addon/sampling.h"

namespace fdq::addon {
namespace {

// Types whose elements are plain bytes of a fixed width. A string tensor over foreign bytes would be read as objects.
bool is_plain_type(int64_t type) {
  const bool standard = (type >= 1 && type <= 7) || (type >= 9 && type <= 13);
  return standard || (type >= 16 && type <= 23);  // bfloat16, the float8 family, uint4, int4, float4e2m1
}

template <typename View>
View parse_tensor(const Napi::Object& object) {
  View view;
  view.name = get_string(object, "name");
  const int64_t type = get_int(object, "elementType");
  if (!is_plain_type(type)) {
    throw_type_error(object.Env(), view.name + ": unsupported elementType " + std::to_string(type));
  }
  view.type = static_cast<ort::ElementTypeId>(type);
  view.shape = get_ints(object, "shape");
  for (const int64_t dimension : view.shape) {
    if (dimension < 0) throw_type_error(object.Env(), view.name + ": negative dimension " + std::to_string(dimension));
  }
  return view;
}

TensorView parse_tensor_view(const Napi::Value& value, Pins& pins) {
  if (!value.IsObject()) throw_type_error(value.Env(), "a tensor must be an object");
  const auto object = value.As<Napi::Object>();
  auto view = parse_tensor<TensorView>(object);
  const Bytes bytes = get_bytes(object, "data", pins);
  view.data = bytes.data;
  view.size = bytes.size;
  return view;
}

std::vector<TensorView> parse_tensors(const Napi::Value& value, Pins& pins) {
  if (!value.IsArray()) throw_type_error(value.Env(), "inputs and outputs must be arrays of tensors");
  const auto array = value.As<Napi::Array>();
  std::vector<TensorView> tensors;
  for (uint32_t i = 0; i < array.Length(); ++i) tensors.push_back(parse_tensor_view(array.Get(i), pins));
  return tensors;
}

InitializerView parse_initializer(const Napi::Object& object, Pins& pins) {
  auto view = parse_tensor<InitializerView>(object);
  const Napi::Value memory = object.Get("memory");
  if (!memory.IsArrayBuffer()) throw_type_error(object.Env(), view.name + ": memory must be an ArrayBuffer");
  auto buffer = memory.As<Napi::ArrayBuffer>();
  const auto offset = static_cast<size_t>(get_int(object, "byteOffset"));
  view.size = static_cast<size_t>(get_int(object, "byteLength"));
  if (offset > buffer.ByteLength() || view.size > buffer.ByteLength() - offset) {
    throw_type_error(object.Env(), view.name + ": byteOffset and byteLength exceed its memory");
  }
  pins.add(buffer);
  view.data = static_cast<uint8_t*>(buffer.Data()) + offset;
  return view;
}

KvType get_kv_type(const Napi::Object& object) {
  static constexpr const char* kNames[] = {"float32", "bfloat16", "int8", "fp8", "int4"};  // in the order of KvType
  const std::string type = get_string(object, "dataType");
  for (int i = 0; i <= static_cast<int>(KvType::kInt4); ++i) {
    if (type == kNames[i]) return static_cast<KvType>(i);
  }
  throw_type_error(object.Env(), "unknown KV data type " + type);
}

KvCacheConfig parse_kv_cache(const Napi::Object& object) {
  KvCacheConfig config;
  config.type = get_kv_type(object);
  config.num_layers = get_int(object, "numLayers");
  config.num_blocks = get_int(object, "numBlocks");
  config.num_kv_heads = get_int(object, "numKvHeads");
  config.head_dim = get_int(object, "headDim");
  config.byte_length = get_int(object, "byteLength");
  if (config.num_layers < 1 || config.num_blocks < 1 || config.num_kv_heads < 1 || config.head_dim < 1) {
    throw_type_error(object.Env(), "every size of the KV cache must be at least 1");
  }
  return config;
}

SessionConfig parse_config(const Napi::Object& options, Pins& pins) {
  SessionConfig config;
  Pins only_parsed(options.Env());  // copied at once
  const Bytes model = get_bytes(options, "model", only_parsed);
  config.model.assign(model.data, model.data + model.size);
  const Napi::Value list = get(options, "initializers");
  if (!list.IsArray()) throw_type_error(options.Env(), "initializers must be an array");
  const auto initializers = list.As<Napi::Array>();
  for (uint32_t i = 0; i < initializers.Length(); ++i) {
    const Napi::Value item = initializers.Get(i);
    if (!item.IsObject()) throw_type_error(options.Env(), "an initializer must be an object");
    config.initializers.push_back(parse_initializer(item.As<Napi::Object>(), pins));
  }
  config.placeholder_folder = get_string(options, "placeholderFolder");
  config.threads = static_cast<int>(get_int(options, "threads"));
  if (config.threads < 1 || config.threads > 1024) throw_type_error(options.Env(), "threads must be 1 to 1024");
  config.spinning = get_bool(options, "spinning");
  config.isa = get_isa(options);
  config.has_kv_cache = has(options, "kvCache");
  if (config.has_kv_cache) config.kv_cache = parse_kv_cache(get(options, "kvCache").As<Napi::Object>());
  return config;
}

Napi::Value to_array(Napi::Env env, const std::vector<std::string>& names) {
  Napi::Array array = Napi::Array::New(env, names.size());
  for (uint32_t i = 0; i < names.size(); ++i) array.Set(i, names[i]);
  return array;
}

struct Nothing {};

Napi::Value to_undefined(Napi::Env env, Nothing&) { return env.Undefined(); }

}  // namespace

Napi::Function SessionObject::define(Napi::Env env) {
  return DefineClass(env, "NativeSession",
                     {InstanceMethod<&SessionObject::run>("run"),
                      InstanceMethod<&SessionObject::run_and_sample>("runAndSample"),
                      InstanceMethod<&SessionObject::close>("close"),
                      InstanceAccessor<&SessionObject::input_names>("inputNames"),
                      InstanceAccessor<&SessionObject::output_names>("outputNames")});
}

Napi::Value SessionObject::create(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  auto runtime = ort::Runtime::get();
  if (!runtime) throw_type_error(info.Env(), "loadRuntime has not been called");
  Pins pins(info.Env());
  auto config = std::make_shared<SessionConfig>(parse_config(options, pins));
  using Made = std::shared_ptr<Session>;
  auto memory = std::make_shared<Napi::ObjectReference>(Napi::Persistent(pins.list().As<Napi::Object>()));
  return AsyncTask<Made>::run(
      info.Env(), pins.list(), [runtime, config] { return std::make_shared<Session>(runtime, *config); },
      [memory](Napi::Env env, Made& session) -> Napi::Value {
        Instance& instance = Instance::of(env);
        instance.add(session);
        const Napi::Value external = Napi::External<Made>::New(env, &session);
        return instance.session_class().New({external, memory->Value()});
      });
}

SessionObject::SessionObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionObject>(info) {
  if (!info[0].IsExternal()) throw_type_error(info.Env(), "sessions are made by createSession");
  session_ = *info[0].As<Napi::External<std::shared_ptr<Session>>>().Data();
  memory_ = Napi::Reference<Napi::Value>::New(info[1], 1);
}

SessionObject::~SessionObject() {
  if (session_) session_->close(true);
}

Napi::Value SessionObject::run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Pins pins(env);
  pins.add(info.This());
  auto inputs = parse_tensors(info[0], pins);
  auto outputs = parse_tensors(info[1], pins);
  return AsyncTask<Nothing>::run(
      env, pins.list(),
      [session = session_, inputs = std::move(inputs), outputs = std::move(outputs)] {
        session->run(inputs, outputs);
        return Nothing{};
      },
      to_undefined);
}

Napi::Value SessionObject::run_and_sample(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Pins pins(env);
  pins.add(info.This());
  auto inputs = parse_tensors(info[0], pins);
  std::vector<TensorView> outputs{parse_tensor_view(info[1], pins)};
  if (!info[2].IsObject()) throw_type_error(env, "sampling must be an object");
  const SamplingBatch batch = parse_sampling_batch(info[2].As<Napi::Object>(), pins);
  if (outputs[0].type != ort::kFloat ||
      outputs[0].size != static_cast<size_t>(batch.rows) * static_cast<size_t>(batch.vocab) * sizeof(float)) {
    throw_type_error(env, "logits must be [rows, vocab] float32");
  }
  return AsyncTask<SamplingResult>::run(
      env, pins.list(),
      [session = session_, inputs = std::move(inputs), outputs = std::move(outputs), batch] {
        session->run(inputs, outputs);
        return sample(static_cast<float*>(outputs[0].data), batch);
      },
      sampling_result_to_js);
}

Napi::Value SessionObject::close(const Napi::CallbackInfo& info) {
  return AsyncTask<Nothing>::run(
      info.Env(), info.This(),
      [session = session_] {
        session->close(false);
        return Nothing{};
      },
      [this](Napi::Env env, Nothing&) -> Napi::Value {  // the task holds this object
        memory_.Reset();
        return env.Undefined();
      });
}

Napi::Value SessionObject::input_names(const Napi::CallbackInfo& info) {
  return to_array(info.Env(), session_->input_names());
}

Napi::Value SessionObject::output_names(const Napi::CallbackInfo& info) {
  return to_array(info.Env(), session_->output_names());
}

}  // namespace fdq::addon
