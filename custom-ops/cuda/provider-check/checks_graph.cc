// CUDA graphs: when the provider captures, and what it replays.
#include <cuda_runtime_api.h>

#include <thread>

#include "harness.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kColumns = 64;
constexpr int kRunsBeforeReplay = 3;  // two plain ones and the captured one, all in the first Run

// Fills its output, on the stream, with how often it has run.
class Counter : public Probe {
 public:
  Counter() : Probe(kCuda, {{}}, kFloat) {
    on_compute = [this](OrtKernelContext*) {
      const size_t bytes = static_cast<size_t>(output_seen.shape.at(0)) * kColumns * sizeof(float);
      cudaMemsetAsync(const_cast<void*>(output_seen.data), computes, bytes,
                      static_cast<cudaStream_t>(stream));
    };
  }
};

struct Row {
  explicit Row(int64_t rows)
      : buffer(static_cast<size_t>(rows) * kColumns * sizeof(float)),
        value(kFloat, {rows, kColumns}, buffer.data(), static_cast<size_t>(rows) * kColumns * sizeof(float),
              true) {}
  DeviceBuffer buffer;
  Value value;
};

Model one_node() {
  Model model;
  model.input("x", kFloat, {kAnySize, kColumns}).output("y", kFloat, {kAnySize, kColumns});
  return model.node({"Probe", {"x"}, {"y"}, "fdq", {}});
}

SessionSettings with_graphs(OrtCustomOp* op) {
  return {.cuda_options = {{"enable_cuda_graph", "1"}}, .ops = {op}};
}

void expect_capture(const Counter& counter, int computes_before) {
  const std::string log = fake_cuda_log();
  expect_same(static_cast<uint64_t>(counter.computes - computes_before), kRunsBeforeReplay,
              "calls of Compute");
  expect_same(count_of(log, "cudaStreamBeginCapture"), 1, "captures");
  char stream[32];
  snprintf(stream, sizeof stream, "Capture %p", counter.stream);
  expect_contains(log, stream, "the capture on the stream that Compute is given");
}

void expect_replay(const Counter& counter, int computes_before) {
  expect_same(static_cast<uint64_t>(counter.computes - computes_before), 0, "calls of Compute");
  expect_same(count_of(fake_cuda_log(), "cudaGraphLaunch"), 1, "launches of a graph");
}

void captures_in_the_first_run() {
  Counter counter;
  const Session session(one_node(), with_graphs(&counter));
  const Binding binding(session);
  const Row x(1), y(1);
  binding.run(x.value, y.value);
  expect_capture(counter, 0);
  expect_same(*y.buffer.data(), kRunsBeforeReplay, "what the graph wrote");
  *y.buffer.data() = 0;
  binding.run(x.value, y.value);
  expect_replay(counter, kRunsBeforeReplay);
  expect_same(*y.buffer.data(), kRunsBeforeReplay, "what the graph wrote again");
}

void captures_for_each_thread() {
  Counter counter;
  const Session session(one_node(), with_graphs(&counter));
  const Binding binding(session);
  const Row x(1), y(1);
  binding.run(x.value, y.value);
  void* first = counter.stream;
  std::thread([&] { binding.run(x.value, y.value); }).join();
  expect_capture(counter, kRunsBeforeReplay);
  expect(counter.stream == first, "one stream for all threads");
}

void keeps_a_graph_for_each_id() {
  Counter counter;
  const Session session(one_node(), with_graphs(&counter));
  const Binding one_row(session), two_rows(session);
  const Row x1(1), y1(1), x2(2), y2(2);
  one_row.run(x1.value, y1.value, "1");
  two_rows.run(x2.value, y2.value, "2");
  expect_capture(counter, kRunsBeforeReplay);
  one_row.run(x1.value, y1.value, "1");
  two_rows.run(x2.value, y2.value, "2");
  expect_replay(counter, 2 * kRunsBeforeReplay);
  one_row.run(x1.value, y1.value, "-1");
  expect_same(static_cast<uint64_t>(counter.computes), 2 * kRunsBeforeReplay + 1, "calls of Compute");
  expect_same(count_of(fake_cuda_log(), "Graph"), 0, "graphs of id -1");
}

void replays_blindly() {
  Counter counter;
  const Session session(one_node(), with_graphs(&counter));
  const Binding binding(session);
  const Row x1(1), y1(1), x2(2), y2(2);
  binding.run(x1.value, y1.value);
  *y2.buffer.data() = 77;
  binding.run(x2.value, y2.value);
  expect_replay(counter, kRunsBeforeReplay);
  expect_same(*y2.buffer.data(), 77, "the output of a shape that was not captured");
}

void wants_every_node() {
  Model model;
  model.input("x", kFloat, {kAnySize, kColumns}).output("y", kFloat, {kAnySize, kColumns});
  model.node({"Probe", {"x"}, {"h"}, "fdq", {}}).node({"HostProbe", {"h"}, {"y"}, "fdq", {}});
  Counter counter;
  Probe host(kCpu, {{}}, kFloat, "HostProbe");
  SessionSettings settings = with_graphs(&counter);
  settings.ops.push_back(&host);
  expect_contains(refusal(model, settings), "have not been partitioned to the CUDAExecutionProvider",
                  "a graph with a CPU node");
}

}  // namespace

std::vector<Check> graph_checks() {
  return {{"the first run with enable_cuda_graph captures on Compute's stream, the next replays",
           captures_in_the_first_run},
          {"every thread captures a graph of its own", captures_for_each_thread},
          {"gpu_graph_id names a graph, -1 none", keeps_a_graph_for_each_id},
          {"a graph is replayed whatever is bound", replays_blindly},
          {"CUDA graphs need every node on CUDA", wants_every_node}};
}

}  // namespace fdq::provider_check
