// Reads a matrix in panels from the fields of a job
#include "addon/packed_matrix.h"

#include <string>

namespace fdq::addon {
namespace {

WeightFormat parse_quantized_format(Napi::Env env, const std::string& name) {
  if (name == "int8") return WeightFormat::kInt8;
  if (name == "int4") return WeightFormat::kInt4;
  if (name == "int2") return WeightFormat::kInt2;
  if (name == "nf4") return WeightFormat::kNF4;
  if (name == "e2m1") return WeightFormat::kE2M1;
  if (name == "e4m3") return WeightFormat::kE4M3;
  throw_type_error(env, "format must be int8, int4, int2, nf4, e2m1 or e4m3");
}

BlockScaleType parse_block_type(Napi::Env env, const std::string& name) {
  if (name == "e4m3") return BlockScaleType::kE4M3;
  if (name == "e8m0") return BlockScaleType::kE8M0;
  if (name == "bfloat16") return BlockScaleType::kBFloat16;
  throw_type_error(env, "block.type must be e4m3, e8m0 or bfloat16");
}

void check_shape(Napi::Env env, const WeightShape& shape) {
  const int64_t n = shape.member_rows[0];
  if (n < 1 || shape.k < 1 || n > (int64_t{1} << 40) / shape.k)
    throw_type_error(env, "n and k are out of range");
  const bool rows = shape.group_n >= -1 && shape.group_n <= 1 && shape.group_k >= 0;
  const bool tiles = shape.group_n == kTile && shape.group_k == kTile;
  if (!rows && !tiles) throw_type_error(env, "groupN must be -1, 0 or 1, or 128 with groupK 128");
  if (shape.group_n != 1 && !tiles && shape.group_k != 0)
    throw_type_error(env, "groupK must be 0 with this groupN");
  if (shape.block_k != 0 && (tiles || shape.group_k % shape.block_k != 0)) {
    throw_type_error(env, "blocks must divide the groups");
  }
}

}  // namespace

PackedMatrix parse_packed_matrix(const Napi::Object& object, Pins& pins) {
  const Napi::Env env = object.Env();
  PackedMatrix matrix{};
  WeightShape& shape = matrix.shape;
  shape.member_rows = {get_int(object, "n")};
  shape.k = get_int(object, "k");
  shape.format = parse_quantized_format(env, get_string(object, "format"));
  shape.group_n = get_int32(object, "groupN");
  shape.group_k = get_int32(object, "groupK");
  if (has(object, "block")) {
    const auto block = get(object, "block").As<Napi::Object>();
    shape.block_k = get_int32(block, "columns");
    shape.block_type = parse_block_type(env, get_string(block, "type"));
    if (shape.block_k < 1) throw_type_error(env, "block.columns must be positive");
  }
  check_shape(env, shape);
  const Span<uint8_t> weight = get_span<uint8_t>(object, "weight", pins);
  const Span<float> scales = get_span<float>(object, "scales", pins);
  Span<uint8_t> blocks;
  if (has(object, "blockScales")) blocks = get_span<uint8_t>(object, "blockScales", pins);
  if (weight.size != static_cast<size_t>(packed_weight_bytes(shape)) ||
      scales.size != static_cast<size_t>(packed_scale_count(shape)) ||
      blocks.size != static_cast<size_t>(packed_block_scale_bytes(shape))) {
    throw_type_error(env, "weight, scales and blockScales must have exactly the size of n, k and the format");
  }
  matrix.weight = weight.data;
  matrix.scales = scales.data;
  matrix.block_scales = blocks.data;
  return matrix;
}

}  // namespace fdq::addon
