// Every instruction set of this machine against a double-precision reference, and bitwise against itself: a
// token's output must not depend on the tokens beside it, on the number of threads or on the fusing of
// layers.
#include "linear_case.h"

namespace fdq::test {
namespace {

void test_shapes() {
  const std::vector<int64_t> sizes = {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 200, 257};
  Random random(1);
  for (Isa isa : isas()) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t k = sizes[i], n = sizes[(i * 7 + 5) % sizes.size()];
      for (const Case& c : all_formats({n}, k, i % 2 == 0))
        check_case(c, isa, {1, 2, 3, 5, 8, 9, 13}, random);
    }
    for (const Case& c : all_formats({33, 1, 16, 130}, 384, true)) check_case(c, isa, {1, 4, 17}, random);
    for (const Case& c : all_formats({257, 64}, 1000, false)) check_case(c, isa, {1, 7, 20}, random);
  }
}

void test_every_batch() {
  Random random(2);
  std::vector<int64_t> batches;
  for (int64_t t = 1; t <= 40; ++t) batches.push_back(t);
  for (int64_t t : {49, 50, 51, 52, 53, 64, 100, 239, 240, 241, 300, 512}) batches.push_back(t);
  for (Isa isa : isas()) {
    for (const Case& c : all_formats({80, 37}, 200, true)) check_case(c, isa, batches, random);
  }
}

// As-stored weights lie in a file at any byte.
void test_misaligned_rows() {
  Random random(3);
  for (Isa isa : isas()) {
    for (Case c : all_formats({21}, 77, false)) {
      if (c.panels()) continue;
      Weight weight = make_weight(c, random);
      std::vector<float> x(5 * 77);
      for (float& value : x) value = random.normal();
      const std::vector<float> expected = run(*make_plan(c, weight, isa), c, x.data(), 5, 1);
      for (int64_t shift = 1; shift < 4; ++shift) {
        Guarded moved(weight.data->size() + static_cast<size_t>(shift));
        std::memcpy(moved.bytes(), weight.data->bytes(), weight.data->size());
        weight.linear.data = moved.bytes();
        const std::vector<float> y = run(*make_plan(c, weight, isa), c, x.data(), 5, 1);
        CHECK(std::memcmp(y.data(), expected.data(), y.size() * 4) == 0, "%s moved by %ld",
              c.describe(isa).c_str(), static_cast<long>(shift));
      }
    }
  }
}

// A fused layer gives the bits of its members.
void test_fused_members() {
  Random random(4);
  for (Isa isa : isas()) {
    for (const Case& c : all_formats({40, 24, 16}, 160, false)) {
      if (!c.panels()) continue;
      const Weight weight = make_weight(c, random);
      std::vector<float> x(3 * 160);
      for (float& value : x) value = random.normal();
      const std::vector<float> fused = run(*make_plan(c, weight, isa), c, x.data(), 3, 2);
      Case second = c;
      second.shape.member_rows = {24};
      Weight member;
      member.linear = weight.linear;
      member.linear.shape = second.shape;
      const WeightShape& shape = c.shape;
      const int64_t groups = num_groups(160, shape.group_k);
      member.linear.data = weight.data->bytes() + 3 * panel_bytes(shape.format, 160);
      if (shape.group_n >= 0) {
        member.linear.scales += shape.group_n == 1 ? 3 * 16 * groups : shape.group_n == 0 ? 1 : groups;
      }
      if (c.zero_points) member.linear.zero_points += 3 * 16 * groups;
      if (shape.block_k != 0) {
        const int64_t blocks = num_blocks(160, shape.block_k);
        member.linear.block_scales += 3 * 16 * blocks * block_scale_bytes(shape.block_type);
      }
      const std::vector<float> y = run(*make_plan(second, member, isa), second, x.data(), 3, 1);
      for (int64_t t = 0; t < 3; ++t) {
        CHECK(std::memcmp(y.data() + t * 24, fused.data() + t * 80 + 40, 24 * 4) == 0, "%s",
              c.describe(isa).c_str());
      }
    }
  }
}

void test_isa_names() {
  for (int i = 0; i <= static_cast<int>(Isa::kAmx); ++i) {
    Isa isa;
    CHECK(parse_isa(isa_name(static_cast<Isa>(i)), &isa) && isa == static_cast<Isa>(i), "isa %d", i);
  }
  Isa isa;
  CHECK(!parse_isa("avx1024", &isa) && !parse_isa("", &isa), "unknown names are refused");
}

}  // namespace
}  // namespace fdq::test

int main() {
  fdq::test::test_isa_names();
  fdq::test::test_shapes();
  fdq::test::test_every_batch();
  fdq::test::test_misaligned_rows();
  fdq::test::test_fused_members();
  return fdq_test::finish("linear_test");
}
