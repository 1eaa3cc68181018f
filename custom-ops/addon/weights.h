#pragma once

#include <napi.h>

namespace fdq::addon {

// quantize(job), measureMagnitude(job) and read(job) of src/runtime/addon.ts.
Napi::Value quantize(const Napi::CallbackInfo& info);
Napi::Value measure_magnitude(const Napi::CallbackInfo& info);
Napi::Value read(const Napi::CallbackInfo& info);
// unpack(...): packed panels back to canonical codes, for tests and export.
Napi::Value run_linear_job(const Napi::CallbackInfo& info);
Napi::Value measure_read_bandwidth(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
