// Small ONNX models, written as protobuf by hand: field numbers are those of onnx.proto.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ort/ort_api.h"

namespace fdq::provider_check {

constexpr int64_t kAnySize = -1;

struct Attribute {
  std::string name;
  enum Kind { kFloatValue = 1, kIntValue = 2, kStringValue = 3, kIntList = 7 } kind;
  float number = 0;
  std::string text;
  std::vector<int64_t> integers;
};

Attribute make_attribute(const char* name, float value);
Attribute make_attribute(const char* name, int64_t value);
Attribute make_attribute(const char* name, const char* value);
Attribute make_attribute(const char* name, std::vector<int64_t> values);

struct Node {
  std::string op;
  std::vector<std::string> inputs, outputs;
  std::string domain;
  std::vector<Attribute> attributes;
};

class Model {
 public:
  explicit Model(int opset = 21) : opset_(opset) {}
  // kAnySize is a dimension of any size.
  Model& input(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape);
  Model& output(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape);
  Model& node(const Node& node);
  Model& initializer(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape,
                     const std::string& bytes);
  // Bytes 0 to `bytes` of the file `location` in the folder the session names.
  Model& external(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape,
                  const std::string& location, size_t bytes);
  std::string serialize() const;

 private:
  int opset_;
  std::string graph_;
};

}  // namespace fdq::provider_check
