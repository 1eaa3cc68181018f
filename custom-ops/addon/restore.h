#pragma once

#include <napi.h>

namespace fdq::addon {

// restoreWeight(job) of src/runtime/addon.ts.
Napi::Value restore_weight(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
