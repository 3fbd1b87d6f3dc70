#include "kernels/kquant.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header begins from values that are meant to be undefined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/column_share.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

using simd::IntVec;
using simd::kLanes;
using simd::Vec;
static_assert(kLanes == 16);

constexpr int kBlockSize = 256;
// Four vectors of 64 numbers of a byte each make a block.
constexpr int kParts = kBlockSize / 64;
// Rows of x whose sums are held at once.
constexpr int kMaxRows = 8;

// ggml's block_q8_K.
struct ActivationBlock {
  float scale;
  int8_t numbers[kBlockSize];
  int16_t sums[kBlockSize / 16];
};

// One block of weights, as numbers without sign, and the scales of what each four of them give:
// of parts 0 and 1 and of parts 2 and 3, in the order in which _mm512_packs_epi32 packs both.
struct Unpacked {
  __m512i numbers[kParts];
  __m512i scales[kParts / 2];
  __m256i factors;  // of the activations' 16 sums
};

// The 16-bit numbers of `from` that the bytes of `order` name.
__m512i pick(__m256i from, __m256i order) {
  return _mm512_permutexvar_epi16(_mm512_cvtepi8_epi16(order), _mm512_castsi256_si512(from));
}

// The same 32 bytes twice, the first shifted right by `low` bits, the second by `high`. Bits
// cross from byte to byte: to be masked.
__m512i twice(const uint8_t* from, int low, int high) {
  const __m512i both =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  const auto l = static_cast<int16_t>(low);
  const auto h = static_cast<int16_t>(high);
  return _mm512_srlv_epi16(
      both, _mm512_inserti64x4(_mm512_set1_epi16(l), _mm256_set1_epi16(h), 1));
}

// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K: of the first four the
// lower 6 bits of a byte each, of the others 4 bits in the last four bytes, and the upper 2 of
// a byte of the first four.
void unpack_scales(const uint8_t* packed, Unpacked& block) {
  uint32_t words[3];
  std::memcpy(words, packed, sizeof(words));
  const auto split = [](uint32_t low, uint32_t rest, uint32_t upper) {
    return uint64_t{low & 0x3f3f3f3fU} |
           uint64_t{(rest & 0x0f0f0f0fU) | (upper >> 2 & 0x30303030U)} << 32;
  };
  const uint64_t scales = split(words[0], words[2], words[0]);
  const uint64_t minima = split(words[1], words[2] >> 4, words[1]);
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_cvtsi64_si128(static_cast<int64_t>(scales)));
  // A scale is for 32 numbers, half a part.
  const __m256i order = _mm256_set_epi8(3, 3, 3, 3, 1, 1, 1, 1, 3, 3, 3, 3, 1, 1, 1, 1,  //
                                        2, 2, 2, 2, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0);
  block.scales[0] = pick(wide, order);
  block.scales[1] = pick(wide, _mm256_add_epi8(order, _mm256_set1_epi8(4)));
  const __m128i m = _mm_cvtsi64_si128(static_cast<int64_t>(minima));
  block.factors = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(m, m));
}

// Each format: how a block lies in memory, and what is taken off its exact product.
struct Q4K {
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

struct Q5K {
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

struct Q6K {
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

template <typename Format>
class KQuantProduct {
 public:
  explicit KQuantProduct(const KQuantArgs& args) : args_(args) {}

  // Columns [first, last) of all rows.
  void compute(int32_t first, int32_t last) const {
    for (int32_t row = 0; row < args_.num_rows; row += kMaxRows) {
      const int32_t num_rows = std::min(kMaxRows, args_.num_rows - row);
      for (int32_t column = first; column < last; column += kLanes) {
        compute_block(row, num_rows, column, std::min<int32_t>(kLanes, last - column));
      }
    }
  }

 private:
  const Format* weights_of(int32_t column) const {
    return reinterpret_cast<const Format*>(args_.weights +
                                           args_.weights_stride * static_cast<size_t>(column));
  }

  const ActivationBlock& x_of(int32_t row, int32_t block) const {
    return reinterpret_cast<const ActivationBlock*>(args_.x +
                                                    args_.x_stride * static_cast<size_t>(row))[block];
  }

  // A lane for each of up to kLanes columns.
  void compute_block(int32_t row, int32_t num_rows, int32_t column, int32_t num_columns) const {
    const Format* weights[kLanes];
    for (int i = 0; i < kLanes; ++i) weights[i] = weights_of(column + std::min(i, num_columns - 1));
    Vec out[kMaxRows] = {};
    for (int32_t block = 0; block < args_.num_blocks; ++block) {
      add_products(weights, row, num_rows, block, out);
    }
    for (int32_t r = 0; r < num_rows; ++r) {
      float* to = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args_.out) +
                                           args_.out_stride * static_cast<size_t>(row + r));
      std::memcpy(to + column, &out[r], static_cast<size_t>(num_columns) * sizeof(float));
    }
  }

  void add_products(const Format* const* weights, int32_t row, int32_t num_rows, int32_t block,
                    Vec* out) const {
    IntVec products[kMaxRows][kLanes];
    IntVec minima[kMaxRows][kLanes];
    uint16_t scales[kLanes];
    uint16_t minimum_scales[kLanes] = {};
    for (int i = 0; i < kLanes; ++i) {
      const Format& weight = weights[i][block];
      prefetch_next(weights[0], block * kLanes + i);
      Unpacked unpacked;
      weight.unpack(unpacked);
      scales[i] = weight.scale;
      if constexpr (Format::kHasMinimum) minimum_scales[i] = weight.minimum_scale;
      for (int32_t r = 0; r < num_rows; ++r) {
        multiply_block(unpacked, x_of(row + r, block), products[r][i], minima[r][i]);
      }
    }
    const __m512 scale = reinterpret_cast<__m512>(simd::load_half(scales));
    const __m512 minimum_scale = reinterpret_cast<__m512>(simd::load_half(minimum_scales));
    for (int32_t r = 0; r < num_rows; ++r) {
      // What is fused with what is said, not left to the compiler.
      __m512 sum = _mm512_mul_ps(to_floats(products[r]), scale);
      if constexpr (Format::kHasMinimum) {
        sum = _mm512_fnmadd_ps(minimum_scale, to_floats(minima[r]), sum);
      }
      const __m512 x_scale = _mm512_set1_ps(x_of(row + r, block).scale);
      out[r] = reinterpret_cast<Vec>(
          _mm512_fmadd_ps(sum, x_scale, reinterpret_cast<__m512>(out[r])));
    }
  }

  static __m512 to_floats(IntVec* sums) {
    return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(simd::sums_of_lanes(sums)));
  }

  // Asks for as many bytes of the columns after these as the step number `step` reads here: one
  // stream, where the columns' blocks would be sixteen.
  void prefetch_next(const Format* first, int32_t step) const {
    const std::byte* next = reinterpret_cast<const std::byte*>(first) +
                            args_.weights_stride * kLanes +
                            sizeof(Format) * static_cast<size_t>(step);
    for (size_t at = 0; at < sizeof(Format); at += 64) {
      __builtin_prefetch(next + at, /*rw=*/0, /*locality=*/2);
    }
  }

  // Exact sums, whose lanes are still to be added up.
  static void multiply_block(const Unpacked& weight, const ActivationBlock& x, IntVec& product,
                             IntVec& minimum) {
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
      product = reinterpret_cast<IntVec>(sum);
      minimum = reinterpret_cast<IntVec>(taken);
    } else {
      product = reinterpret_cast<IntVec>(_mm512_sub_epi32(sum, taken));
    }
  }

  const KQuantArgs& args_;
};

}  // namespace

bool has_kquant_kernel() { return true; }

void multiply_kquant(const KQuantArgs& args, int thread, int num_threads) {
  const auto [first, last] = column_share(args.num_columns, thread, num_threads);
  switch (args.type) {
    case KQuantType::kQ4K: return KQuantProduct<Q4K>(args).compute(first, last);
    case KQuantType::kQ5K: return KQuantProduct<Q5K>(args).compute(first, last);
    case KQuantType::kQ6K: return KQuantProduct<Q6K>(args).compute(first, last);
  }
}

}  // namespace snapllm

#else

namespace snapllm {

bool has_kquant_kernel() { return false; }

void multiply_kquant(const KQuantArgs&, int, int) {}

}  // namespace snapllm

#endif
