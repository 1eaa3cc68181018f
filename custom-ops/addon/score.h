#pragma once

#include <napi.h>

namespace fdq::addon {

// scoreLogits(job) and compressLogits(job) of src/runtime/addon.ts.
Napi::Value score_logits(const Napi::CallbackInfo& info);
Napi::Value compress_logits(const Napi::CallbackInfo& info);

}  // namespace fdq::addon
