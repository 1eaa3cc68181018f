#include <cstring>

#include "fdq/ops.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace fdq {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf read_leaf(unsigned leaf, unsigned subleaf) {
  Leaf r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return Leaf();
  return r;
}

bool has_bits(unsigned value, unsigned bits) { return (value & bits) == bits; }

// XCR0: the register states the operating system saves.
uint64_t read_saved_states() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux hands out tile registers only on request; the grant holds for the process and its later threads.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

Isa probe() {
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6, kTileState = 0x60000;
  const Leaf one = read_leaf(1, 0);
  constexpr unsigned kOsxsave = 1u << 27, kAvx = 1u << 28, kFma = 1u << 12, kF16c = 1u << 29;
  if (!has_bits(one.ecx, kOsxsave | kAvx | kFma | kF16c)) return Isa::kScalar;
  const uint64_t states = read_saved_states();
  const Leaf seven = read_leaf(7, 0);
  constexpr unsigned kAvx2 = 1u << 5;
  if ((states & kYmmState) != kYmmState || !has_bits(seven.ebx, kAvx2)) return Isa::kScalar;
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // F, DQ, CD, BW, VL
  if ((states & kZmmState) != kZmmState || !has_bits(seven.ebx, kAvx512)) return Isa::kAvx2;
  constexpr unsigned kVbmi = 1u << 1, kVnni = 1u << 11, kBf16 = 1u << 5;
  if (!has_bits(seven.ecx, kVbmi | kVnni) || !has_bits(read_leaf(7, 1).eax, kBf16)) return Isa::kAvx512;
  constexpr unsigned kAmx = 1u << 22 | 1u << 24 | 1u << 25;  // BF16, TILE, INT8
  const bool tiles = has_bits(seven.edx, kAmx) && (states & kTileState) == kTileState && request_tiles();
  return tiles ? Isa::kAmx : Isa::kAvx512Bf16;
}

#else

Isa probe() { return Isa::kScalar; }

#endif

}  // namespace

Isa detect_isa() {
  static const Isa isa = probe();
  return isa;
}

bool parse_isa(const char* name, Isa* isa) {
  for (int i = 0; i <= static_cast<int>(Isa::kAmx); ++i) {
    if (std::strcmp(name, kNames[i]) != 0) continue;
    *isa = static_cast<Isa>(i);
    return true;
  }
  return false;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace fdq
