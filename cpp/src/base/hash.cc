#include "base/hash.h"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

namespace snapllm {
namespace {

static_assert(std::endian::native == std::endian::little, "stored files are little-endian");

// The five primes of the specification.
constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F,
                   kPrime3 = 0x165667B19E3779F9, kPrime4 = 0x85EBCA77C2B2AE63,
                   kPrime5 = 0x27D4EB2F165667C5;
constexpr size_t kStripe = 32;

template <typename T>
uint64_t load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

uint64_t mix_lane(uint64_t accumulator, uint64_t lane) {
  return std::rotl(accumulator + lane * kPrime2, 31) * kPrime1;
}

uint64_t merge(uint64_t hash, uint64_t accumulator) {
  return (hash ^ mix_lane(0, accumulator)) * kPrime1 + kPrime4;
}

uint64_t mix_stripes(const uint8_t*& p, const uint8_t* end, uint64_t seed) {
  std::array<uint64_t, 4> lanes = {seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1};
  for (; end - p >= static_cast<ptrdiff_t>(kStripe); p += kStripe) {
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = mix_lane(lanes[i], load<uint64_t>(p + 8 * i));
  }
  uint64_t hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
                  std::rotl(lanes[3], 18);
  for (const uint64_t lane : lanes) hash = merge(hash, lane);
  return hash;
}

}  // namespace

uint64_t xxh64(const void* data, size_t size, uint64_t seed) {
  const auto* p = static_cast<const uint8_t*>(data);
  const uint8_t* end = p + size;
  uint64_t hash = size >= kStripe ? mix_stripes(p, end, seed) : seed + kPrime5;
  hash += size;
  for (; end - p >= 8; p += 8) {
    hash = std::rotl(hash ^ mix_lane(0, load<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  for (; end - p >= 4; p += 4) {
    hash = std::rotl(hash ^ (load<uint32_t>(p) * kPrime1), 23) * kPrime2 + kPrime3;
  }
  for (; p < end; ++p) hash = std::rotl(hash ^ (*p * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

std::string Hash128::hex() const {
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text.data();
}

Hash128 hash128(const void* data, size_t size, const Hash128& parent) {
  return {xxh64(data, size, parent.high), xxh64(data, size, parent.low ^ kPrime5)};
}

}  // namespace snapllm
