// What the emulator keeps while a grid runs. One machine at a time, one host thread.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/emulator.h"
#include "cuda/emulator/fiber.h"

namespace fdq::emu {

struct Block;
struct Warp;
struct Thread;

// Threads that wait for the same thing.
struct WaitList {
  std::vector<Thread*> threads;
};

// A copy that a thread started and that was not yet seen to end.
struct Copy {
  Block* target = nullptr;  // whose shared memory is written, or read by a store
  int64_t offset = 0, bytes = 0;
  bool writes_shared = true;
  std::function<void()> run;
  bool is_done = false;
};

// Copies of one thread in the groups it committed; the last group is open.
struct CopyGroups {
  std::vector<std::vector<std::shared_ptr<Copy>>> groups{1};
};

struct Thread {
  Block* block = nullptr;
  Warp* warp = nullptr;
  int index = 0, lane = 0;
  dim3 position;
  std::unique_ptr<Fiber> fiber;
  bool has_started = false, has_ended = false;
  std::string (*describe)(const Thread&) = nullptr;  // of what it waits for
  const char* what = "";
  const void* object = nullptr;
  uint32_t detail = 0;
  CopyGroups loads, stores;
};

// A product under way. Lanes' accumulators are looked up in Warp::accumulators.
struct Product {
  MmaKind kind;
  int n;
  float* d;  // of lane 0; identifies the accumulator
  bool has_registers, accumulate, is_done;
  uint64_t a_operand, b_operand;
  uint32_t a[32][4];
};
struct Accumulator {
  int n;
  float* d[32];
  std::vector<float> values;  // [16][n]
};

struct Warp {
  Block* block = nullptr;
  int index = 0;
  std::vector<Thread*> ready;
  bool is_listed = false;  // among the warps with ready threads
  // The collective that is being gathered.
  const char* name = nullptr;
  int arrived = 0;
  void* records[32] = {};
  WaitList waiting;
  // wgmma
  bool is_fenced = false;
  std::map<float*, Accumulator> accumulators;
  std::vector<std::vector<Product>> products{1};  // groups; the last one is open
  std::vector<uint64_t> issued;                   // one digest a product, compared across the warpgroup
  int registers = 0;                              // by setmaxnreg, or 0
};

struct NamedBarrier {
  int threads = 0, arrived = 0;
  uint64_t phase = 0;
  WaitList waiting;
};

struct PhaseBarrier {
  int64_t offset = 0;
  uint32_t count = 0;
  int64_t missing = 0, bytes = 0;
  uint64_t phase = 0;
  bool is_fenced = false;
  const Thread* owner = nullptr;
  WaitList waiting;
};

struct Cluster {
  std::vector<Block*> blocks;
  int arrived = 0, threads = 0;
  WaitList waiting;
};

struct Block {
  dim3 position;
  uint32_t rank = 0;
  Cluster* cluster = nullptr;
  unsigned char* shared = nullptr;     // as threads see it
  std::vector<unsigned char> settled;  // as TMA and wgmma see it
  int64_t shared_bytes = 0;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<std::unique_ptr<Thread>> threads;
  NamedBarrier barriers[16];
  std::map<int64_t, PhaseBarrier> phases;
  int running = 0;
};

// xorshift64*
class Draw {
 public:
  explicit Draw(uint64_t seed = 1) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t below(uint64_t n);
  bool chance(unsigned of_256) { return below(256) < of_256; }

 private:
  uint64_t state_;
};

struct Machine {
  Grid grid{};
  const std::function<void()>* kernel = nullptr;
  std::vector<std::unique_ptr<Cluster>> clusters;
  std::vector<std::unique_ptr<Block>> blocks;  // resident
  std::vector<Warp*> ready;                    // warps with ready threads
  Warp* current_warp = nullptr;
  Thread* current = nullptr;
  std::vector<std::shared_ptr<Copy>> copies;  // under way
  std::vector<std::unique_ptr<Thread>> spare;
  unsigned stay = 0, eager = 0;  // chances of 256 to stay with a warp, to finish a copy at a step
  uint64_t idle_steps = 0;       // polls without anything else happening
  std::string fault;
  bool is_given_up = false;
  Draw draw;
};

Machine& machine();
inline Thread& self() { return *machine().current; }

[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Suspends the running thread until wake(); `describe` says what for.
void wait_on(WaitList& list, const char* what, const void* object, uint32_t detail,
             std::string (*describe)(const Thread&));
void wake(WaitList& list);
// Lets others run; faults when nothing but polling happens.
void poll(const char* what, const void* object, uint32_t detail, std::string (*describe)(const Thread&));

// All 32 lanes of the warp with one record each; the last one to come acts for all.
void collective(const char* name, void* record, const std::function<void(void* const*)>& action);

// The offset of `bytes` at `pointer` in the block's shared memory; faults where they are not in it.
int64_t shared_offset(const Block& block, const char* what, const void* pointer, int64_t bytes);
// Faults when a copy that writes there, or for writers one that reads there, is under way.
void check_settled(const Block& block, const char* what, int64_t offset, int64_t bytes, bool will_write);
// Bytes of shared memory as TMA and wgmma see them; faults where plain stores were not fenced.
const unsigned char* settled(const Block& block, const char* what, int64_t offset, int64_t bytes);

void start_copy(const std::shared_ptr<Copy>& copy);
void finish_copy(const std::shared_ptr<Copy>& copy);
PhaseBarrier& phase_barrier(Block& block, const char* what, const void* barrier);
void complete_bytes(Block& block, int64_t barrier_offset, int64_t bytes);
// Faults when something of the block, which has ended, is under way.
void check_products_ended(const Block& block);
void check_registers(const Block& block);
void check_copies_ended(const Block& block);

float element_value(MmaKind kind, const unsigned char* at);
constexpr int element_bytes(MmaKind kind) { return kind == MmaKind::kE4M3 ? 1 : 2; }

}  // namespace fdq::emu
