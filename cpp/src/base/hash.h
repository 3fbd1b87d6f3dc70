// XXH64, and 128-bit keys made of two of them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace snapllm {

// The XXH64 hash of Y. Collet's xxHash specification. Not for secrets.
uint64_t xxh64(const void* data, size_t size, uint64_t seed = 0);

struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const Hash128&) const = default;
  std::string hex() const;  // 32 lower-case digits
};

// The key of `data` below `parent`: two XXH64 seeded with its halves.
Hash128 hash128(const void* data, size_t size, const Hash128& parent = {});

}  // namespace snapllm

template <>
struct std::hash<snapllm::Hash128> {
  size_t operator()(const snapllm::Hash128& key) const noexcept { return key.low; }
};
