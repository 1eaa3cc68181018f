// Matrix products: mma.sync at once; wgmma at its issue or at its wait, its accumulators unreadable in
// between.
#include <algorithm>
#include <cstring>

#include "cpu/number_formats.h"
#include "cuda/emulator/machine.h"

namespace fdq::emu {
namespace {

constexpr int kRows = 16;  // of a warp
constexpr int64_t kStepBytes = 32;
constexpr unsigned kEarly = 128;  // chance of 256 that a product reads its operands where it is issued

struct MmaRecord {
  void* d;
  const uint32_t* a;
  const uint32_t* b;
};

// Byte `byte` of the row's 32, of an A operand held by the lanes: element positions of mma.cuh.
unsigned char a_byte(const uint32_t* const* a, int row, int64_t byte) {
  const int64_t within = byte % 16;
  const uint32_t* registers = a[row % 8 * 4 + within / 4];
  const uint32_t word = registers[row / 8 + 2 * (byte / 16)];
  return static_cast<unsigned char>(word >> 8 * (within % 4));
}
unsigned char b_byte(const uint32_t* const* b, int column, int64_t byte) {
  const int64_t within = byte % 16;
  return static_cast<unsigned char>(b[column * 4 + within / 4][byte / 16] >> 8 * (within % 4));
}

// Calls add(lane, register, row, column) for every element of a warp's accumulator of n columns.
template <typename Add>
void visit_accumulator(int n, const Add& add) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < n / 2; ++i) {
      add(lane, i, lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
    }
  }
}

struct Operands {
  unsigned char a[kRows][kStepBytes];
  unsigned char b[8][kStepBytes];
};

Operands gather(void* const* records) {
  const uint32_t* a[32];
  const uint32_t* b[32];
  for (int lane = 0; lane < 32; ++lane) {
    a[lane] = static_cast<const MmaRecord*>(records[lane])->a;
    b[lane] = static_cast<const MmaRecord*>(records[lane])->b;
  }
  Operands operands;
  for (int64_t byte = 0; byte < kStepBytes; ++byte) {
    for (int row = 0; row < kRows; ++row) operands.a[row][byte] = a_byte(a, row, byte);
    for (int column = 0; column < 8; ++column) operands.b[column][byte] = b_byte(b, column, byte);
  }
  return operands;
}

// ---------------------------------------------------------------------------------------------------------

struct Descriptor {
  int64_t start, stride, swizzle;
};

Descriptor decode_operand(uint64_t operand) {
  const auto field = [&](int bit) { return static_cast<int64_t>(operand >> bit & 0x3fff) * 16; };
  const int mode = static_cast<int>(operand >> 62);
  if (mode == 0) fault("wgmma operands without swizzle are not emulated");
  if ((operand >> 49 & 7) != 0)
    fault("a wgmma operand with a base offset; atoms must start at their alignment");
  const int64_t swizzle = mode == 1 ? 128 : mode == 2 ? 64 : 32;
  const Descriptor d{field(0), field(32), swizzle};
  if (d.start % (8 * swizzle) >= swizzle) {
    fault("a wgmma operand starts at offset %lld, inside an atom of %lld bytes",
          static_cast<long long>(d.start), static_cast<long long>(8 * swizzle));
  }
  if (d.start % swizzle + kStepBytes > swizzle) {
    fault("a wgmma operand at offset %lld goes beyond the %lld bytes of its swizzle",
          static_cast<long long>(d.start), static_cast<long long>(swizzle));
  }
  return d;
}

// The 32 bytes of each row, from row `first` on.
std::vector<unsigned char> read_operand(const Block& block, uint64_t operand, int first, int rows) {
  const Descriptor d = decode_operand(operand);
  std::vector<unsigned char> bytes(static_cast<size_t>(rows) * kStepBytes);
  const int64_t mask = d.swizzle / 16 - 1;
  for (int r = 0; r < rows; ++r) {
    const int64_t row = first + r;
    for (int64_t byte = 0; byte < kStepBytes; byte += 16) {
      const int64_t address = d.start + row / 8 * d.stride + row % 8 * d.swizzle + byte;
      const int64_t at = address ^ ((address >> 7 & mask) << 4);
      if (at + 16 > block.shared_bytes)
        fault("wgmma reads shared memory at offset %lld", static_cast<long long>(at));
      std::memcpy(&bytes[static_cast<size_t>(r * kStepBytes + byte)], settled(block, "wgmma", at, 16), 16);
    }
  }
  return bytes;
}

std::vector<float> values_of(MmaKind kind, const std::vector<unsigned char>& bytes) {
  const int64_t width = element_bytes(kind);
  std::vector<float> values(bytes.size() / static_cast<size_t>(width));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = element_value(kind, &bytes[i * static_cast<size_t>(width)]);
  return values;
}

void run_product(Warp& warp, Product& product) {
  product.is_done = true;
  const int first = warp.index % 4 * kRows;
  std::vector<unsigned char> a_bytes(kRows * kStepBytes);
  if (product.has_registers) {
    const uint32_t* a[32];
    for (int lane = 0; lane < 32; ++lane) a[lane] = product.a[lane];
    for (int row = 0; row < kRows; ++row) {
      for (int64_t byte = 0; byte < kStepBytes; ++byte) {
        a_bytes[static_cast<size_t>(row * kStepBytes + byte)] = a_byte(a, row, byte);
      }
    }
  } else {
    a_bytes = read_operand(*warp.block, product.a_operand, first, kRows);
  }
  const std::vector<float> a = values_of(product.kind, a_bytes);
  const std::vector<float> b =
      values_of(product.kind, read_operand(*warp.block, product.b_operand, 0, product.n));
  const int k = static_cast<int>(kStepBytes) / element_bytes(product.kind);
  float* values = warp.accumulators.at(product.d).values.data();
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < product.n; ++column) {
      double sum = 0;
      for (int i = 0; i < k; ++i) {
        sum +=
            static_cast<double>(a[static_cast<size_t>(row * k + i)]) * b[static_cast<size_t>(column * k + i)];
      }
      float& value = values[row * product.n + column];
      value = static_cast<float>((product.accumulate ? static_cast<double>(value) : 0.0) + sum);
    }
  }
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
constexpr uint32_t kUnderWay = 0x7f801234u;  // a signaling NaN: arithmetic on it gives other bits

float under_way() {
  float value;
  std::memcpy(&value, &kUnderWay, sizeof value);
  return value;
}

// Takes the accumulator out of the lanes' hands, unless it is already.
void take_accumulator(Warp& warp, float* const* d, int n) {
  const auto found = warp.accumulators.find(d[0]);
  if (found != warp.accumulators.end()) {
    if (found->second.n != n) fault("an accumulator under way is used with another shape");
    return;
  }
  Accumulator& taken = warp.accumulators[d[0]];
  taken.n = n;
  std::copy(d, d + 32, taken.d);
  taken.values.resize(static_cast<size_t>(kRows * n));
  visit_accumulator(n, [&](int lane, int i, int row, int column) {
    taken.values[static_cast<size_t>(row * n + column)] = d[lane][i];
    d[lane][i] = under_way();
  });
}

void give_accumulator(Warp& warp, float* key) {
  const Accumulator& taken = warp.accumulators.at(key);
  visit_accumulator(taken.n, [&](int lane, int i, int row, int column) {
    if (bits_of(taken.d[lane][i]) != kUnderWay) {
      fault("an accumulator was written before wgmma_wait (lane %d, register %d)", lane, i);
    }
    taken.d[lane][i] = taken.values[static_cast<size_t>(row * taken.n + column)];
  });
  warp.accumulators.erase(key);
}

struct WgmmaRecord {
  float* d;
  const uint32_t* a;
  uint64_t a_operand, b_operand;
  bool accumulate;
};

void issue(Warp& warp, MmaKind kind, int n, void* const* records) {
  const auto at = [&](int lane) -> const WgmmaRecord& {
    return *static_cast<const WgmmaRecord*>(records[lane]);
  };
  Product product{};
  product.kind = kind;
  product.n = n;
  product.d = at(0).d;
  product.has_registers = at(0).a != nullptr;
  product.accumulate = at(0).accumulate;
  product.a_operand = at(0).a_operand;
  product.b_operand = at(0).b_operand;
  float* d[32];
  for (int lane = 0; lane < 32; ++lane) {
    if (at(lane).a_operand != product.a_operand || at(lane).b_operand != product.b_operand ||
        at(lane).accumulate != product.accumulate) {
      fault("lanes of warp %d issue different products", warp.index);
    }
    d[lane] = at(lane).d;
    if (product.has_registers) std::memcpy(product.a[lane], at(lane).a, sizeof product.a[lane]);
  }
  take_accumulator(warp, d, n);
  // Products of one accumulator are in order: this one can run early only if those before it have.
  const bool is_first = std::all_of(warp.products.begin(), warp.products.end(), [&](const auto& group) {
    return std::all_of(group.begin(), group.end(),
                       [&](const Product& p) { return p.is_done || p.d != product.d; });
  });
  warp.products.back().push_back(product);
  if (is_first && machine().draw.chance(kEarly)) run_product(warp, warp.products.back().back());
  const uint64_t operands = product.b_operand * 31 + product.a_operand;
  warp.issued.push_back((operands * 31 + static_cast<uint64_t>(n)) * 31 + static_cast<uint64_t>(kind));
}

}  // namespace

float element_value(MmaKind kind, const unsigned char* at) {
  if (kind == MmaKind::kE4M3) return e4m3_to_float(*at);
  const auto bits = static_cast<uint16_t>(at[0] | at[1] << 8);
  return kind == MmaKind::kBFloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}

void mma(MmaKind kind, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaRecord record{d, a, b};
  collective("mma", &record, [kind](void* const* records) {
    const Operands operands = gather(records);
    const int width = element_bytes(kind);
    visit_accumulator(8, [&](int lane, int i, int row, int column) {
      double sum = 0;
      for (int64_t byte = 0; byte < kStepBytes; byte += width) {
        sum += static_cast<double>(element_value(kind, &operands.a[row][byte])) *
               element_value(kind, &operands.b[column][byte]);
      }
      float& value = static_cast<float*>(static_cast<const MmaRecord*>(records[lane])->d)[i];
      value = static_cast<float>(static_cast<double>(value) + sum);
    });
  });
}

void mma_int8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaRecord record{d, a, b};
  collective("mma_int8", &record, [](void* const* records) {
    const Operands operands = gather(records);
    visit_accumulator(8, [&](int lane, int i, int row, int column) {
      int32_t sum = 0;
      for (int64_t byte = 0; byte < kStepBytes; ++byte) {
        sum += static_cast<int8_t>(operands.a[row][byte]) * static_cast<int8_t>(operands.b[column][byte]);
      }
      static_cast<int32_t*>(static_cast<const MmaRecord*>(records[lane])->d)[i] += sum;
    });
  });
}

void wgmma_fence() {
  collective("wgmma_fence", nullptr, [](void* const*) { self().warp->is_fenced = true; });
}

void wgmma(MmaKind kind, int n, float* d, const uint32_t* a, uint64_t a_operand, uint64_t b_operand,
           bool accumulate) {
  Warp& warp = *self().warp;
  if (self().block->warps.size() < 4 * (static_cast<size_t>(warp.index) / 4 + 1)) {
    fault("wgmma in a block without a whole warpgroup");
  }
  WgmmaRecord record{d, a, a_operand, b_operand, accumulate};
  collective("wgmma", &record, [&](void* const* records) {
    if (!warp.is_fenced) fault("wgmma without wgmma_fence since the last wgmma_wait");
    issue(warp, kind, n, records);
  });
}

void wgmma_commit() {
  collective("wgmma_commit", nullptr, [](void* const*) { self().warp->products.emplace_back(); });
}

void wgmma_wait(int pending) {
  collective("wgmma_wait", nullptr, [pending](void* const*) {
    Warp& warp = *self().warp;
    auto& groups = warp.products;
    std::vector<float*> ended;
    while (static_cast<int>(groups.size()) - 1 > pending) {
      for (Product& product : groups.front()) {
        if (!product.is_done) run_product(warp, product);
        ended.push_back(product.d);
      }
      groups.erase(groups.begin());
    }
    for (float* key : ended) {
      const bool is_used = std::any_of(groups.begin(), groups.end(), [&](const auto& group) {
        return std::any_of(group.begin(), group.end(), [&](const Product& p) { return p.d == key; });
      });
      if (!is_used && warp.accumulators.count(key) != 0) give_accumulator(warp, key);
    }
    warp.is_fenced = false;
  });
}

void check_products_ended(const Block& block) {
  for (const auto& warp : block.warps) {
    for (const auto& group : warp->products) {
      if (!group.empty()) fault("warp %d ended without waiting for its products", warp->index);
    }
    const auto& leader = block.warps[static_cast<size_t>(warp->index) / 4 * 4];
    if (warp->issued != leader->issued) {
      fault("warps %d and %d of a warpgroup issued different products", leader->index, warp->index);
    }
  }
}

}  // namespace fdq::emu
