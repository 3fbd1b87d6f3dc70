// Attention of a tile's rows over one span of cells: scores, softmax, weighted values.
// Included by attention.cc alone, which is compiled for the machine's vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/attention_scratch.h"
#include "kernels/dot_block.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Cells whose rows are asked for ahead of their use.
constexpr int kCellsAhead = 16;
// With fewer rows than this, keys and values are converted where they are used.
constexpr int32_t kMinPackedRows = 8;

// The keys or the values of one head: row i is that of the i-th visible cell.
struct CellRows {
  const std::byte* data;
  size_t stride;
  const int32_t* cells;

  const uint16_t* operator[](int32_t i) const {
    return reinterpret_cast<const uint16_t*>(data + stride * static_cast<size_t>(cells[i]));
  }

  void prefetch(int32_t i, int32_t size) const {
    const uint16_t* row = (*this)[i];
    for (int32_t d = 0; d < size; d += 32) __builtin_prefetch(row + d);
  }
};

// Converts the rows of cells [first, last) to 32 bits; those up to `end` are wanted next.
void pack(const CellRows& rows, int32_t first, int32_t last, int32_t end, int32_t size,
          float* packed) {
  for (int32_t cell = first; cell < last; ++cell) {
    rows.prefetch(std::min(cell + kCellsAhead, end - 1), size);
    const uint16_t* row = rows[cell];
    for (int32_t d = 0; d < size; d += kLanes) simd::store(packed + d, simd::load_half(row + d));
    packed += size;
  }
}

// Scores of `num_rows` queries with kLanes keys.
void score_columns(const float* q, int32_t num_rows, const uint16_t* const* keys, int32_t size,
                   float* scores) {
  constexpr int kColumns = kLanes / 4;
  const auto stride = static_cast<size_t>(size);
  int32_t row = 0;
  for (; row + 4 <= num_rows; row += 4) {
    for (int c = 0; c < kLanes; c += kColumns) {
      dot_block<4, kColumns>(q + row * size, stride, keys + c, size,
                             scores + row * kSpanCells + c, kSpanCells);
    }
  }
  for (; row < num_rows; ++row) {
    dot_block<1, kLanes>(q + row * size, stride, keys, size, scores + row * kSpanCells, kSpanCells);
  }
}

// The keys of cells [first, last), fewer than kLanes only at the end, one number of all of them
// after the other: vector d of `packed` has number d of each.
void pack_across(const CellRows& keys, int32_t first, int32_t last, int32_t size, float* packed) {
  for (int32_t d = 0; d < size; d += kLanes) {
    Vec x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = simd::load_half(keys[std::min(first + i, last - 1)] + d);
    simd::transpose(x);
    for (int i = 0; i < kLanes; ++i) simd::store(packed + (d + i) * kLanes, x[i]);
  }
}

// Queries and groups of kLanes keys whose scores are computed together: as many sums as there are
// registers for, in the form that loads least.
constexpr int kScoreRows = 4;
constexpr int kScoreGroups = kLanes == 16 ? 1 : 2;

// The sums, for kRows queries and kGroups groups of keys, over lanes kLane, kLane + kStep, ... of
// what dot_block would have in its lanes, added up in its order.
template <int kRows, int kGroups, int kLane, int kStep>
void sum_lanes_across(const float* q, int32_t size, const float* packed, Vec (*sums)[kGroups]) {
  if constexpr (kStep < kLanes) {
    Vec others[kRows][kGroups];
    sum_lanes_across<kRows, kGroups, kLane, 2 * kStep>(q, size, packed, sums);
    sum_lanes_across<kRows, kGroups, kLane + kStep, 2 * kStep>(q, size, packed, others);
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) sums[r][g] += others[r][g];
    }
  } else {
    for (int r = 0; r < kRows; ++r) std::fill_n(sums[r], kGroups, Vec{});
    for (int32_t d = kLane; d < size; d += kLanes) {
      Vec columns[kGroups];
      for (int g = 0; g < kGroups; ++g) {
        columns[g] = simd::in_register(simd::load(packed + (g * size + d) * kLanes));
      }
      for (int r = 0; r < kRows; ++r) {
        const Vec x = simd::broadcast(q[r * size + d]);
        for (int g = 0; g < kGroups; ++g) {
          sums[r][g] = simd::multiply_add(x, columns[g], sums[r][g]);
        }
      }
    }
  }
}

// Scores of `num_rows` queries with kGroups groups of keys that `pack_across` packed one after the
// other: bit for bit those of dot_block, without its sums over lanes.
template <int kRows, int kGroups>
int32_t score_rows_across(const float* q, int32_t row, int32_t num_rows, const float* packed,
                          int32_t size, float* scores) {
  for (; row + kRows <= num_rows; row += kRows) {
    Vec sums[kRows][kGroups];
    sum_lanes_across<kRows, kGroups, 0, 1>(q + row * size, size, packed, sums);
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) {
        simd::store(scores + (row + r) * kSpanCells + g * kLanes, sums[r][g]);
      }
    }
  }
  return row;
}

template <int kGroups>
void score_across(const float* q, int32_t num_rows, const float* packed, int32_t size,
                  float* scores) {
  const int32_t row = score_rows_across<kScoreRows, kGroups>(q, 0, num_rows, packed, size, scores);
  score_rows_across<1, kGroups>(q, row, num_rows, packed, size, scores);
}

// Scores of `num_rows` queries with the keys of [first, last), and after them up to the
// next multiple of kLanes whatever comes out.
void score_span(const float* q, int32_t num_rows, const CellRows& keys, int32_t first,
                int32_t last, int32_t size, float* packed, float* scores) {
  const auto prefetch = [&](int32_t cell, int32_t end) {
    for (int32_t i = cell; i < end; ++i) keys.prefetch(std::min(i + kCellsAhead, last - 1), size);
  };
  int32_t cell = first;
  if (num_rows < kMinPackedRows) {
    for (; cell < last; cell += kLanes) {
      const int32_t end = std::min(cell + kLanes, last);
      prefetch(cell, end);
      const uint16_t* rows[kLanes];
      for (int i = 0; i < kLanes; ++i) rows[i] = keys[std::min(cell + i, end - 1)];
      score_columns(q, num_rows, rows, size, scores + (cell - first));
    }
    return;
  }
  const auto score = [&]<int kGroups>(std::integral_constant<int, kGroups>) {
    for (int g = 0; g < kGroups; ++g) {
      const int32_t begin = cell + g * kLanes;
      const int32_t end = std::min(begin + kLanes, last);
      prefetch(begin, end);
      pack_across(keys, begin, end, size, packed + g * size * kLanes);
    }
    score_across<kGroups>(q, num_rows, packed, size, scores + (cell - first));
    cell += kGroups * kLanes;
  };
  while (last - cell > (kScoreGroups - 1) * kLanes) {
    score(std::integral_constant<int, kScoreGroups>());
  }
  while (cell < last) score(std::integral_constant<int, 1>());
}

// Values in the rows that a list of cells points to, or one row after the other.
struct PackedRows {
  const float* data;
  int32_t size;
  const float* operator[](int32_t i) const { return data + i * size; }
};

// Adds the values of `num_cells` cells, each times its weight, to kVecs vectors of kRows
// rows of `out`.
template <int kRows, int kVecs, typename Rows>
void weigh_block(const float* weights, const Rows& values, int32_t first, int32_t num_cells,
                 int32_t offset, int32_t size, float* out) {
  Vec sums[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVecs; ++i) sums[r][i] = simd::load(out + r * size + offset + i * kLanes);
  }
  for (int32_t cell = 0; cell < num_cells; ++cell) {
    const auto* row = values[first + cell] + offset;
    Vec x[kVecs];
    for (int i = 0; i < kVecs; ++i) x[i] = load_number(row + i * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = simd::broadcast(weights[r * kSpanCells + cell]);
      for (int i = 0; i < kVecs; ++i) sums[r][i] = simd::multiply_add(weight, x[i], sums[r][i]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVecs; ++i) simd::store(out + r * size + offset + i * kLanes, sums[r][i]);
  }
}

template <int kRows, int kVecs, typename Rows>
void weigh_rows(const float* weights, const Rows& values, int32_t first, int32_t num_cells,
                int32_t size, float* out) {
  int32_t offset = 0;
  for (; offset + kVecs * kLanes <= size; offset += kVecs * kLanes) {
    weigh_block<kRows, kVecs>(weights, values, first, num_cells, offset, size, out);
  }
  for (; offset < size; offset += kLanes) {
    weigh_block<kRows, 1>(weights, values, first, num_cells, offset, size, out);
  }
}

// Values of `num_rows` rows over cells [begin, end) of a span, whose values are those from number
// `at` on. Row r sees the first counts[r] cells of the span, no fewer than the row before it; what
// it does not see may be infinite, and is not even weighed with 0.
template <typename Rows>
void weigh_cells(const float* weights, const int32_t* counts, int32_t num_rows, const Rows& values,
                 int32_t at, int32_t begin, int32_t end, int32_t size, float* out) {
  constexpr int kVecs = kLanes == 16 ? 4 : 2;  // as many sums as there are registers for
  const auto end_of = [&](int32_t row) { return std::clamp(counts[row], begin, end); };
  const auto weigh_alone = [&](int32_t row, int32_t from) {
    weigh_rows<1, 4>(weights + row * kSpanCells + from, values, at + from - begin,
                     end_of(row) - from, size, out + row * size);
  };
  int32_t row = 0;
  for (; row + 4 <= num_rows; row += 4) {
    const int32_t common = end_of(row);
    weigh_rows<4, kVecs>(weights + row * kSpanCells + begin, values, at, common - begin, size,
                         out + row * size);
    for (int32_t r = row + 1; r < row + 4; ++r) {
      if (end_of(r) > common) weigh_alone(r, common);
    }
  }
  for (; row < num_rows; ++row) weigh_alone(row, begin);
}

// The sums of the values of [first, last), each times its weight, over those that each row sees.
void weigh_span(const float* weights, const int32_t* counts, int32_t num_rows,
                const CellRows& values, int32_t first, int32_t last, int32_t size, float* packed,
                float* out) {
  std::fill_n(out, num_rows * size, 0.0F);
  if (num_rows < kMinPackedRows) {
    weigh_cells(weights, counts, num_rows, values, first, 0, last - first, size, out);
    return;
  }
  for (int32_t cell = first; cell < last; cell += kPackedCells) {
    const int32_t end = std::min(cell + kPackedCells, last);
    pack(values, cell, end, last, size, packed);
    weigh_cells(weights, counts, num_rows, PackedRows{packed, size}, 0, cell - first, end - first,
                size, out);
  }
}

// Turns the first `count` of `num_cells` scores of a row into weights relative to their
// maximum, and the rest into 0.
SoftmaxState softmax_span(float* scores, int32_t count, int32_t num_cells, float scale,
                          float softcap, const float* biases) {
  const Vec none = simd::broadcast(kMinusInfinity);
  const int32_t padded = (num_cells + kLanes - 1) / kLanes * kLanes;
  Vec highest = none;
  for (int32_t i = 0; i < padded; i += kLanes) {
    Vec x = simd::load(scores + i) * scale;
    if (softcap != 0) x = simd::tanh(x) * softcap;
    if (biases != nullptr) x += simd::load(biases + i);
    if (i + kLanes > count) {
      for (int lane = std::max(0, count - i); lane < kLanes; ++lane) x[lane] = kMinusInfinity;
    }
    simd::store(scores + i, x);
    highest = simd::max(highest, x);
  }
  SoftmaxState state{simd::max_of_lanes(highest), 0.0F};
  const Vec shift = simd::broadcast(count > 0 ? state.max : 0.0F);
  Vec sum = {};
  const auto weigh = [&]<int kVecs>(std::integral_constant<int, kVecs>, int32_t i) {
    Vec weights[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      weights[v] = simd::exp(simd::load(scores + i + v * kLanes) - shift);
    }
    for (int v = 0; v < kVecs; ++v) {
      simd::store(scores + i + v * kLanes, weights[v]);
      sum += weights[v];
    }
  };
  constexpr int kTogether = 4;  // each step of the exponential waits for the one before it
  int32_t i = 0;
  for (; i + kTogether * kLanes <= padded; i += kTogether * kLanes) {
    weigh(std::integral_constant<int, kTogether>(), i);
  }
  for (; i < padded; i += kLanes) weigh(std::integral_constant<int, 1>(), i);
  state.sum = simd::sum_of_lanes(sum);
  return state;
}

// Takes another span's weighted values into those so far. The smaller of the two maxima
// gives way to the other, so that one product with one sum is all there is to round.
void merge(SoftmaxState& total, float* values, const SoftmaxState& span, const float* span_values,
           int32_t size) {
  if (span.max == kMinusInfinity) return;
  if (span.max > total.max) {
    const float keep = std::exp(total.max - span.max);
    total = {span.max, total.sum * keep + span.sum};
    for (int32_t d = 0; d < size; d += kLanes) {
      simd::store(values + d, simd::multiply_add(simd::load(values + d), simd::broadcast(keep),
                                                 simd::load(span_values + d)));
    }
  } else {
    const float take = std::exp(span.max - total.max);
    total.sum += span.sum * take;
    for (int32_t d = 0; d < size; d += kLanes) {
      simd::store(values + d, simd::multiply_add(simd::load(span_values + d),
                                                 simd::broadcast(take), simd::load(values + d)));
    }
  }
}

}  // namespace
}  // namespace snapllm
