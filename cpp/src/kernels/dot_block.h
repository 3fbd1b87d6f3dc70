// Dot products of several rows with several others, which attention and products of
// matrices are made of. For the files that are compiled for the machine's vectors alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/simd.h"

namespace snapllm {
namespace {

using simd::kLanes;
using simd::Vec;

struct Bfloat16 {
  uint16_t bits;
};

inline Vec load_number(const uint16_t* from) { return simd::load_half(from); }
inline Vec load_number(const float* from) { return simd::in_register(simd::load(from)); }
inline Vec load_number(const Bfloat16* from) {
  return simd::load_upper_half(reinterpret_cast<const uint16_t*>(from));
}

struct NothingAhead {
  void operator()(int32_t) const {}
};

// The products over `size` numbers, a multiple of kLanes, of kRows rows of x with kColumns rows of y,
// summed up lane by lane: `sums_of_lanes` of sums[r * row_sums + c] is the dot product of r and c, with
// the same bits in a block of any form. `stride` is the floats from one row to the next. `ask_ahead` is
// called with the first number of each step: it may ask for what is computed with later.
template <int kRows, int kColumns, typename Number, typename AskAhead = NothingAhead>
inline void sum_products(const float* x, size_t stride, const Number* const* y, int32_t size, Vec* sums,
                         size_t row_sums, const AskAhead& ask_ahead = {}) {
  Vec in_registers[kRows * kColumns] = {};
  const auto row_at = [&](int r, int32_t d) {
    return simd::in_register(simd::load(x + static_cast<size_t>(r) * stride + d));
  };
  const auto add = [&](int r, int c, Vec row, Vec column) {
    Vec& sum = in_registers[r * kColumns + c];
    sum = simd::multiply_add(row, column, sum);
  };
  for (int32_t d = 0; d < size; d += kLanes) {
    ask_ahead(d);
    // The fewer are held in registers, and each of the others is used at once.
    if constexpr (kRows < kColumns) {
      Vec rows[kRows];
      for (int r = 0; r < kRows; ++r) rows[r] = row_at(r, d);
      for (int c = 0; c < kColumns; ++c) {
        const Vec column = load_number(y[c] + d);
        for (int r = 0; r < kRows; ++r) add(r, c, rows[r], column);
      }
    } else {
      Vec columns[kColumns];
      for (int c = 0; c < kColumns; ++c) columns[c] = load_number(y[c] + d);
      for (int r = 0; r < kRows; ++r) {
        const Vec row = row_at(r, d);
        for (int c = 0; c < kColumns; ++c) add(r, c, row, columns[c]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      sums[static_cast<size_t>(r) * row_sums + c] = in_registers[r * kColumns + c];
    }
  }
}

// The dot products themselves. `out_stride` is the floats from one row's to the next's.
template <int kRows, int kColumns, typename Number>
void dot_block(const float* x, size_t stride, const Number* const* y, int32_t size, float* out,
               size_t out_stride) {
  static_assert(kRows * kColumns == kLanes);
  Vec sums[kLanes];
  sum_products<kRows, kColumns>(x, stride, y, size, sums, kColumns);
  float block[kLanes];
  simd::store(block, simd::sums_of_lanes(sums));
  for (int r = 0; r < kRows; ++r) {
    std::memcpy(out + static_cast<size_t>(r) * out_stride, block + r * kColumns,
                kColumns * sizeof(float));
  }
}

}  // namespace
}  // namespace snapllm
