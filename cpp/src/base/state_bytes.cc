#include "snapllm/state_bytes.h"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace snapllm {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

namespace {

constexpr size_t kLargePage = size_t{2} << 20;

// Less gains nothing.
bool is_large(size_t num_bytes) { return num_bytes >= 2 * kLargePage; }

}  // namespace

void* allocate_state(size_t num_bytes) {
  if (!is_large(num_bytes)) return ::operator new(num_bytes);
  const size_t whole_bytes = num_bytes / kLargePage * kLargePage;
  // A multiple of the alignment, as aligned_alloc asks for; the end is never touched.
  void* memory = std::aligned_alloc(kLargePage, whole_bytes + kLargePage);
  if (memory == nullptr) throw std::bad_alloc();
  // The rest stays in small pages, or it would take up to one large page more.
  madvise(memory, whole_bytes, MADV_HUGEPAGE);
  return memory;
}

void free_state(void* memory, size_t num_bytes) noexcept {
  if (is_large(num_bytes)) {
    std::free(memory);
  } else {
    ::operator delete(memory);
  }
}

#else

void* allocate_state(size_t num_bytes) { return ::operator new(num_bytes); }

void free_state(void* memory, size_t) noexcept { ::operator delete(memory); }

#endif

}  // namespace snapllm
