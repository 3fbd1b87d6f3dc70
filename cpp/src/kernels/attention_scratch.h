// How `attend` lays out its scratch memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/attention.h"
#include "kernels/query_tiles.h"

namespace snapllm {

// Cells over which a softmax is computed at once.
inline constexpr int32_t kSpanCells = 256;
// Cells whose keys or values are converted to 32 bits at once, at most: few enough for
// the nearest cache.
inline constexpr int32_t kPackedCells = 64;

// Of weights relative to `max`: their sum.
struct SoftmaxState {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0F;
};

inline int32_t num_spans(int32_t num_cells) { return (num_cells + kSpanCells - 1) / kSpanCells; }

// Queries that are computed together: few enough for their scores to stay in the cache.
int32_t max_tile_queries(const AttentionShape& shape);

// KV heads of a tile that are computed side by side, each of which has `num_rows` rows.
int32_t max_heads_together(int32_t num_rows);

// Each thread's own areas, and after them the partial results that threads exchange
// where there are too few queries and heads to give each thread its share of those.
class AttentionScratch {
 public:
  AttentionScratch(const AttentionShape& shape, int thread, int num_threads, std::byte* memory);

  QueryTile* tiles() const { return tiles_; }
  QueryTile* chains() const { return chains_; }      // for find_tiles
  int32_t* order() const { return order_; }          // of the queries in the tiles
  int32_t* counts() const { return counts_; }        // visible cells of each query
  int32_t* cells() const { return cells_; }          // visible in the current run
  float* biases() const { return biases_; }          // of those cells
  float* span_biases() const { return span_biases_; }
  float* queries() const { return queries_; }        // [head][row][key_size]
  float* packed() const { return packed_; }          // keys or values in 32 bits
  float* scores() const { return scores_; }          // [row][kSpanCells]
  int32_t* row_counts() const { return row_counts_; }  // visible cells of each row, of a span
  SoftmaxState* states() const { return states_; }   // [row], of a span
  SoftmaxState* totals() const { return totals_; }   // [head][row]
  float* values() const { return values_; }          // [row][value_size], of a span
  float* total_values() const { return total_values_; }  // [head][row][value_size]

  bool has_partials() const { return partial_states_ != nullptr; }
  SoftmaxState* partial_states() const { return partial_states_; }
  float* partial_values(size_t index) const {
    return partial_values_ + index * static_cast<size_t>(value_size_);
  }

  // Bytes for all threads.
  static size_t size(const AttentionShape& shape, int num_threads);

 private:
  template <typename T>
  static T* take(std::byte*& at, size_t count);
  // Sets the pointers; returns the end of what they point to.
  std::byte* lay_out(const AttentionShape& shape, std::byte* own);
  std::byte* lay_out_partials(const AttentionShape& shape, int num_threads, std::byte* shared);
  AttentionScratch() = default;

  int32_t value_size_ = 0;
  QueryTile* tiles_ = nullptr;
  QueryTile* chains_ = nullptr;
  int32_t* order_ = nullptr;
  int32_t* counts_ = nullptr;
  int32_t* cells_ = nullptr;
  float* biases_ = nullptr;
  float* span_biases_ = nullptr;
  float* queries_ = nullptr;
  float* packed_ = nullptr;
  float* scores_ = nullptr;
  int32_t* row_counts_ = nullptr;
  SoftmaxState* states_ = nullptr;
  SoftmaxState* totals_ = nullptr;
  float* values_ = nullptr;
  float* total_values_ = nullptr;
  SoftmaxState* partial_states_ = nullptr;
  float* partial_values_ = nullptr;
};

}  // namespace snapllm
