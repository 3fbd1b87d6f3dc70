// K-quants in vectors of 256 bits.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/kquant_product.h"

namespace snapllm {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  // Eight vectors of 32 numbers of a byte each make a block.
  static constexpr int kParts = kKQuantBlockSize / 32;
  static constexpr bool kIsSigned = false;
  using Activations = ActivationBlock;
  using Floats = __m256;
  typedef int32_t Ints __attribute__((vector_size(32)));
  typedef uint16_t Halves __attribute__((vector_size(16)));

  // One block of weights, as numbers without sign unless the format is signed, and the scales of
  // what each two of a part give.
  struct Unpacked {
    __m256i numbers[kParts];
    __m256i scales[kParts];
    __m256i factors;  // of the activations' 16 sums
  };

  static Floats to_floats(Halves halves) {
    return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves));
  }
  static Floats broadcast(float x) { return _mm256_set1_ps(x); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats add_product(Floats sum, Floats a, Floats b) { return _mm256_fmadd_ps(a, b, sum); }
  static Floats subtract_product(Floats from, Floats a, Floats b) {
    return _mm256_fnmadd_ps(a, b, from);
  }
  // Lane i is the sum over the lanes of sums[i], exact in any order.
  static Floats add_up(const Ints* sums) {
    const auto at = [&](int i) { return reinterpret_cast<__m256i>(sums[i]); };
    const auto add_fours = [&](int i) {
      const auto add_pairs = [](__m256i a, __m256i b) {
        return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
      };
      const __m256i a = add_pairs(at(i), at(i + 1));
      const __m256i b = add_pairs(at(i + 2), at(i + 3));
      return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    };
    const __m256i lower = add_fours(0);
    const __m256i upper = add_fours(4);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_permute2x128_si256(lower, upper, 0x20),
                                               _mm256_permute2x128_si256(lower, upper, 0x31)));
  }

  static __m256i load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static __m128i load_16(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  }

  // The sums of two products each: two of numbers of at most 127 fit into 16 bits.
  static __m256i signed_pairs(__m256i a, __m256i b) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
  }

  // Exact sums, whose lanes are still to be added up.
  template <typename Format>
  static void multiply_block(const Unpacked& weight, const ActivationBlock& x, Ints& product,
                             Ints& minimum) {
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < kParts; ++i) {
      const __m256i w = weight.numbers[i];
      const __m256i y = load(x.numbers + 32 * i);
      // Two products of numbers of at most 63 fit into 16 bits.
      const __m256i pairs = Format::kIsSigned ? signed_pairs(w, y) : _mm256_maddubs_epi16(w, y);
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, weight.scales[i]));
    }
    if constexpr (Format::kIsSigned) {
      product = reinterpret_cast<Ints>(sum);
    } else {
      const __m256i taken = _mm256_madd_epi16(load(x.sums), weight.factors);
      if constexpr (Format::kHasMinimum) {
        product = reinterpret_cast<Ints>(sum);
        minimum = reinterpret_cast<Ints>(taken);
      } else {
        product = reinterpret_cast<Ints>(_mm256_sub_epi32(sum, taken));
      }
    }
  }

  // Bits [from, from + num) of each byte.
  static __m256i bits_of(__m256i bytes, int from, int num) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, from),
                            _mm256_set1_epi8(static_cast<char>((1 << num) - 1)));
  }

  // The same with the lowest of them at bit `to`.
  static __m256i bits_at(__m256i bytes, int from, int num, int to) {
    return _mm256_slli_epi16(bits_of(bytes, from, num), to);
  }

  // A scale of 16 bits for each part.
  static void scale_parts(__m128i scales, Unpacked& block) {
    put_scales(_mm256_broadcastsi128_si256(scales), block);
  }

  // A scale of 8 bits for each half of a part.
  static void scale_halves(__m128i scales, Unpacked& block) {
    const __m128i order = _mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
    put_scales(_mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, order)), block);
  }

  // Of IQ4_XS and IQ4_NL: the numbers that the lower halves of 16 bytes name, then those of the
  // upper ones.
  static __m256i look_up(const uint8_t* indices) {
    // ggml's kvalues_iq4nl.
    const __m128i values =
        _mm_set_epi8(113, 89, 69, 53, 38, 25, 13, 1, -10, -22, -35, -49, -65, -83, -104, -127);
    const __m128i bytes = load_16(indices);
    const __m256i each = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes),
                                          _mm256_set1_epi8(0x0f));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), each);
  }

  // Of Q4_K and Q5_K.
  static void unpack_scales(const uint8_t* packed, Unpacked& block) {
    const auto [scales, minima] = split_scales(packed);
    scale_parts(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<int64_t>(scales))), block);
    const __m128i m = _mm_cvtsi64_si128(static_cast<int64_t>(minima));
    block.factors = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m));
  }

 private:
  // Scale i of each half of `scales` to all of that half of part i.
  static void put_scales(__m256i scales, Unpacked& block) {
    for (int i = 0; i < kParts; ++i) {
      const auto order = static_cast<int16_t>(0x0100 + 0x0202 * i);
      block.scales[i] = _mm256_shuffle_epi8(scales, _mm256_set1_epi16(order));
    }
  }
};

// Each format: how a block lies in memory, and what is taken off its exact product.
struct Q2KAvx2 : Avx2 {
  static constexpr bool kHasMinimum = true;
  uint8_t scales[16];  // in the lower half of a byte, the minimum in the upper one
  uint8_t low[64];
  uint16_t scale;
  uint16_t minimum_scale;

  void unpack(Unpacked& block) const {
    const __m128i bytes = load_16(scales);
    const __m128i nibble = _mm_set1_epi8(0x0f);
    scale_halves(_mm_and_si128(bytes, nibble), block);
    block.factors = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
    for (int i = 0; i < kParts; ++i) {
      block.numbers[i] = bits_of(load(low + 32 * (i / 4)), 2 * (i % 4), 2);
    }
  }
};

struct Q3KAvx2 : Avx2 {
  static constexpr bool kHasMinimum = false;
  uint8_t high[32];
  uint8_t low[64];
  uint8_t scales[12];
  uint16_t scale;

  void unpack(Unpacked& block) const {
    // 16 scales of 6 bits: the lower 4 in the halves of eight bytes, the upper 2 in four bytes.
    uint32_t words[3];
    std::memcpy(words, scales, sizeof(words));
    const auto join = [&](int i) {
      return static_cast<int32_t>((words[i % 2] >> (i / 2 * 4) & 0x0f0f0f0fU) |
                                  (words[2] >> (2 * i) & 0x03030303U) << 4);
    };
    const __m128i joined = _mm_set_epi32(join(3), join(2), join(1), join(0));
    const __m128i around_zero = _mm_sub_epi8(joined, _mm_set1_epi8(32));
    scale_halves(around_zero, block);
    // The numbers stand 4 too high.
    block.factors = _mm256_slli_epi16(_mm256_cvtepi8_epi16(around_zero), 2);
    for (int i = 0; i < kParts; ++i) {
      block.numbers[i] = _mm256_or_si256(bits_of(load(low + 32 * (i / 4)), 2 * (i % 4), 2),
                                         bits_at(load(high), i, 1, 2));
    }
  }
};

struct Q4KAvx2 : Avx2 {
  static constexpr bool kHasMinimum = true;
  uint16_t scale;
  uint16_t minimum_scale;
  uint8_t scales[12];
  uint8_t low[128];

  void unpack(Unpacked& block) const {
    unpack_scales(scales, block);
    for (int i = 0; i < kParts; ++i) {
      block.numbers[i] = bits_of(load(low + 32 * (i / 2)), i % 2 * 4, 4);
    }
  }
};

struct Q5KAvx2 : Avx2 {
  static constexpr bool kHasMinimum = true;
  uint16_t scale;
  uint16_t minimum_scale;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t low[128];

  void unpack(Unpacked& block) const {
    unpack_scales(scales, block);
    for (int i = 0; i < kParts; ++i) {
      block.numbers[i] = _mm256_or_si256(bits_of(load(low + 32 * (i / 2)), i % 2 * 4, 4),
                                         bits_at(load(high), i, 1, 4));
    }
  }
};

struct Q6KAvx2 : Avx2 {
  static constexpr bool kHasMinimum = false;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t scale;

  void unpack(Unpacked& block) const {
    const __m128i bytes = load_16(scales);
    scale_halves(bytes, block);
    // The numbers stand 32 too high.
    block.factors = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 5);
    for (int i = 0; i < kParts; ++i) {
      const __m256i bits = load(low + 64 * (i / 4) + 32 * (i % 2));
      block.numbers[i] = _mm256_or_si256(bits_of(bits, i % 4 / 2 * 4, 4),
                                         bits_at(load(high + 32 * (i / 4)), i % 4 * 2, 2, 4));
    }
  }
};

struct Iq4XsAvx2 : Avx2 {
  static constexpr bool kHasMinimum = false;
  static constexpr bool kIsSigned = true;
  uint16_t scale;
  uint16_t high;  // of the scales
  uint8_t low[4];
  uint8_t indices[128];

  void unpack(Unpacked& block) const {
    int16_t scales[kParts];
    for (int i = 0; i < kParts; ++i) {
      const int bits = (low[i / 2] >> (i % 2 * 4) & 15) | (high >> (2 * i) & 3) << 4;
      scales[i] = static_cast<int16_t>(bits - 32);
    }
    scale_parts(load_16(scales), block);
    for (int i = 0; i < kParts; ++i) block.numbers[i] = look_up(indices + 16 * i);
  }
};

// A block is one vector.
struct Iq4NlAvx2 : Avx2 {
  static constexpr bool kHasMinimum = false;
  using Activations = SmallActivationBlock;
  uint16_t scale;
  uint8_t indices[16];

  struct Unpacked {
    __m256i numbers;
  };

  void unpack(Unpacked& block) const { block.numbers = look_up(indices); }

  static Floats broadcast(uint16_t half) { return Avx2::broadcast(_cvtsh_ss(half)); }

  template <typename Format>
  static void multiply_block(const Unpacked& weight, const SmallActivationBlock& x, Ints& product,
                             Ints&) {
    product = reinterpret_cast<Ints>(
        _mm256_madd_epi16(signed_pairs(weight.numbers, load(x.numbers)), _mm256_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace snapllm
