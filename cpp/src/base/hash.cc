#include "base/hash.h"

#include <array>
#include <bit>
#include <charconv>
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

}  // namespace

PrefixXxh64::PrefixXxh64(const void* data, uint64_t seed)
    : data_(static_cast<const uint8_t*>(data)),
      seed_(seed),
      lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1} {}

uint64_t PrefixXxh64::hash(size_t size) {
  mix_stripes(size);
  uint64_t hash = seed_ + kPrime5;
  if (size >= kStripe) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) +
           std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = merge(hash, lane);
  }
  hash += size;
  const uint8_t* p = data_ + num_mixed_;
  const uint8_t* end = data_ + size;
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

void PrefixXxh64::mix_stripes(size_t size) {
  auto lanes = lanes_;  // in registers: the bytes could alias the member
  for (; size - num_mixed_ >= kStripe; num_mixed_ += kStripe) {
    const uint8_t* p = data_ + num_mixed_;
    for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = mix_lane(lanes[i], load<uint64_t>(p + 8 * i));
  }
  lanes_ = lanes;
}

uint64_t xxh64(const void* data, size_t size, uint64_t seed) {
  return PrefixXxh64(data, seed).hash(size);
}

PrefixHash128::PrefixHash128(const void* data, const Hash128& parent)
    : high_(data, parent.high), low_(data, parent.low ^ kPrime5) {}

Hash128 PrefixHash128::hash(size_t size) { return {high_.hash(size), low_.hash(size)}; }

std::string Hash128::hex() const {
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return text.data();
}

std::optional<Hash128> hash128_of_hex(std::string_view text) {
  Hash128 hash;
  const char* middle = text.data() + 16;
  const bool is_hash = text.size() == 32 &&
                       std::from_chars(text.data(), middle, hash.high, 16).ptr == middle &&
                       std::from_chars(middle, middle + 16, hash.low, 16).ptr == middle + 16;
  return is_hash ? std::optional(hash) : std::nullopt;
}

Hash128 hash128(const void* data, size_t size, const Hash128& parent) {
  return PrefixHash128(data, parent).hash(size);
}

}  // namespace snapllm
