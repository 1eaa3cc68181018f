// The device memory that the CUDA kernels of a session share: one piece a stream, since calls on one stream
// follow each other and calls on two may not.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "ort/cuda_linear.h"
#include "ort/custom_op.h"

namespace fdq::ort {

class CudaWorkspaces {
 public:
  // The allocator is that of the kernel: what is taken counts towards the provider's limit of memory.
  CudaWorkspaces(const SessionContext& session, const cuda::Api& cuda, const KernelInfo& info);
  ~CudaWorkspaces();
  CudaWorkspaces(const CudaWorkspaces&) = delete;
  CudaWorkspaces& operator=(const CudaWorkspaces&) = delete;

  // What the session's other kernels share, or a new one.
  static std::shared_ptr<CudaWorkspaces> shared(const SessionContext& session, const cuda::Api& cuda,
                                                const KernelInfo& info);

  // Raises what every piece must hold. Throws Error once there is a piece.
  void reserve(const CudaNeeds& needs);

  // Allocated and zeroed when a stream is first seen, and this waits for it: ONNX Runtime runs a model before
  // it captures it. Thread-safe. Throws Error where the device has not enough memory.
  CudaScratch of(void* stream);

 private:
  struct Piece {
    void* stream;
    CudaScratch scratch;
  };
  Piece allocate(void* stream) const;

  const Api& api_;
  const cuda::Api& cuda_;
  OrtAllocator* allocator_;
  CudaNeeds needs_;
  std::mutex mutex_;
  std::vector<Piece> pieces_;  // few: a stream for each thread that runs the session
};

}  // namespace fdq::ort
