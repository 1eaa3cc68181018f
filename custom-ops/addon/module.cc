#include <napi.h>

#include "addon/compare.h"
#include "addon/instance.h"
#include "addon/memory.h"
#include "addon/napi_util.h"
#include "addon/repack.h"
#include "addon/restore.h"
#include "addon/score.h"
#include "addon/session_object.h"
#include "addon/weights.h"

namespace fdq::addon {
namespace {

Napi::Value load_runtime(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsString()) throw_type_error(env, "libraryPath must be a string");
  try {
    const auto runtime = ort::Runtime::open(info[0].As<Napi::String>().Utf8Value());
    const std::vector<std::string> names = runtime->providers();
    Napi::Array providers = Napi::Array::New(env, names.size());
    for (uint32_t i = 0; i < names.size(); ++i) providers.Set(i, names[i]);
    Napi::Object result = Napi::Object::New(env);
    result.Set("version", runtime->version());
    result.Set("buildInfo", runtime->build_info());
    result.Set("providers", providers);
    return result;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

Napi::Value detect_isa_name(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), isa_name(detect_isa()));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* instance = new Instance();
  env.SetInstanceData(instance);
  env.AddCleanupHook([instance] { instance->terminate(); });
  instance->session_class() = Napi::Persistent(SessionObject::define(env));
  exports.Set("loadRuntime", Napi::Function::New<load_runtime>(env, "loadRuntime"));
  exports.Set("detectIsa", Napi::Function::New<detect_isa_name>(env, "detectIsa"));
  exports.Set("allocate", Napi::Function::New<allocate>(env, "allocate"));
  exports.Set("mapFile", Napi::Function::New<map_file>(env, "mapFile"));
  exports.Set("prefetch", Napi::Function::New<prefetch>(env, "prefetch"));
  exports.Set("quantize", Napi::Function::New<quantize>(env, "quantize"));
  exports.Set("measureMagnitude", Napi::Function::New<measure_magnitude>(env, "measureMagnitude"));
  exports.Set("compareWeight", Napi::Function::New<compare_weight>(env, "compareWeight"));
  exports.Set("read", Napi::Function::New<read>(env, "read"));
  exports.Set("repackWeight", Napi::Function::New<repack_weight>(env, "repackWeight"));
  exports.Set("scoreLogits", Napi::Function::New<score_logits>(env, "scoreLogits"));
  exports.Set("compressLogits", Napi::Function::New<compress_logits>(env, "compressLogits"));
  exports.Set("restoreWeight", Napi::Function::New<restore_weight>(env, "restoreWeight"));
  exports.Set("createSession", Napi::Function::New<SessionObject::create>(env, "createSession"));
  exports.Set("runLinear", Napi::Function::New<run_linear_job>(env, "runLinear"));
  exports.Set("measureReadBandwidth",
              Napi::Function::New<measure_read_bandwidth>(env, "measureReadBandwidth"));
  return exports;
}

}  // namespace
}  // namespace fdq::addon

static Napi::Object init_fdq(Napi::Env env, Napi::Object exports) { return fdq::addon::init(env, exports); }

NODE_API_MODULE(fdq, init_fdq)
