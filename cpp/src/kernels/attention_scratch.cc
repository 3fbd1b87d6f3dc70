#include "kernels/attention_scratch.h"

#include <algorithm>

namespace snapllm {
namespace {

constexpr size_t kAlignment = 64;
// Of a tile: rows that share what is made of keys and values, and queries, the first of which do not
// see what the last ones see.
constexpr int32_t kMaxTileRows = 256;
constexpr int32_t kMaxTileQueries = 64;
// Rows of several heads whose values are added up side by side: few enough for a near cache.
constexpr int32_t kMaxRowsTogether = 1024;
// With fewer queries for a thread than this, spans of the memory are shared out, and not heads:
// those of a cell lie one beside the other.
constexpr int kMinQueriesPerThread = 4;
// What the threads may exchange then: llama.cpp keeps the memory, as long as the model is loaded.
constexpr size_t kMaxPartialBytes = size_t{128} << 20;

size_t num_queries(const AttentionShape& shape) {
  return static_cast<size_t>(shape.num_queries) * static_cast<size_t>(shape.num_batches);
}

// Of each query, head and span.
size_t num_partials(const AttentionShape& shape) {
  return num_queries(shape) * static_cast<size_t>(shape.num_heads) *
         static_cast<size_t>(num_spans(shape.num_cells));
}

bool wants_partials(const AttentionShape& shape, int num_threads) {
  const size_t bytes_each =
      sizeof(SoftmaxState) + static_cast<size_t>(shape.value_size) * sizeof(float);
  return num_threads > 1 &&
         num_queries(shape) < static_cast<size_t>(kMinQueriesPerThread * num_threads) &&
         num_partials(shape) * bytes_each <= kMaxPartialBytes;
}

}  // namespace

int32_t max_tile_queries(const AttentionShape& shape) {
  const int32_t group = shape.num_heads / shape.num_kv_heads;
  return std::clamp(kMaxTileRows / group, 1, kMaxTileQueries);
}

int32_t max_heads_together(int32_t num_rows) { return std::max(1, kMaxRowsTogether / num_rows); }

template <typename T>
T* AttentionScratch::take(std::byte*& at, size_t count) {
  T* const taken = reinterpret_cast<T*>(at);
  at += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  return taken;
}

std::byte* AttentionScratch::lay_out(const AttentionShape& shape, std::byte* own) {
  const int32_t group = shape.num_heads / shape.num_kv_heads;
  const auto rows = static_cast<size_t>(
      std::min<int64_t>(max_tile_queries(shape), shape.num_queries) * group);
  const auto num_cells = static_cast<size_t>(shape.num_cells);
  value_size_ = shape.value_size;
  tiles_ = take<QueryTile>(own, num_queries(shape));
  chains_ = take<QueryTile>(own, static_cast<size_t>(shape.num_queries));
  order_ = take<int32_t>(own, num_queries(shape));
  counts_ = take<int32_t>(own, num_queries(shape));
  cells_ = take<int32_t>(own, num_cells);
  biases_ = take<float>(own, num_cells);
  span_biases_ = take<float>(own, kSpanCells);
  const auto all_rows = std::max<size_t>(
      rows, std::min<size_t>(rows * static_cast<size_t>(shape.num_kv_heads), kMaxRowsTogether));
  queries_ = take<float>(own, all_rows * static_cast<size_t>(shape.key_size));
  packed_ = take<float>(own, kPackedCells * static_cast<size_t>(
                                                std::max(shape.key_size, shape.value_size)));
  scores_ = take<float>(own, rows * kSpanCells);
  row_counts_ = take<int32_t>(own, rows);
  states_ = take<SoftmaxState>(own, rows);
  totals_ = take<SoftmaxState>(own, all_rows);
  values_ = take<float>(own, rows * static_cast<size_t>(shape.value_size));
  total_values_ = take<float>(own, all_rows * static_cast<size_t>(shape.value_size));
  return own;
}

std::byte* AttentionScratch::lay_out_partials(const AttentionShape& shape, int num_threads,
                                              std::byte* shared) {
  if (!wants_partials(shape, num_threads)) return shared;
  const size_t count = num_partials(shape);
  partial_states_ = take<SoftmaxState>(shared, count);
  partial_values_ = take<float>(shared, count * static_cast<size_t>(shape.value_size));
  return shared;
}

size_t AttentionScratch::size(const AttentionShape& shape, int num_threads) {
  alignas(kAlignment) static std::byte origin[1];
  AttentionScratch layout;
  const auto own = static_cast<size_t>(layout.lay_out(shape, origin) - origin);
  const auto shared =
      static_cast<size_t>(layout.lay_out_partials(shape, num_threads, origin) - origin);
  return kAlignment + own * static_cast<size_t>(num_threads) + shared;
}

AttentionScratch::AttentionScratch(const AttentionShape& shape, int thread, int num_threads,
                                   std::byte* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  std::byte* const start = memory + (kAlignment - address % kAlignment) % kAlignment;
  std::byte* const end = lay_out(shape, start);
  const auto own = static_cast<size_t>(end - start);
  lay_out(shape, start + own * static_cast<size_t>(thread));
  lay_out_partials(shape, num_threads, start + own * static_cast<size_t>(num_threads));
}

size_t attention_scratch_bytes(const AttentionShape& shape, int num_threads) {
  return AttentionScratch::size(shape, num_threads);
}

}  // namespace snapllm
