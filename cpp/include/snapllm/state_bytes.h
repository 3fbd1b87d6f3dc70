// A part of a model's KV as bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace snapllm {

// Leaves new elements as they are: what is read into at once is not filled with zeros before.
template <typename T>
struct UninitializedAllocator : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  template <typename U>
  void construct(U* place) noexcept {
    ::new (static_cast<void*>(place)) U;
  }
  template <typename U, typename... Args>
  void construct(U* place, Args&&... args) {
    ::new (static_cast<void*>(place)) U(std::forward<Args>(args)...);
  }
};

using StateBytes = std::vector<uint8_t, UninitializedAllocator<uint8_t>>;
using StatePtr = std::shared_ptr<const StateBytes>;

}  // namespace snapllm
