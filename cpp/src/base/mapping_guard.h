// Memory mapped from a file, when the file loses what is mapped.
#pragma once

#include <cstddef>

namespace snapllm {

// As long as it lives, a page of the range that the kernel has nothing left to give for, since the
// file was cut short or cannot be read, ends the process no more (SIGBUS): from that page to the
// range's end there are zeros then. SIGBUS elsewhere goes to who handled it before.
class MappingGuard {
 public:
  // REQUIRES: the range is mapped for reading alone, and stays so for as long as the guard lives
  MappingGuard(const void* begin, size_t size);
  ~MappingGuard();
  MappingGuard(MappingGuard&& other) noexcept;
  MappingGuard& operator=(MappingGuard&&) = delete;

  // Whether something was read that is not of the file.
  bool was_hit() const;

 private:
  size_t slot_;
};

}  // namespace snapllm
