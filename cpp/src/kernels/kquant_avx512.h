// K-quants in vectors of 512 bits, with VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/kquant_product.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  // Four vectors of 64 numbers of a byte each make a block.
  static constexpr int kParts = kKQuantBlockSize / 64;
  using Activations = ActivationBlock;
  using Floats = __m512;
  typedef int32_t Ints __attribute__((vector_size(64)));
  typedef uint16_t Halves __attribute__((vector_size(32)));

  // One block of weights, as numbers without sign, and the scales of what each four of them give:
  // of parts 0 and 1 and of parts 2 and 3, in the order in which _mm512_packs_epi32 packs both.
  struct Unpacked {
    __m512i numbers[kParts];
    __m512i scales[kParts / 2];
    __m256i factors;  // of the activations' 16 sums
  };

  static Floats to_floats(Halves halves) {
    return _mm512_cvtph_ps(reinterpret_cast<__m256i>(halves));
  }
  static Floats broadcast(float x) { return _mm512_set1_ps(x); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats add_product(Floats sum, Floats a, Floats b) { return _mm512_fmadd_ps(a, b, sum); }
  static Floats subtract_product(Floats from, Floats a, Floats b) {
    return _mm512_fnmadd_ps(a, b, from);
  }
  static Floats add_up(Ints* sums) {
    return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(simd::sums_of_lanes(sums)));
  }

  // Exact sums, whose lanes are still to be added up.
  template <typename Format>
  static void multiply_block(const Unpacked& weight, const ActivationBlock& x, Ints& product,
                             Ints& minimum) {
    // Four products of at most 63 times 128 each fit into 16 bits.
    const auto dots = [&](int i) {
      return _mm512_dpbusd_epi32(_mm512_setzero_si512(), weight.numbers[i],
                                 _mm512_loadu_si512(x.numbers + 64 * i));
    };
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < kParts / 2; ++i) {
      sum = _mm512_dpwssd_epi32(sum, _mm512_packs_epi32(dots(2 * i), dots(2 * i + 1)),
                                weight.scales[i]);
    }
    const __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x.sums));
    const __m512i taken = _mm512_zextsi256_si512(_mm256_madd_epi16(sums, weight.factors));
    if constexpr (Format::kHasMinimum) {
      product = reinterpret_cast<Ints>(sum);
      minimum = reinterpret_cast<Ints>(taken);
    } else {
      product = reinterpret_cast<Ints>(_mm512_sub_epi32(sum, taken));
    }
  }

  // The 16-bit numbers of `from` that the bytes of `order` name.
  static __m512i pick(__m256i from, __m256i order) {
    return _mm512_permutexvar_epi16(_mm512_cvtepi8_epi16(order), _mm512_castsi256_si512(from));
  }

  // The same 32 bytes twice, the first shifted right by `low` bits, the second by `high`. Bits
  // cross from byte to byte: to be masked.
  static __m512i twice(const uint8_t* from, int low, int high) {
    const __m512i both =
        _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    const auto l = static_cast<int16_t>(low);
    const auto h = static_cast<int16_t>(high);
    return _mm512_srlv_epi16(
        both, _mm512_inserti64x4(_mm512_set1_epi16(l), _mm256_set1_epi16(h), 1));
  }

  // Of Q4_K and Q5_K.
  static void unpack_scales(const uint8_t* packed, Unpacked& block) {
    const auto [scales, minima] = split_scales(packed);
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<int64_t>(scales)));
    // A scale is for 32 numbers, half a part.
    const __m256i order = _mm256_set_epi8(3, 3, 3, 3, 1, 1, 1, 1, 3, 3, 3, 3, 1, 1, 1, 1,  //
                                          2, 2, 2, 2, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0);
    block.scales[0] = pick(wide, order);
    block.scales[1] = pick(wide, _mm256_add_epi8(order, _mm256_set1_epi8(4)));
    const __m128i m = _mm_cvtsi64_si128(static_cast<int64_t>(minima));
    block.factors = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m));
  }
};

// Each format: how a block lies in memory, and what is taken off its exact product.
struct Q4KAvx512 : Avx512 {
  static constexpr bool kHasMinimum = true;
  uint16_t scale;
  uint16_t minimum_scale;
  uint8_t scales[12];
  uint8_t low[128];

  void unpack(Unpacked& block) const {
    unpack_scales(scales, block);
    for (int i = 0; i < kParts; ++i) {
      block.numbers[i] = _mm512_and_si512(twice(low + 32 * i, 0, 4), _mm512_set1_epi8(0x0f));
    }
  }
};

struct Q5KAvx512 : Avx512 {
  static constexpr bool kHasMinimum = true;
  uint16_t scale;
  uint16_t minimum_scale;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t low[128];

  void unpack(Unpacked& block) const {
    unpack_scales(scales, block);
    for (int i = 0; i < kParts; ++i) {
      const __m512i bits =
          _mm512_and_si512(twice(high, 2 * i, 2 * i + 1), _mm512_set1_epi8(0x01));
      block.numbers[i] =
          _mm512_or_si512(_mm512_and_si512(twice(low + 32 * i, 0, 4), _mm512_set1_epi8(0x0f)),
                          _mm512_slli_epi16(bits, 4));
    }
  }
};

struct Q6KAvx512 : Avx512 {
  static constexpr bool kHasMinimum = false;
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t scale;

  void unpack(Unpacked& block) const {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    for (int i = 0; i < kParts; ++i) {
      const __m512i bytes = _mm512_loadu_si512(low + 64 * (i / 2));
      const int shift = i % 2 * 4;
      const __m512i bits = _mm512_and_si512(twice(high + 32 * (i / 2), shift, shift + 2),
                                            _mm512_set1_epi8(0x03));
      block.numbers[i] =
          _mm512_or_si512(_mm512_and_si512(i % 2 == 0 ? bytes : _mm512_srli_epi16(bytes, 4), nibble),
                          _mm512_slli_epi16(bits, 4));
    }
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
    const __m256i wide = _mm256_cvtepi8_epi16(bytes);
    // A scale is for 16 numbers, a quarter of a part.
    const __m256i order = _mm256_set_epi8(7, 7, 7, 7, 3, 3, 3, 3, 6, 6, 6, 6, 2, 2, 2, 2,  //
                                          5, 5, 5, 5, 1, 1, 1, 1, 4, 4, 4, 4, 0, 0, 0, 0);
    block.scales[0] = pick(wide, order);
    block.scales[1] = pick(wide, _mm256_add_epi8(order, _mm256_set1_epi8(8)));
    // The numbers stand 32 too high.
    block.factors = _mm256_slli_epi16(wide, 5);
  }
};

}  // namespace
}  // namespace snapllm
