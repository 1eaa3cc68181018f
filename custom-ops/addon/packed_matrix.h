#pragma once

#include <napi.h>

#include "addon/napi_util.h"
#include "fdq/compare.h"

namespace fdq::addon {

// n, k, format, groupN, groupK, block, weight, scales and blockScales of a job of src/runtime/addon.ts. A JS TypeError
// says what does not fit the rest.
PackedMatrix parse_packed_matrix(const Napi::Object& object, Pins& pins);

}  // namespace fdq::addon
