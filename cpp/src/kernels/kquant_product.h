// Products of rows of activations with rows of K-quants, over whatever vectors a format is
// unpacked into. For the files that are compiled for the machine's vectors alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/kquant.h"

namespace snapllm {
namespace {

constexpr int kKQuantBlockSize = 256;

// ggml's block_q8_K.
struct ActivationBlock {
  float scale;
  int8_t numbers[kKQuantBlockSize];
  int16_t sums[kKQuantBlockSize / 16];
};

// ggml's block_q8_0.
struct SmallActivationBlock {
  uint16_t scale;
  int8_t numbers[32];
};

// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K, a byte each.
struct PackedScales {
  uint64_t scales;
  uint64_t minima;
};

// Of the first four the lower 6 bits of a byte each, of the others 4 bits in the last four
// bytes, and the upper 2 of a byte of the first four.
inline PackedScales split_scales(const uint8_t* packed) {
  uint32_t words[3];
  std::memcpy(words, packed, sizeof(words));
  const auto split = [](uint32_t low, uint32_t rest, uint32_t upper) {
    return uint64_t{low & 0x3f3f3f3fU} |
           uint64_t{(rest & 0x0f0f0f0fU) | (upper >> 2 & 0x30303030U)} << 32;
  };
  return {split(words[0], words[2], words[0]), split(words[1], words[2] >> 4, words[1])};
}

// `Format` is a block as it lies in memory, derived from the vectors (`Avx2`, `Avx512`) that
// its `unpack` fills:
//   Floats, Ints      kLanes numbers of 32 bits
//   Halves            as many of 16 bits
//   Activations       what a block is multiplied with
//   Unpacked          a block's numbers and their scales
//   multiply_block    the exact sums of a block's products, over all lanes to be added up
// and `scale`, and `minimum_scale` where it kHasMinimum.
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
  using Floats = typename Format::Floats;
  using Ints = typename Format::Ints;
  using Activations = typename Format::Activations;
  static constexpr int kLanes = Format::kLanes;
  // Rows of x whose sums are held at once.
  static constexpr int kMaxRows = 8;

  const Format* weights_of(int32_t column) const {
    return reinterpret_cast<const Format*>(args_.weights +
                                           args_.weights_stride * static_cast<size_t>(column));
  }

  const Activations& x_of(int32_t row, int32_t block) const {
    return reinterpret_cast<const Activations*>(args_.x +
                                                args_.x_stride * static_cast<size_t>(row))[block];
  }

  // The number `scale` of a block of each column, put together in a register: what was written to
  // memory in pieces is not there to be read as one for some time.
  template <int... kLane>
  static Floats scales_of(const Format* const* weights, int32_t block, uint16_t Format::*scale,
                          std::integer_sequence<int, kLane...>) {
    return Format::to_floats(typename Format::Halves{weights[kLane][block].*scale...});
  }

  // A lane for each of up to kLanes columns.
  void compute_block(int32_t row, int32_t num_rows, int32_t column, int32_t num_columns) const {
    const Format* weights[kLanes];
    for (int i = 0; i < kLanes; ++i) weights[i] = weights_of(column + std::min(i, num_columns - 1));
    Floats out[kMaxRows] = {};
    for (int32_t block = 0; block < args_.num_blocks; ++block) {
      if (num_rows == 1) {
        add_products<1>(weights, row, num_rows, block, out);
      } else {
        add_products<kMaxRows>(weights, row, num_rows, block, out);
      }
    }
    for (int32_t r = 0; r < num_rows; ++r) {
      float* to = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args_.out) +
                                           args_.out_stride * static_cast<size_t>(row + r));
      std::memcpy(to + column, &out[r], static_cast<size_t>(num_columns) * sizeof(float));
    }
  }

  // Of up to kRows rows; one alone has its sums in registers.
  template <int kRows>
  void add_products(const Format* const* weights, int32_t row, int32_t num_rows, int32_t block,
                    Floats* out) const {
    Ints products[kRows][kLanes];
    Ints minima[kRows][kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const Format& weight = weights[i][block];
      prefetch_next(weights[0], block * kLanes + i);
      typename Format::Unpacked unpacked;
      weight.unpack(unpacked);
      for (int32_t r = 0; r < (kRows == 1 ? 1 : num_rows); ++r) {
        Format::template multiply_block<Format>(unpacked, x_of(row + r, block), products[r][i],
                                                minima[r][i]);
      }
    }
    constexpr auto kAll = std::make_integer_sequence<int, kLanes>();
    const Floats scale = scales_of(weights, block, &Format::scale, kAll);
    Floats minimum_scale = {};
    if constexpr (Format::kHasMinimum) {
      minimum_scale = scales_of(weights, block, &Format::minimum_scale, kAll);
    }
    for (int32_t r = 0; r < num_rows; ++r) {
      // What is fused with what is said, not left to the compiler.
      Floats sum = Format::multiply(Format::add_up(products[r]), scale);
      if constexpr (Format::kHasMinimum) {
        sum = Format::subtract_product(sum, minimum_scale, Format::add_up(minima[r]));
      }
      out[r] = Format::add_product(out[r], sum, Format::broadcast(x_of(row + r, block).scale));
    }
  }

  // Asks for as many bytes of the columns after these as the step number `step` reads here: one
  // stream, where the columns' blocks would be kLanes.
  void prefetch_next(const Format* first, int32_t step) const {
    const std::byte* next = reinterpret_cast<const std::byte*>(first) +
                            args_.weights_stride * kLanes +
                            sizeof(Format) * static_cast<size_t>(step);
    for (size_t at = 0; at < sizeof(Format); at += 64) {
      __builtin_prefetch(next + at, /*rw=*/0, /*locality=*/2);
    }
  }

  const KQuantArgs& args_;
};

}  // namespace
}  // namespace snapllm
