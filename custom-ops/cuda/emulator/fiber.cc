#include "cuda/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers a callee must keep and the stack pointer, then takes up those of the other side.
extern "C" void fdq_switch_stack(void** save, void* load);
extern "C" void fdq_enter_fiber();

#if defined(__x86_64__)
asm(R"(
.text
.globl fdq_switch_stack
.hidden fdq_switch_stack
.type fdq_switch_stack, @function
fdq_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fdq_switch_stack, .-fdq_switch_stack
.globl fdq_enter_fiber
.hidden fdq_enter_fiber
.type fdq_enter_fiber, @function
fdq_enter_fiber:
  movq %rbx, %rdi
  callq *%rbp
  ud2
.size fdq_enter_fiber, .-fdq_enter_fiber
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl fdq_switch_stack
.hidden fdq_switch_stack
.type fdq_switch_stack, %function
fdq_switch_stack:
  stp x29, x30, [sp, #-160]!
  stp x19, x20, [sp, #16]
  stp x21, x22, [sp, #32]
  stp x23, x24, [sp, #48]
  stp x25, x26, [sp, #64]
  stp x27, x28, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #16]
  ldp x21, x22, [sp, #32]
  ldp x23, x24, [sp, #48]
  ldp x25, x26, [sp, #64]
  ldp x27, x28, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x29, x30, [sp], #160
  ret
.size fdq_switch_stack, .-fdq_switch_stack
.globl fdq_enter_fiber
.hidden fdq_enter_fiber
.type fdq_enter_fiber, %function
fdq_enter_fiber:
  mov x0, x19
  blr x20
  brk #0
.size fdq_enter_fiber, .-fdq_enter_fiber
)");
#else
#error "The emulator switches stacks on x86-64 and aarch64 only."
#endif

namespace fdq::emu {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 * 1024;  // frames are larger with redzones
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kGuardBytes = 4096;

}  // namespace

void begin_fiber(Fiber* self) { Fiber::begin(self); }

Fiber::Fiber(void (*entry)(void*), void* argument) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  mprotect(memory_, kGuardBytes, PROT_NONE);
  restart(entry, argument);
}

Fiber::~Fiber() { munmap(memory_, kGuardBytes + kStackBytes); }

void Fiber::restart(void (*entry)(void*), void* argument) {
  entry_ = entry;
  argument_ = argument;
#if defined(__SANITIZE_ADDRESS__)
  // A fiber that was given up in the middle left its redzones.
  ASAN_UNPOISON_MEMORY_REGION(memory_ + kGuardBytes, kStackBytes);
  own_fake_ = nullptr;
#endif
  auto* top = reinterpret_cast<uintptr_t*>(memory_ + kGuardBytes + kStackBytes);
  const auto function = reinterpret_cast<uintptr_t>(&begin_fiber);
  const auto self = reinterpret_cast<uintptr_t>(this);
  const auto enter = reinterpret_cast<uintptr_t>(&fdq_enter_fiber);
#if defined(__x86_64__)
  // r15 r14 r13 r12 rbx rbp and the return address.
  uintptr_t* frame = top - 7;
  const uintptr_t values[7] = {0, 0, 0, 0, self, function, enter};
  for (int i = 0; i < 7; ++i) frame[i] = values[i];
#else
  uintptr_t* frame = top - 20;
  for (int i = 0; i < 20; ++i) frame[i] = 0;
  frame[1] = enter;
  frame[2] = self;
  frame[3] = function;
#endif
  own_stack_ = frame;
}

void Fiber::begin(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self->owner_bottom_, &self->owner_size_);
#endif
  self->entry_(self->argument_);
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&owner_fake_, memory_ + kGuardBytes, kStackBytes);
#endif
  fdq_switch_stack(&owner_stack_, own_stack_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(owner_fake_, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&own_fake_, owner_bottom_, owner_size_);
#endif
  fdq_switch_stack(&own_stack_, owner_stack_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_fake_, &owner_bottom_, &owner_size_);
#endif
}

}  // namespace fdq::emu
