// A linear layer as calls of the CUDA kernels: one for its activations, one for each run of members that lie
// as one matrix. No ONNX Runtime types.
#pragma once

#include <vector>

#include "fdq/cuda.h"
#include "fdq/ops.h"

namespace fdq::ort {

// Device memory that calls on one stream may share.
struct CudaNeeds {
  cuda::WorkspaceSize workspace{0, 0};
  int64_t activations = 0;  // bytes
};
struct CudaScratch {
  cuda::Workspace workspace{};
  void* activations = nullptr;  // 16-byte aligned
};

// Throws Error with the text of a kernel's error.
void check_cuda(cuda::Error error);

class CudaLinear {
 public:
  // `weight` points to device memory, in the layout of fdq/cuda.h; of it only the zero points are read here.
  // x and y are of `element`. Throws std::invalid_argument for what no kernel computes.
  CudaLinear(const cuda::Api& api, const LinearWeight& weight, const LinearActivation& activation,
             ElementType element, ComputeType compute);

  // Of as many tokens, and of fewer.
  CudaNeeds needs(int64_t tokens) const;

  // x [tokens, k] and y [tokens, sum of rows], dense. Only launches: nothing is allocated, nothing waits.
  void run(const void* x, int64_t tokens, void* y, const CudaScratch& scratch, void* stream) const;

 private:
  // Members whose panels and scales follow each other without a gap of rows.
  struct Part {
    int64_t first_row;
    cuda::Weight weight;
    const float* bias;
  };
  // Where the kernels find their inputs: x as it is, or what it was turned into.
  struct Inputs {
    const void* x;
    const float* scales;
    int64_t tokens, scale_stride;
  };

  void check_zeros(const LinearWeight& weight) const;
  void add_parts(const LinearWeight& weight);
  Inputs prepare(const void* x, int64_t tokens, void* memory, void* stream) const;
  template <typename Args>
  Args product(const Part& part, const Inputs& inputs) const;
  cuda::Fp8LinearArgs fp8_args(const Part& part, const Inputs& inputs) const;
  cuda::WeightOnlyArgs weight_only_args(const Part& part, const Inputs& inputs) const;
  cuda::Error multiply(const Part& part, const Inputs& inputs, void* y, const cuda::Workspace& workspace,
                       void* stream) const;
  int64_t code_bytes(int64_t tokens) const;

  const cuda::Api& api_;
  LinearActivation activation_;
  ElementType element_;
  bool is_fp8_;
  bool is_converted_;  // from float32 to bfloat16
  int64_t k_, n_;
  int64_t input_stride_;  // elements of a row that the product reads
  std::vector<Part> parts_;
};

}  // namespace fdq::ort
