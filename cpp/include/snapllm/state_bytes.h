// A part of a model's KV as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace snapllm {

// Memory in large pages where it is large and the system has them: new memory in small ones
// takes several times as long to fill as to copy. Throws std::bad_alloc.
void* allocate_state(size_t num_bytes);
void free_state(void* memory, size_t num_bytes) noexcept;

// Leaves new elements as they are: what is read into at once is not filled with zeros before.
template <typename T>
struct UninitializedAllocator : std::allocator<T> {
  template <typename U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  T* allocate(size_t num_elements) {
    if (num_elements > SIZE_MAX / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(allocate_state(num_elements * sizeof(T)));
  }
  void deallocate(T* elements, size_t num_elements) noexcept {
    free_state(elements, num_elements * sizeof(T));
  }
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
