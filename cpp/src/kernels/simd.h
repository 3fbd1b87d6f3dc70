// Vectors of floats of the width that the build's CPU has, and what attention computes
// with them. Every function does the same arithmetic in every lane and every place it is
// used from, so that results do not depend on which lane a number went through.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace snapllm::simd {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vec load(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

inline void store(float* to, Vec x) { std::memcpy(to, &x, sizeof(x)); }

template <int... kLane>
inline Vec broadcast_lanes(float x, std::integer_sequence<int, kLane...>) {
  return Vec{((void)kLane, x)...};
}

inline Vec broadcast(float x) {
  return broadcast_lanes(x, std::make_integer_sequence<int, kLanes>());
}

// a * b + c, rounded once where the CPU can. Compilers fuse products and sums in one instance of a
// template and not in another (GCC for Zen not where sums wait for each other): what is to have the
// same bits everywhere is written with this, and compiled with -ffp-contract=off.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// IEEE 754 binary16 to binary32.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000U) << 16;
  const uint32_t rest = half & 0x7fffU;
  uint32_t bits;
  float x;
  if (rest >= 0x7c00U) {
    bits = rest << 13 | 0x7f800000U;
  } else if (rest >= 0x0400U) {
    bits = (rest << 13) + (112U << 23);
  } else {  // a subnormal is a multiple of 2^-24
    x = static_cast<float>(rest) * 0x1p-24F;
    std::memcpy(&bits, &x, sizeof(bits));
  }
  bits |= sign;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// kLanes consecutive binary16 numbers.
inline Vec load_half(const uint16_t* from) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__) && defined(__F16C__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
  Vec x;
  for (int i = 0; i < kLanes; ++i) x[i] = half_to_float(from[i]);
  return x;
#endif
}

// kLanes consecutive numbers that are the upper halves of floats (bfloat16).
inline Vec load_upper_half(const uint16_t* from) {
  typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  typedef uint32_t Words __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Words words = __builtin_convertvector(halves, Words) << 16;
  Vec x;
  std::memcpy(&x, &words, sizeof(x));
  return x;
}

// The same vector, which the compiler has computed here, and does not load again for each use.
template <typename V>
inline V in_register(V x) {
#if defined(__GNUC__) && defined(__x86_64__)
  asm("" : "+v"(x));
#endif
  return x;
}

// Bit i says whether the i-th of kBits numbers of 16 bits differs from `value`.
inline constexpr int kBits = 32;
inline uint32_t bits_unlike(const uint16_t* numbers, uint16_t value) {
#if defined(__AVX512BW__)
  return _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(numbers),
                                  _mm512_set1_epi16(static_cast<int16_t>(value)));
#elif defined(__AVX2__)
  const __m256i values = _mm256_set1_epi16(static_cast<int16_t>(value));
  const auto* at = reinterpret_cast<const __m256i*>(numbers);
  const __m256i low = _mm256_cmpeq_epi16(_mm256_loadu_si256(at), values);
  const __m256i high = _mm256_cmpeq_epi16(_mm256_loadu_si256(at + 1), values);
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kBits; ++i) bits |= static_cast<uint32_t>(numbers[i] != value) << i;
  return bits;
#endif
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// From the lanes of a and b in groups of kGroup, each group's two halves added: the sums
// of all groups of a, then of b, in order.
template <int kGroup, typename V, int... kLane>
inline V add_halves(V a, V b, std::integer_sequence<int, kLane...>) {
  constexpr int kHalf = kGroup / 2;
  const V low = __builtin_shufflevector(a, b, (kLane / kHalf * kGroup + kLane % kHalf)...);
  const V high =
      __builtin_shufflevector(a, b, (kLane / kHalf * kGroup + kLane % kHalf + kHalf)...);
  return low + high;
}

// Lane i of the result is the sum over the lanes of x[i], always in the same order.
template <typename V, int kGroup = sizeof(V) / sizeof(float)>
inline V sums_of_lanes(V* x) {
  if constexpr (kGroup == 1) {
    return x[0];
  } else {
    for (int i = 0; i < kGroup / 2; ++i) {
      x[i] = add_halves<kGroup>(x[2 * i], x[2 * i + 1],
                                std::make_integer_sequence<int, sizeof(V) / sizeof(float)>());
    }
    return sums_of_lanes<V, kGroup / 2>(x);
  }
}

// Of a and b, in blocks of kStep lanes: a's even blocks and b's, or the odd ones, in turn.
template <int kStep, bool kOdd, int... kLane>
inline Vec take_blocks(Vec a, Vec b, std::integer_sequence<int, kLane...>) {
  constexpr int kFirst = kOdd ? kStep : 0;
  return __builtin_shufflevector(
      a, b, (kFirst + (kLane & ~kStep) + ((kLane & kStep) != 0 ? kLanes : 0))...);
}

// Makes lane j of x[i] lane i of x[j]: exchanges quarters of ever smaller squares.
template <int kStep = kLanes / 2>
inline void transpose(Vec* x) {
  constexpr auto kAll = std::make_integer_sequence<int, kLanes>();
  for (int i = 0; i < kLanes; ++i) {
    if ((i & kStep) != 0) continue;
    const Vec a = x[i];
    const Vec b = x[i + kStep];
    x[i] = take_blocks<kStep, false>(a, b, kAll);
    x[i + kStep] = take_blocks<kStep, true>(a, b, kAll);
  }
  if constexpr (kStep > 1) transpose<kStep / 2>(x);
}

inline float sum_of_lanes(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

inline float max_of_lanes(Vec x) {
  float lanes[kLanes];
  store(lanes, x);
  float most = lanes[0];
  for (int i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

// e^x within 2 units in the last place for -87 <= x <= 88; 0 below. x = n ln 2 + r with
// |r| <= ln 2 / 2, and e^r by its Taylor polynomial of degree 7. NaN stays NaN.
inline Vec exp(Vec x) {
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;  // exact in 9 bits, so that n times it is too
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer in the low bits
  const Vec lowest = broadcast(-87.0F);
  const Vec clamped = lowest > x ? lowest : x;
  const auto step = [](Vec a, Vec b, float c) { return multiply_add(a, b, broadcast(c)); };
  const Vec shifted = step(clamped, broadcast(kLog2E), kRound);
  const Vec n = shifted - kRound;
  const Vec r = multiply_add(n, broadcast(-kLn2Low), multiply_add(n, broadcast(-kLn2High), clamped));
  Vec p = step(r, broadcast(1.0F / 5040), 1.0F / 720);
  p = step(p, r, 1.0F / 120);
  p = step(p, r, 1.0F / 24);
  p = step(p, r, 1.0F / 6);
  p = step(p, r, 0.5F);
  p = step(p, r, 1.0F);
  p = step(p, r, 1.0F);
  IntVec power;
  std::memcpy(&power, &shifted, sizeof(power));
  IntVec bits;
  std::memcpy(&bits, &p, sizeof(bits));
  bits += power << 23;
  Vec result;
  std::memcpy(&result, &bits, sizeof(result));
  const Vec number = x < lowest ? broadcast(0.0F) : result;
  return x == x ? number : x;
}

// tanh x = 1 - 2 / (e^2x + 1).
inline Vec tanh(Vec x) {
  const Vec most = broadcast(40.0F);
  const Vec clamped = x > most ? most : x;
  return 1.0F - 2.0F / (exp(clamped * 2.0F) + 1.0F);
}

}  // namespace snapllm::simd
