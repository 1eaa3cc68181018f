// Stacks of their own, switched by hand.
#pragma once

#include <cstddef>

namespace fdq::emu {

class Fiber {
 public:
  // `entry` never returns: the last thing it does is to suspend.
  Fiber(void (*entry)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // By the owner: runs until the fiber suspends.
  void resume();
  // By the fiber.
  void suspend();

  void restart(void (*entry)(void*), void* argument);

 private:
  static void begin(Fiber* self);
  friend void begin_fiber(Fiber* self);

  void* own_stack_ = nullptr;  // the stack pointer of whichever side is suspended
  void* owner_stack_ = nullptr;
  void (*entry_)(void*);
  void* argument_;
  std::byte* memory_;
  // For AddressSanitizer.
  void* own_fake_ = nullptr;
  void* owner_fake_ = nullptr;
  const void* owner_bottom_ = nullptr;
  size_t owner_size_ = 0;
};

}  // namespace fdq::emu
