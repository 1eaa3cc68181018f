// Memory that a thread keeps from call to call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "fdq/formats.h"

namespace fdq {

// Grow-only, 64-byte aligned. Growing forgets the contents.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  void* bytes(int64_t count) {
    if (count > capacity_) {
      std::free(data_);
      capacity_ = 0;
      data_ = std::aligned_alloc(64, static_cast<size_t>(round_up(count, 64)));
      if (data_ == nullptr) throw std::bad_alloc();
      capacity_ = count;
    }
    return data_;
  }
  float* floats(int64_t count) {
    return static_cast<float*>(bytes(count * static_cast<int64_t>(sizeof(float))));
  }

 private:
  void* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace fdq
