// libfdq_cuda.so, which the addon does not link: opened when something first needs the GPU.
#pragma once

#include <string>

#include "fdq/cuda.h"

namespace fdq::ort {

// The file that FDQ_CUDA_LIBRARY names, else libfdq_cuda.so beside the addon.
std::string cuda_library_path();

// The library's functions. Opened once a process and never closed; it brings a CUDA runtime with threads of
// its own. Throws Error that names the file, what is wrong with it and what to do.
const cuda::Api& cuda_library();

// The same for one file, opened each time. For tests.
const cuda::Api& open_cuda_library(const std::string& path);

}  // namespace fdq::ort
