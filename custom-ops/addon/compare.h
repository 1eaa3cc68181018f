#pragma once

#include <napi.h>

namespace fdq::addon {

// compareWeight(job) of src/runtime/addon.ts.
Napi::Value compare_weight(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
