#include "model.h"

#include <cstring>

namespace fdq::provider_check {
namespace {

void append_varint(std::string& out, uint64_t value) {
  for (; value > 127; value >>= 7) out += static_cast<char>((value & 127) | 128);
  out += static_cast<char>(value);
}

void append_integer(std::string& out, int field, int64_t value) {
  append_varint(out, static_cast<uint64_t>(field) << 3);
  append_varint(out, static_cast<uint64_t>(value));
}

void append_bytes(std::string& out, int field, const std::string& bytes) {
  append_varint(out, (static_cast<uint64_t>(field) << 3) | 2);
  append_varint(out, bytes.size());
  out += bytes;
}

void append_float(std::string& out, int field, float value) {
  append_varint(out, (static_cast<uint64_t>(field) << 3) | 5);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

std::string value_info(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape) {
  std::string dimensions;
  for (const int64_t size : shape) {
    std::string dimension;
    if (size == kAnySize) {
      append_bytes(dimension, 2, "n");
    } else {
      append_integer(dimension, 1, size);
    }
    append_bytes(dimensions, 1, dimension);
  }
  std::string tensor, kind, info;
  append_integer(tensor, 1, type);
  append_bytes(tensor, 2, dimensions);
  append_bytes(kind, 1, tensor);
  append_bytes(info, 1, name);
  append_bytes(info, 2, kind);
  return info;
}

std::string tensor_head(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape) {
  std::string tensor;
  for (const int64_t size : shape) append_integer(tensor, 1, size);
  append_integer(tensor, 2, type);
  append_bytes(tensor, 8, name);
  return tensor;
}

std::string serialize_attribute(const Attribute& attribute) {
  std::string out;
  append_bytes(out, 1, attribute.name);
  switch (attribute.kind) {
    case Attribute::kFloatValue:
      append_float(out, 2, attribute.number);
      break;
    case Attribute::kIntValue:
      append_integer(out, 3, attribute.integers.at(0));
      break;
    case Attribute::kStringValue:
      append_bytes(out, 4, attribute.text);
      break;
    case Attribute::kIntList:
      for (const int64_t value : attribute.integers) append_integer(out, 8, value);
      break;
  }
  append_integer(out, 20, attribute.kind);
  return out;
}

std::string operator_set(const char* domain, int version) {
  std::string out;
  append_bytes(out, 1, domain);
  append_integer(out, 2, version);
  return out;
}

}  // namespace

Attribute make_attribute(const char* name, float value) {
  return {name, Attribute::kFloatValue, value, {}, {}};
}
Attribute make_attribute(const char* name, int64_t value) {
  return {name, Attribute::kIntValue, 0, {}, {value}};
}
Attribute make_attribute(const char* name, const char* value) {
  return {name, Attribute::kStringValue, 0, value, {}};
}
Attribute make_attribute(const char* name, std::vector<int64_t> values) {
  return {name, Attribute::kIntList, 0, {}, std::move(values)};
}

Model& Model::input(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape) {
  append_bytes(graph_, 11, value_info(name, type, shape));
  return *this;
}

Model& Model::output(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape) {
  append_bytes(graph_, 12, value_info(name, type, shape));
  return *this;
}

Model& Model::node(const Node& node) {
  std::string out;
  for (const std::string& name : node.inputs) append_bytes(out, 1, name);
  for (const std::string& name : node.outputs) append_bytes(out, 2, name);
  append_bytes(out, 4, node.op);
  for (const Attribute& attribute : node.attributes) append_bytes(out, 5, serialize_attribute(attribute));
  append_bytes(out, 7, node.domain);
  append_bytes(graph_, 1, out);
  return *this;
}

Model& Model::initializer(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape,
                          const std::string& bytes) {
  std::string tensor = tensor_head(name, type, shape);
  append_bytes(tensor, 9, bytes);
  append_bytes(graph_, 5, tensor);
  return *this;
}

Model& Model::external(const std::string& name, ort::ElementTypeId type, const std::vector<int64_t>& shape,
                       const std::string& location, size_t bytes) {
  std::string tensor = tensor_head(name, type, shape);
  const std::pair<const char*, std::string> entries[] = {
      {"location", location}, {"offset", "0"}, {"length", std::to_string(bytes)}};
  for (const auto& [key, value] : entries) {
    std::string entry;
    append_bytes(entry, 1, key);
    append_bytes(entry, 2, value);
    append_bytes(tensor, 13, entry);
  }
  append_integer(tensor, 14, 1);
  append_bytes(graph_, 5, tensor);
  return *this;
}

std::string Model::serialize() const {
  constexpr int kIrVersion = 10;
  std::string graph = graph_, model;
  append_bytes(graph, 2, "check");
  append_integer(model, 1, kIrVersion);
  append_bytes(model, 7, graph);
  append_bytes(model, 8, operator_set("", opset_));
  append_bytes(model, 8, operator_set("fdq", 1));
  append_bytes(model, 8, operator_set("com.microsoft", 1));
  return model;
}

}  // namespace fdq::provider_check
