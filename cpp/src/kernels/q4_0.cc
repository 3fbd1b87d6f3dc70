#include "kernels/q4_0.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header begins from values that are meant to be undefined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <algorithm>
#include <cstring>

#include "kernels/column_share.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

constexpr int kBlockSize = 32;
// Four numbers of a byte each, which a product of bytes adds up.
constexpr int kQuads = kBlockSize / 4;

// ggml's block_q4_0: number i in the lower half of byte i, number i + 16 in its upper half, each
// 8 too high.
struct WeightBlock {
  uint16_t scale;
  uint8_t numbers[kBlockSize / 2];
};

// ggml's block_q8_0.
struct ByteBlock {
  uint16_t scale;
  int8_t numbers[kBlockSize];
};

struct ActivationBlock {
  float scale;
  int32_t excess;  // what weights that are 8 too high add to a product
  int8_t numbers[kBlockSize];
};

constexpr size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t q40_row_bytes(int32_t num_blocks) {
  return round_up(static_cast<size_t>(num_blocks) * sizeof(ActivationBlock));
}

void prepare_q40_blocks(const std::byte* from, int32_t begin, int32_t end, std::byte* row) {
  for (int32_t i = begin; i < end; ++i) {
    const ByteBlock& block = reinterpret_cast<const ByteBlock*>(from)[i - begin];
    ActivationBlock& to = reinterpret_cast<ActivationBlock*>(row)[i];
    to.scale = simd::half_to_float(block.scale);
    int32_t sum = 0;
    for (const int8_t number : block.numbers) sum += number;
    to.excess = 8 * sum;
    std::memcpy(to.numbers, block.numbers, sizeof(to.numbers));
  }
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  using Bytes = __m256i;
  using Ints = __m256i;
  using Floats = __m256;

  // Of 16 bits: a block's eight sums of two products of at most 15 times 127 fit into them.
  using Sums = __m256i;
  static Sums none() { return _mm256_setzero_si256(); }
  static Sums add(Sums sums, Bytes weights, Bytes x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x));
  }
  static Ints ints(Sums sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

  static Bytes load(const uint8_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Bytes broadcast_quad(const int8_t* from) {
    int32_t quad;
    std::memcpy(&quad, from, sizeof(quad));
    return _mm256_set1_epi32(quad);
  }
  static Floats load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
  static Floats zero() { return _mm256_setzero_ps(); }
  // sums + (dots - excess) times both scales
  static Floats add_block(Floats sums, Ints dots, int32_t excess, Floats scales, float x_scale) {
    const Floats exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots, _mm256_set1_epi32(excess)));
    return _mm256_fmadd_ps(exact, _mm256_mul_ps(scales, _mm256_set1_ps(x_scale)), sums);
  }
};

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
struct Avx512 {
  static constexpr int kLanes = 16;
  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;

  using Sums = __m512i;
  static Sums none() { return _mm512_setzero_si512(); }
  static Sums add(Sums sums, Bytes weights, Bytes x) {
    return _mm512_dpbusd_epi32(sums, weights, x);
  }
  static Ints ints(Sums sums) { return sums; }

  static Bytes load(const uint8_t* from) { return _mm512_load_si512(from); }
  static Bytes broadcast_quad(const int8_t* from) {
    int32_t quad;
    std::memcpy(&quad, from, sizeof(quad));
    return _mm512_set1_epi32(quad);
  }
  static Floats load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats add_block(Floats sums, Ints dots, int32_t excess, Floats scales, float x_scale) {
    const Floats exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(dots, _mm512_set1_epi32(excess)));
    return _mm512_fmadd_ps(exact, _mm512_mul_ps(scales, _mm512_set1_ps(x_scale)), sums);
  }
};
using Wide = Avx512;
#else
using Wide = Avx2;
#endif

// Columns whose weights are unpacked together, and rows whose sums are held in registers.
constexpr int kGroups = 2;
constexpr int kPanelColumns = kGroups * Wide::kLanes;
constexpr int kPanelRows = 4;
// From so many rows on it pays to unpack a panel.
constexpr int32_t kMinPanelRows = 4;
// Rows that are multiplied with one panel after the other, to be read from a near cache: as many
// as have so many bytes, and at least so many, since each tile unpacks the panels anew.
constexpr size_t kTileBytes = 1408 * 1024;
constexpr int32_t kMinTileRows = 128;

// The lower half of each byte.
inline __m256i lower_halves(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi8(0x0f));
}

// The 32 numbers of a block, 8 too high, in their order.
inline __m256i unpack(const WeightBlock& block) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block.numbers));
  return lower_halves(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes));
}

// Weights of kPanelColumns columns: of each block their scales, and then quad by quad those of
// all columns.
struct PanelBlock {
  float scales[kPanelColumns];
  alignas(64) uint8_t numbers[kQuads][kPanelColumns * 4];
};

class Product {
 public:
  Product(const Q40Args& args, std::byte* scratch)
      : args_(args), panel_(reinterpret_cast<PanelBlock*>(scratch)) {}

  // Columns [first, last) of all rows.
  void compute(int32_t first, int32_t last) const {
    if (args_.num_rows < kMinPanelRows) {
      for (int32_t column = first; column < last; column += Avx2::kLanes) {
        const int32_t num_columns = std::min(Avx2::kLanes, last - column);
        switch (args_.num_rows) {
          case 1: compute_few_rows<1>(column, num_columns); break;
          case 2: compute_few_rows<2>(column, num_columns); break;
          case 3: compute_few_rows<3>(column, num_columns); break;
        }
      }
      return;
    }
    const int32_t tile = tile_rows(args_.num_blocks);
    for (int32_t row = 0; row < args_.num_rows; row += tile) {
      const int32_t end = std::min(row + tile, args_.num_rows);
      for (int32_t column = first; column < last; column += kPanelColumns) {
        const int32_t num_columns = std::min(kPanelColumns, last - column);
        unpack_panel(column, num_columns);
        compute_panel(row, end, column, num_columns);
      }
    }
  }

 private:
  const WeightBlock* weights_of(int32_t column) const {
    return reinterpret_cast<const WeightBlock*>(args_.weights +
                                                args_.weights_stride * static_cast<size_t>(column));
  }

  const ActivationBlock* x_of(int32_t row) const {
    return reinterpret_cast<const ActivationBlock*>(args_.x + q40_row_bytes(args_.num_blocks) *
                                                                  static_cast<size_t>(row));
  }

  float* out_of(int32_t row) const {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args_.out) +
                                    args_.out_stride * static_cast<size_t>(row));
  }

  static int32_t tile_rows(int32_t num_blocks) {
    const auto rows = static_cast<int32_t>(kTileBytes / q40_row_bytes(num_blocks));
    return std::max(kMinTileRows, rows / kPanelRows * kPanelRows);
  }

  // A last column stands in for those that there are not.
  void unpack_panel(int32_t column, int32_t num_columns) const {
    constexpr int kColumns = Avx2::kLanes;
    for (int c = 0; c < kPanelColumns; c += kColumns) {
      const WeightBlock* weights[kColumns];
      for (int i = 0; i < kColumns; ++i) {
        weights[i] = weights_of(column + std::min(c + i, num_columns - 1));
      }
      for (int32_t block = 0; block < args_.num_blocks; ++block) {
        PanelBlock& to = panel_[block];
        __m256i quads[kColumns];
        uint16_t scales[kColumns];
        for (int i = 0; i < kColumns; ++i) {
          quads[i] = unpack(weights[i][block]);
          scales[i] = weights[i][block].scale;
        }
        Avx2::store(to.scales + c, load_half(scales));
        transpose(quads);
        for (int q = 0; q < kQuads; ++q) {
          _mm256_store_si256(reinterpret_cast<__m256i*>(to.numbers[q] + c * 4), quads[q]);
        }
      }
    }
  }

  // Asks meanwhile for the weights of the next panel, which lie behind those of this one.
  void compute_panel(int32_t row, int32_t end, int32_t column, int32_t num_columns) const {
    const auto* next = reinterpret_cast<const std::byte*>(weights_of(column + kPanelColumns));
    const size_t share =
        args_.weights_stride * kPanelColumns / static_cast<size_t>((end - row) / kPanelRows + 1);
    for (; row + kPanelRows <= end; row += kPanelRows, next += share) {
      for (size_t i = 0; i < share; i += 64) __builtin_prefetch(next + i, /*rw=*/0, /*locality=*/2);
      compute_panel_rows<kPanelRows>(row, column, num_columns);
    }
    for (; row < end; ++row) compute_panel_rows<1>(row, column, num_columns);
  }

  template <int kRows>
  void compute_panel_rows(int32_t row, int32_t column, int32_t num_columns) const {
    const ActivationBlock* x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = x_of(row + r);
    Wide::Floats out[kRows][kGroups];
    for (auto& of_row : out) std::fill_n(of_row, kGroups, Wide::zero());
    for (int32_t block = 0; block < args_.num_blocks; ++block) {
      const PanelBlock& panel = panel_[block];
      Wide::Sums sums[kRows][kGroups];
      for (auto& of_row : sums) std::fill_n(of_row, kGroups, Wide::none());
      for (int q = 0; q < kQuads; ++q) {
        for (int g = 0; g < kGroups; ++g) {
          const auto weights = Wide::load(panel.numbers[q] + g * Wide::kLanes * 4);
          for (int r = 0; r < kRows; ++r) {
            const auto quad = Wide::broadcast_quad(x[r][block].numbers + 4 * q);
            sums[r][g] = simd::in_register(Wide::add(sums[r][g], weights, quad));
          }
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const ActivationBlock& y = x[r][block];
        for (int g = 0; g < kGroups; ++g) {
          out[r][g] = Wide::add_block(out[r][g], Wide::ints(sums[r][g]), y.excess,
                                      Wide::load(panel.scales + g * Wide::kLanes), y.scale);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float all[kPanelColumns];
      for (int g = 0; g < kGroups; ++g) Wide::store(all + g * Wide::kLanes, out[r][g]);
      put(row + r, column, num_columns, all);
    }
  }

  // Straight from the blocks, a lane for each column.
  template <int kRows>
  void compute_few_rows(int32_t column, int32_t num_columns) const {
    constexpr int kColumns = Avx2::kLanes;
    const WeightBlock* weights[kColumns];
    for (int i = 0; i < kColumns; ++i) weights[i] = weights_of(column + std::min(i, num_columns - 1));
    const ActivationBlock* x[kRows];
    Avx2::Floats out[kRows];
    for (int r = 0; r < kRows; ++r) {
      x[r] = x_of(r);
      out[r] = Avx2::zero();
    }
    for (int32_t block = 0; block < args_.num_blocks; ++block) {
      __m256i dots[kRows][kColumns / 2];  // of columns i and i + 4, in eighths of 16 bits
      for (int i = 0; i < kColumns / 2; ++i) {
        prefetch_next(weights[0], block * kColumns + 2 * i);
        const __m256i bytes = load_both(weights[i][block].numbers, weights[i + 4][block].numbers);
        const __m256i low = lower_halves(bytes);
        const __m256i high = lower_halves(_mm256_srli_epi16(bytes, 4));
        for (int r = 0; r < kRows; ++r) {
          const int8_t* numbers = x[r][block].numbers;
          dots[r][i] = _mm256_add_epi16(_mm256_maddubs_epi16(low, load_twice(numbers)),
                                        _mm256_maddubs_epi16(high, load_twice(numbers + 16)));
        }
      }
      const __m256 scales = _mm256_cvtph_ps(_mm_setr_epi16(
          scale_bits(weights[0][block]), scale_bits(weights[1][block]),
          scale_bits(weights[2][block]), scale_bits(weights[3][block]),
          scale_bits(weights[4][block]), scale_bits(weights[5][block]),
          scale_bits(weights[6][block]), scale_bits(weights[7][block])));
      for (int r = 0; r < kRows; ++r) {
        const ActivationBlock& y = x[r][block];
        out[r] = Avx2::add_block(out[r], add_up(dots[r]), y.excess, scales, y.scale);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float all[kColumns];
      Avx2::store(all, out[r]);
      put(r, column, num_columns, all);
    }
  }

  static __m256i load_both(const uint8_t* lower, const uint8_t* upper) {
    return _mm256_set_m128i(_mm_loadu_si128(reinterpret_cast<const __m128i*>(upper)),
                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(lower)));
  }
  static __m256i load_twice(const int8_t* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static int16_t scale_bits(const WeightBlock& block) { return static_cast<int16_t>(block.scale); }

  // The sums of the lower and of the upper eight numbers of x[0] to x[3], in this order. Half of
  // a sum, of eight products of two numbers, fits into 16 bits.
  static __m256i add_up(const __m256i* x) {
    const auto add_pairs = [](__m256i a, __m256i b) {
      return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    };
    const __m256i a = add_pairs(x[0], x[1]);
    const __m256i b = add_pairs(x[2], x[3]);
    return Avx2::ints(_mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)));
  }

  // Asks for as many bytes of the columns after these as the step number `step` reads here: one
  // stream, where the columns' blocks would be many.
  void prefetch_next(const WeightBlock* first, int32_t step) const {
    __builtin_prefetch(reinterpret_cast<const std::byte*>(first) +
                           args_.weights_stride * Avx2::kLanes +
                           sizeof(WeightBlock) * static_cast<size_t>(step),
                       /*rw=*/0, /*locality=*/2);
  }

  void put(int32_t row, int32_t column, int32_t num_columns, const float* numbers) const {
    std::memcpy(out_of(row) + column, numbers, static_cast<size_t>(num_columns) * sizeof(float));
  }

  static __m256 load_half(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }

  // Quad j of vector i becomes quad i of vector j.
  static void transpose(__m256i* x) {
    __m256i pairs[8];
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int half = 0; half < 2; ++half) {  // quads 4 half ... of all, by fours
      for (int i = 0; i < 2; ++i) {
        const __m256i a = pairs[4 * half + i];
        const __m256i b = pairs[4 * half + 2 + i];
        x[4 * half + 2 * i] = _mm256_unpacklo_epi64(a, b);
        x[4 * half + 2 * i + 1] = _mm256_unpackhi_epi64(a, b);
      }
    }
    for (int i = 0; i < 4; ++i) {
      const __m256i a = x[i];
      const __m256i b = x[i + 4];
      x[i] = _mm256_permute2x128_si256(a, b, 0x20);
      x[i + 4] = _mm256_permute2x128_si256(a, b, 0x31);
    }
  }

  const Q40Args& args_;
  PanelBlock* panel_;
};

}  // namespace

bool has_q40_kernel() { return true; }

size_t q40_scratch_bytes(int32_t num_blocks) {
  return static_cast<size_t>(num_blocks) * sizeof(PanelBlock);
}

void multiply_q40(const Q40Args& args, int share, int num_shares, std::byte* scratch) {
  const auto [first, last] = column_share(args.num_columns, kPanelColumns, share, num_shares);
  Product(args, scratch).compute(first, last);
}

#else

bool has_q40_kernel() { return false; }

size_t q40_scratch_bytes(int32_t) { return 0; }

void multiply_q40(const Q40Args&, int, int, std::byte*) {}

#endif

}  // namespace snapllm
