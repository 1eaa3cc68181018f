#pragma once

#include <napi.h>

namespace fdq::addon {

// repackWeight(job) of src/runtime/addon.ts.
Napi::Value repack_weight(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
