#include "kernels/large_copy.h"

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace snapllm {

void copy_past_caches(uint8_t* to, const uint8_t* from, size_t size) {
#if defined(__SSE2__)
  // A small one would wait longer for its stores to be done than they take.
  constexpr size_t kSmallBytes = 4096;
  if (size < kSmallBytes) {
    std::memcpy(to, from, size);
    return;
  }
  constexpr size_t kLine = 64;
  const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
  std::memcpy(to, from, head);
  size_t at = head;
  for (; at + kLine <= size; at += kLine) {
    const auto* read = reinterpret_cast<const __m128i*>(from + at);
    auto* written = reinterpret_cast<__m128i*>(to + at);
    const __m128i first = _mm_loadu_si128(read), second = _mm_loadu_si128(read + 1);
    const __m128i third = _mm_loadu_si128(read + 2), fourth = _mm_loadu_si128(read + 3);
    _mm_stream_si128(written, first);
    _mm_stream_si128(written + 1, second);
    _mm_stream_si128(written + 2, third);
    _mm_stream_si128(written + 3, fourth);
  }
  _mm_sfence();
  std::memcpy(to + at, from + at, size - at);
#else
  std::memcpy(to, from, size);
#endif
}

}  // namespace snapllm
