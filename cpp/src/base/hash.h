// XXH64, and 128-bit keys made of two of them.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace snapllm {

// The XXH64 hash of Y. Collet's xxHash specification. Not for secrets.
uint64_t xxh64(const void* data, size_t size, uint64_t seed = 0);

struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;
  auto operator<=>(const Hash128&) const = default;
  std::string hex() const;  // 32 lower-case digits
};

// Of 32 hexadecimal digits; nothing where the text is something else.
std::optional<Hash128> hash128_of_hex(std::string_view text);

// The key of `data` below `parent`: two XXH64 seeded with its halves.
Hash128 hash128(const void* data, size_t size, const Hash128& parent = {});

// The XXH64 hashes of longer and longer beginnings of the same bytes, in one pass over them.
class PrefixXxh64 {
 public:
  // REQUIRES: `data` outlives this
  PrefixXxh64(const void* data, uint64_t seed);
  // Of the first `size` bytes. REQUIRES: they are no fewer than in the call before
  uint64_t hash(size_t size);

 private:
  // Mixes the whole stripes of the first `size` bytes into the lanes.
  void mix_stripes(size_t size);

  const uint8_t* const data_;
  const uint64_t seed_;
  std::array<uint64_t, 4> lanes_;
  size_t num_mixed_ = 0;
};

// The same of the 128-bit keys.
class PrefixHash128 {
 public:
  // REQUIRES: `data` outlives this
  PrefixHash128(const void* data, const Hash128& parent);
  // hash128 of the first `size` bytes. REQUIRES: they are no fewer than in the call before
  Hash128 hash(size_t size);

 private:
  PrefixXxh64 high_;
  PrefixXxh64 low_;
};

}  // namespace snapllm

template <>
struct std::hash<snapllm::Hash128> {
  size_t operator()(const snapllm::Hash128& key) const noexcept { return key.low; }
};
