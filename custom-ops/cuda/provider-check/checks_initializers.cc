// Where the weights of a CUDA node lie when its kernel is created, and what it costs to get them there.
#include <fstream>

#include "harness.h"

namespace fdq::provider_check {
namespace {

constexpr int64_t kRows = 4096, kColumns = 256;
constexpr unsigned char kInFile = 0x11, kInHost = 0x22, kInDevice = 0x33;
constexpr const char* kFile = "weights.bin";

struct Format {
  ElementTypeId type;
  size_t bytes;
};
constexpr Format kFormats[] = {{kInt8, kRows * kColumns},         {kInt4, kRows * kColumns / 2},
                               {kFloat8E4M3FN, kRows * kColumns}, {kUint8, kRows * kColumns},
                               {kBFloat16, 2 * kRows * kColumns}, {kFloat16, 2 * kRows * kColumns},
                               {kFloat, 4 * kRows * kColumns}};

Model head() {
  Model model;
  model.input("x", kFloat, {kAnySize, 64}).output("y", kFloat, {kAnySize, 64});
  model.node({"Probe", {"x", "w"}, {"y"}, "fdq", {}});
  return model;
}

Model with_file(const Format& format) {
  std::ofstream(scratch_folder() + "/" + kFile, std::ios::binary) << std::string(format.bytes, kInFile);
  return head().external("w", format.type, {kRows, kColumns}, kFile, format.bytes);
}

struct Loaded {
  Seen created, computed;
  FakeCudaStats stats;  // of the session's creation
  std::string log;
};

Loaded load(const Model& model, InputMemory memory, OrtValue* initializer) {
  Probe probe(kCuda, {{kFloat}, {kUndefined, kRequired, memory}}, kFloat);
  SessionSettings settings{.ops = {&probe}, .entries = {{kFolderEntry, scratch_folder()}}};
  if (initializer != nullptr) settings.initializers = {{"w", initializer}};
  take_log();
  fake_cuda_reset();
  const Session session(model, settings);
  Loaded loaded{probe.constants.at(1), {}, fake_cuda_stats(), take_log()};
  session.run_row();
  loaded.computed = probe.inputs_seen.at(1);
  expect(loaded.computed.data == loaded.created.data, "one address in CreateKernel and in Compute");
  return loaded;
}

void expect_device_copy(const Loaded& loaded, const Format& format, unsigned char content) {
  expect(loaded.created.memory == kFakeDevice, "the weight on the device when the kernel is created");
  expect(loaded.created.type == format.type, "the weight's type");
  expect_same(loaded.created.first, content, "the weight's first byte");
  expect_same(loaded.stats.to_device, format.bytes, "bytes copied to the device");
}

void copies_initializers_once() {
  for (const Format& format : kFormats) {
    Model inside = head();
    inside.initializer("w", format.type, {kRows, kColumns}, std::string(format.bytes, kInHost));
    expect_device_copy(load(inside, kInputDefault, nullptr), format, kInHost);
    expect_device_copy(load(with_file(format), kInputDefault, nullptr), format, kInFile);
  }
}

void takes_device_memory_as_it_is() {
  for (const Format& format : kFormats) {
    const DeviceBuffer buffer(format.bytes);
    std::fill_n(buffer.data(), format.bytes, kInDevice);
    const Value value(format.type, {kRows, kColumns}, buffer.data(), format.bytes, true);
    const Loaded loaded = load(with_file(format), kInputDefault, value.get());
    expect(loaded.created.data == buffer.data(), "the kernel to see the caller's own memory");
    expect_same(loaded.stats.to_device, 0, "bytes copied to the device");
  }
}

void ignores_host_memory_silently() {
  const Format format = kFormats[0];
  std::string bytes(format.bytes, kInHost);
  const Value value(format.type, {kRows, kColumns}, bytes.data(), bytes.size(), false);
  const Loaded loaded = load(with_file(format), kInputDefault, value.get());
  expect_device_copy(loaded, format, kInFile);
  expect_contains(loaded.log, "Cannot use user supplied initializer", "the log");
}

void leaves_host_inputs_on_the_host() {
  const Format format = kFormats[0];
  const Loaded from_file = load(with_file(format), kInputOnHost, nullptr);
  expect(from_file.created.memory == kFakeHost, "the weight on the host");
  expect_same(from_file.stats.to_device, 0, "bytes copied to the device");
  std::string bytes(format.bytes, kInHost);
  const Value value(format.type, {kRows, kColumns}, bytes.data(), bytes.size(), false);
  expect(load(with_file(format), kInputOnHost, value.get()).created.data == bytes.data(),
         "the kernel to see the caller's own host memory");
  const DeviceBuffer buffer(format.bytes);
  const Value wrong(format.type, {kRows, kColumns}, buffer.data(), format.bytes, true);
  expect_contains(load(with_file(format), kInputOnHost, wrong.get()).log,
                  "Cannot use user supplied initializer", "the log");
}

void arena_doubles_unless_told() {
  constexpr size_t kBytes = size_t{24} << 20;
  Model model = head();
  model.initializer("w", kUint8, {static_cast<int64_t>(kBytes)}, std::string(kBytes, '\0'));
  model.initializer("v", kUint8, {static_cast<int64_t>(kBytes)}, std::string(kBytes, '\0'));
  model.node({"Probe", {"x", "v"}, {"z"}, "fdq", {}}).output("z", kFloat, {kAnySize, 64});
  const auto measure = [&](const SessionSettings& settings) {
    const uint64_t before = fake_cuda_stats().device_bytes;
    const Session session(model, settings);
    return fake_cuda_stats().device_bytes - before;
  };
  Probe probe(kCuda, {{kFloat}, {kUndefined}}, kFloat);
  expect(measure({.ops = {&probe}}) > 2 * kBytes, "an arena larger than its weights");
  const SessionSettings exact{.cuda_options = {{"arena_extend_strategy", "kSameAsRequested"}},
                              .ops = {&probe}};
  expect_same(measure(exact), 2 * kBytes, "device memory with kSameAsRequested");
}

}  // namespace

std::vector<Check> initializer_checks() {
  return {{"an initializer is on the device when its kernel is created, and was copied once",
           copies_initializers_once},
          {"AddInitializer over device memory is used as it is", takes_device_memory_as_it_is},
          {"AddInitializer over host memory is ignored for a device input, with a warning",
           ignores_host_memory_silently},
          {"an input asked for on the host stays there", leaves_host_inputs_on_the_host},
          {"the arena takes more than the weights unless told kSameAsRequested", arena_doubles_unless_told}};
}

}  // namespace fdq::provider_check
