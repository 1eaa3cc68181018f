// Streams, memory and bindings of a run.
#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "harness.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kColumns = 64;
constexpr size_t kRowBytes = kColumns * sizeof(float);

Model one_node(const char* op = "Probe") {
  Model model;
  model.input("x", kFloat, {kAnySize, kColumns}).output("y", kFloat, {kAnySize, kColumns});
  return model.node({op, {"x"}, {"y"}, "fdq", {}});
}

struct StreamDeleter {
  void operator()(CUstream_st* stream) const { cudaStreamDestroy(stream); }
};
using OwnStream = std::unique_ptr<CUstream_st, StreamDeleter>;

OwnStream make_stream() {
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  return OwnStream(stream);
}

// Ends after a while too: then the runs were not concurrent, and the check fails.
void wait_for_both(const std::atomic<int>& inside) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (inside < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
}

// Runs the session on two threads whose Computes wait for each other.
std::set<void*> streams_of_concurrent_runs(const Session& session, Probe& probe) {
  std::mutex mutex;
  std::set<void*> streams;
  std::atomic<int> inside{0};
  probe.on_compute = [&](OrtKernelContext* context) {
    void* stream = nullptr;
    check(provider_api().KernelContext_GetGPUComputeStream(context, &stream));
    {
      std::lock_guard<std::mutex> lock(mutex);
      streams.insert(stream);
    }
    ++inside;
    wait_for_both(inside);
  };
  std::thread other([&] { session.run_row(); });
  session.run_row();
  other.join();
  probe.on_compute = nullptr;
  return streams;
}

void keeps_a_stream() {
  Probe probe(kCuda, {{}}, kFloat);
  const Session session(one_node(), {.ops = {&probe}});
  session.run_row();
  void* first = probe.stream;
  expect(first != nullptr, "a stream");
  session.run_row();
  expect(probe.stream == first, "the same stream in the next run");
  expect_same(streams_of_concurrent_runs(session, probe).size(), 2, "streams of two concurrent runs");
}

// What a kernel keeps for each stream grows with the threads that ever ran the session.
void ends_a_threads_stream() {
  Probe probe(kCuda, {{}}, kFloat);
  const Session session(one_node(), {.ops = {&probe}});
  std::thread([&] { session.run_row(); }).join();
  char destroyed[40];
  snprintf(destroyed, sizeof destroyed, "cudaStreamDestroy %p", probe.stream);
  fake_cuda_reset();
  session.run_row();
  expect_contains(fake_cuda_log(), destroyed, "the log of the next thread's run");
}

void takes_the_callers_stream() {
  const OwnStream stream = make_stream();
  Probe probe(kCuda, {{}}, kFloat);
  const Session session(one_node(), {.stream = stream.get(), .ops = {&probe}});
  const std::set<void*> streams = streams_of_concurrent_runs(session, probe);
  expect(streams == std::set<void*>{stream.get()}, "the caller's stream in every run and thread");
}

// A block of `bytes` that is given back at once; throws Failure with ONNX Runtime's reason.
FakeCudaMemory memory_of_block(OrtAllocator* allocator, size_t bytes) {
  void* block = nullptr;
  check(provider_api().AllocatorAlloc(allocator, bytes, &block));
  const FakeCudaMemory memory = fake_cuda_memory_of(block);
  check(api().AllocatorFree(allocator, block));
  return memory;
}

void allocates_for_kernels() {
  constexpr size_t kLimit = size_t{16} << 20;
  Probe probe(kCuda, {{}}, kFloat);
  std::map<InputMemory, FakeCudaMemory> found;
  std::string reason;
  probe.on_create = [&](const OrtKernelInfo* info) {
    for (const InputMemory memory : {kInputDefault, kOutputOnHost, kInputOnHost}) {
      OrtAllocator* allocator = nullptr;
      check(provider_api().KernelInfoGetAllocator(info, memory, &allocator));
      found[memory] = memory_of_block(allocator, 4096);
      if (memory == kInputDefault) {
        try {
          memory_of_block(allocator, 2 * kLimit);
        } catch (const Failure& failure) {
          reason = failure.what();
        }
      }
      provider_api().ReleaseAllocator(allocator);
    }
  };
  const Session session(one_node(),
                        {.cuda_options = {{"gpu_mem_limit", std::to_string(kLimit)}}, .ops = {&probe}});
  expect(found[kInputDefault] == kFakeDevice, "the default allocator to give device memory");
  expect(found[kOutputOnHost] == kFakePinned, "the allocator of outputs on the host to give pinned memory");
  expect(found[kInputOnHost] == kFakeHost, "the allocator of inputs on the host to give host memory");
  expect_contains(reason, "Available memory", "the status of an allocation beyond gpu_mem_limit");
}

// A buffer that one run gives back may be another stream's next one only where ONNX Runtime knows of the
// stream.
void scratch_belongs_to_a_stream() {
  constexpr size_t kBytes = 100000;
  Probe probe(kCuda, {{}}, kFloat);
  const Session session(one_node(), {.ops = {&probe}});
  std::atomic<int> inside{0};
  std::mutex mutex;
  std::vector<char*> blocks;
  probe.on_compute = [&](OrtKernelContext* context) {
    OrtAllocator* allocator = nullptr;
    check(provider_api().KernelContext_GetAllocator(context, device_memory(), &allocator));
    void* block = nullptr;
    check(provider_api().KernelContext_GetScratchBuffer(context, device_memory(), kBytes, &block));
    check(api().AllocatorFree(allocator, block));
    provider_api().ReleaseAllocator(allocator);
    {
      std::lock_guard<std::mutex> lock(mutex);
      blocks.push_back(static_cast<char*>(block));
    }
    ++inside;
    wait_for_both(inside);
  };
  std::thread other([&] { session.run_row(); });
  session.run_row();
  other.join();
  for (const char* block : blocks) expect(fake_cuda_memory_of(block) == kFakeDevice, "scratch on the device");
  const auto distance = static_cast<size_t>(std::abs(blocks.at(0) - blocks.at(1)));
  expect(distance >= kBytes, "scratch of two streams not to overlap");
}

void leaves_bound_outputs_on_the_device() {
  Probe probe(kCuda, {{}}, kFloat);
  const Session session(one_node(), {.ops = {&probe}});
  const DeviceBuffer x_buffer(kRowBytes), y_buffer(kRowBytes);
  float host[kColumns] = {};
  const Value x(kFloat, {1, kColumns}, x_buffer.data(), kRowBytes, true);
  const Value y(kFloat, {1, kColumns}, y_buffer.data(), kRowBytes, true);
  const Value host_y(kFloat, {1, kColumns}, host, sizeof host, false);
  const Binding binding(session);
  binding.run(x, y);
  expect(probe.inputs_seen.at(0).data == x_buffer.data(), "the kernel to read the bound input");
  expect(probe.output_seen.data == y_buffer.data(), "the kernel to write the bound output");
  expect_same(fake_cuda_stats().copies, 0, "copies");
  binding.run(x, host_y);
  expect_same(fake_cuda_stats().to_host, sizeof host, "bytes copied to the host");
  expect_same(fake_cuda_stats().copies, 1, "copies to a bound host buffer");
}

void copies_between_providers() {
  Model model;
  model.input("x", kFloat, {kAnySize, kColumns}).output("y", kFloat, {kAnySize, kColumns});
  model.node({"Probe", {"x"}, {"h"}, "fdq", {}}).node({"HostProbe", {"h"}, {"y"}, "fdq", {}});
  Probe probe(kCuda, {{}}, kFloat), host(kCpu, {{}}, kFloat, "HostProbe");
  const Session session(model, {.ops = {&probe, &host}});
  session.run_row();
  expect(host.inputs_seen.at(0).memory == kFakePinned, "the CPU node's input in pinned memory");
  expect(host.stream == nullptr, "no stream for the CPU node");
}

void sets_the_device_before_kernels() {
  Probe probe(kCuda, {{}}, kFloat);
  uint64_t at_creation = 0, at_run = 0;
  probe.on_create = [&](const OrtKernelInfo*) { at_creation = fake_cuda_stats().set_device_calls; };
  probe.on_compute = [&](OrtKernelContext*) { at_run = fake_cuda_stats().set_device_calls; };
  fake_cuda_reset();
  const Session session(one_node(), {.ops = {&probe}});
  expect(at_creation > 0, "cudaSetDevice before the kernel is created");
  fake_cuda_reset();
  std::thread([&] { session.run_row(); }).join();
  expect(at_run > 0, "cudaSetDevice on a thread's first run");
}

}  // namespace

std::vector<Check> run_checks() {
  return {
      {"runs of one thread share a stream, concurrent runs do not", keeps_a_stream},
      {"the stream of a thread that has ended is destroyed by the next run", ends_a_threads_stream},
      {"user_compute_stream is the stream of every run", takes_the_callers_stream},
      {"allocators of a kernel give device, pinned and host memory, and say when full",
       allocates_for_kernels},
      {"scratch of concurrent runs does not overlap", scratch_belongs_to_a_stream},
      {"bound device buffers are used as they are, a host buffer costs one copy",
       leaves_bound_outputs_on_the_device},
      {"a CPU node after a CUDA node reads pinned memory", copies_between_providers},
      {"the device is set on the thread that creates and the one that runs", sets_the_device_before_kernels}};
}

}  // namespace fdq::provider_check
