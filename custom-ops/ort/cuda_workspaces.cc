#include "ort/cuda_workspaces.h"

#include <algorithm>

#include "ort/runtime.h"

namespace fdq::ort {
namespace {

constexpr int64_t kAlign = 256;  // bytes; what allocators of devices give

}  // namespace

CudaWorkspaces::CudaWorkspaces(const SessionContext& session, const cuda::Api& cuda, const KernelInfo& info)
    : api_(*session.api), cuda_(cuda), allocator_(info.new_allocator()) {}

CudaWorkspaces::~CudaWorkspaces() {
  for (const Piece& piece : pieces_) {
    OrtStatus* status = api_.AllocatorFree(allocator_, piece.scratch.workspace.counters);
    if (status != nullptr) api_.ReleaseStatus(status);
  }
  api_.ReleaseAllocator(allocator_);
}

std::shared_ptr<CudaWorkspaces> CudaWorkspaces::shared(const SessionContext& session, const cuda::Api& cuda,
                                                       const KernelInfo& info) {
  std::shared_ptr<CudaWorkspaces> workspaces = session.cuda_workspaces.lock();
  if (workspaces == nullptr) {
    workspaces = std::make_shared<CudaWorkspaces>(session, cuda, info);
    session.cuda_workspaces = workspaces;
  }
  return workspaces;
}

void CudaWorkspaces::reserve(const CudaNeeds& needs) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!pieces_.empty())
    throw Error("a kernel was made after the session had run: its memory would be too small");
  const auto raise = [](int64_t& most, int64_t bytes) { most = std::max(most, round_up(bytes, kAlign)); };
  raise(needs_.workspace.counters, needs.workspace.counters);
  raise(needs_.workspace.partials, needs.workspace.partials);
  raise(needs_.activations, needs.activations);
}

CudaScratch CudaWorkspaces::of(void* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(pieces_.begin(), pieces_.end(),
                                  [stream](const Piece& piece) { return piece.stream == stream; });
  if (found != pieces_.end()) return found->scratch;
  pieces_.push_back(allocate(stream));
  return pieces_.back().scratch;
}

CudaWorkspaces::Piece CudaWorkspaces::allocate(void* stream) const {
  const cuda::WorkspaceSize& size = needs_.workspace;
  const int64_t bytes = std::max(size.counters + size.partials + needs_.activations, kAlign);
  void* memory = nullptr;
  check(api_, api_.AllocatorAlloc(allocator_, static_cast<size_t>(bytes), &memory));
  auto* base = static_cast<uint8_t*>(memory);
  try {
    check_cuda(cuda_.fill_zero(base, size.counters));
  } catch (...) {
    OrtStatus* status = api_.AllocatorFree(allocator_, memory);
    if (status != nullptr) api_.ReleaseStatus(status);
    throw;
  }
  const cuda::Workspace workspace{reinterpret_cast<uint32_t*>(base),
                                  reinterpret_cast<float*>(base + size.counters), size};
  return {stream, {workspace, base + size.counters + size.partials}};
}

}  // namespace fdq::ort
