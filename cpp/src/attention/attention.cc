#include "attention/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "attention/attention_scratch.h"
#include "attention/simd.h"
#include "attention/visible_cells.h"

namespace snapllm {
namespace {

using simd::kLanes;
using simd::Vec;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Cells whose keys are asked for ahead of their use.
constexpr int kCellsAhead = 16;

// The keys or the values of one head: row i is that of the i-th visible cell.
struct CellRows {
  const std::byte* data;
  size_t stride;
  const int32_t* cells;

  const uint16_t* operator[](int32_t i) const {
    return reinterpret_cast<const uint16_t*>(data + stride * static_cast<size_t>(cells[i]));
  }
};

void prefetch(const uint16_t* row, int32_t size) {
  for (int32_t i = 0; i < size; i += 32) __builtin_prefetch(row + i);
}

// Scores of kRows queries, `size` numbers apart, with the kColumns keys from `first` on;
// keys at and after `last` are taken for the one before it.
template <int kRows, int kColumns>
void score_block(const float* q, const CellRows& keys, int32_t first, int32_t last, int32_t size,
                 float* scores) {
  static_assert(kRows * kColumns == kLanes);
  const uint16_t* rows[kColumns];
  for (int c = 0; c < kColumns; ++c) rows[c] = keys[std::min(first + c, last - 1)];
  Vec sums[kLanes] = {};
  for (int32_t d = 0; d < size; d += kLanes) {
    Vec k[kColumns];
    for (int c = 0; c < kColumns; ++c) k[c] = simd::load_half(rows[c] + d);
    for (int r = 0; r < kRows; ++r) {
      const Vec x = simd::load(q + r * size + d);
      for (int c = 0; c < kColumns; ++c) sums[r * kColumns + c] += x * k[c];
    }
  }
  float block[kLanes];
  simd::store(block, simd::sums_of_lanes(sums));
  for (int r = 0; r < kRows; ++r) {
    std::memcpy(scores + r * kSpanCells, block + r * kColumns, kColumns * sizeof(float));
  }
}

// Scores of `num_rows` queries with the keys of `first` to `last`.
void score_span(const float* q, int32_t num_rows, const CellRows& keys, int32_t first,
                int32_t last, int32_t size, float* scores) {
  constexpr int kColumns = kLanes / 4;
  for (int32_t cell = first; cell < last; cell += kLanes) {
    for (int c = 0; c < kLanes; ++c) {
      prefetch(keys[std::min(cell + kCellsAhead + c, last - 1)], size);
    }
    float* out = scores + (cell - first);
    int32_t row = 0;
    for (; row + 4 <= num_rows; row += 4) {
      for (int c = 0; c < kLanes && cell + c < last; c += kColumns) {
        score_block<4, kColumns>(q + row * size, keys, cell + c, last, size,
                                 out + row * kSpanCells + c);
      }
    }
    for (; row < num_rows; ++row) {
      score_block<1, kLanes>(q + row * size, keys, cell, last, size, out + row * kSpanCells);
    }
  }
}

// Adds the values of `num_cells` cells, each times its weight, into kVecs vectors of
// kRows rows of `out`.
template <int kRows, int kVecs>
void weigh_block(const float* weights, const CellRows& values, int32_t first, int32_t num_cells,
                 int32_t offset, int32_t size, float* out) {
  Vec sums[kRows][kVecs] = {};
  for (int32_t cell = 0; cell < num_cells; ++cell) {
    const uint16_t* row = values[first + cell] + offset;
    Vec x[kVecs];
    for (int i = 0; i < kVecs; ++i) x[i] = simd::load_half(row + i * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = simd::broadcast(weights[r * kSpanCells + cell]);
      for (int i = 0; i < kVecs; ++i) sums[r][i] += weight * x[i];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kVecs; ++i) simd::store(out + r * size + offset + i * kLanes, sums[r][i]);
  }
}

template <int kRows, int kVecs>
void weigh_rows(const float* weights, const CellRows& values, int32_t first, int32_t num_cells,
                int32_t size, float* out) {
  int32_t offset = 0;
  for (; offset + kVecs * kLanes <= size; offset += kVecs * kLanes) {
    weigh_block<kRows, kVecs>(weights, values, first, num_cells, offset, size, out);
  }
  for (; offset < size; offset += kLanes) {
    weigh_block<kRows, 1>(weights, values, first, num_cells, offset, size, out);
  }
}

void weigh_span(const float* weights, int32_t num_rows, const CellRows& values, int32_t first,
                int32_t num_cells, int32_t size, float* out) {
  constexpr int kVecs = kLanes == 16 ? 4 : 2;  // as many sums as there are registers for
  int32_t row = 0;
  for (; row + 4 <= num_rows; row += 4) {
    weigh_rows<4, kVecs>(weights + row * kSpanCells, values, first, num_cells, size,
                         out + row * size);
  }
  for (; row < num_rows; ++row) {
    weigh_rows<1, 4>(weights + row * kSpanCells, values, first, num_cells, size,
                     out + row * size);
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
  for (int32_t i = 0; i < padded; i += kLanes) {
    const Vec weight = simd::exp(simd::load(scores + i) - shift);
    simd::store(scores + i, weight);
    sum += weight;
  }
  state.sum = simd::sum_of_lanes(sum);
  return state;
}

// Takes another span's weighted values into those so far.
void merge(SoftmaxState& total, float* values, const SoftmaxState& span, const float* span_values,
           int32_t size) {
  if (span.max == kMinusInfinity) return;
  const float highest = std::max(total.max, span.max);
  const float keep = std::exp(total.max - highest);
  const float take = std::exp(span.max - highest);
  total.max = highest;
  total.sum = total.sum * keep + span.sum * take;
  for (int32_t d = 0; d < size; d += kLanes) {
    simd::store(values + d, simd::load(values + d) * keep + simd::load(span_values + d) * take);
  }
}

// The slope of a head as the ALiBi paper has it.
float alibi_slope(float max_bias, int32_t num_heads, int32_t head) {
  if (max_bias <= 0) return 1.0F;
  const int32_t power = 1 << static_cast<int32_t>(std::floor(std::log2(num_heads)));
  if (head < power) return std::pow(std::exp2(-max_bias / power), head + 1);
  return std::pow(std::exp2(-max_bias / 2 / power), 2 * (head - power) + 1);
}

// One thread's share of the work.
class Worker {
 public:
  Worker(const AttentionArgs& args, int thread, int num_threads, std::byte* scratch)
      : args_(args),
        shape_(args.shape),
        thread_(thread),
        num_threads_(num_threads),
        group_(shape_.num_heads / shape_.num_kv_heads),
        scratch_(shape_, thread, num_threads, scratch) {}

  void run(void (*barrier)(void*), void* context) {
    find_tiles();
    if (scratch_.has_partials()) {
      compute_spans();
      barrier(context);
      merge_spans();
    } else {
      compute_tiles();
    }
  }

 private:
  std::span<const uint16_t> mask_row(int32_t batch, int32_t query) const {
    const std::byte* row = args_.mask.data + static_cast<size_t>(batch) * args_.mask.batch_stride +
                           static_cast<size_t>(query) * args_.mask.row_stride;
    return {reinterpret_cast<const uint16_t*>(row), static_cast<size_t>(shape_.num_cells)};
  }

  // Whether the cells of `query` begin with all those of the query before it.
  bool follows(int32_t batch, int32_t query) const {
    if (args_.mask.data == nullptr) return true;
    const auto before = mask_row(batch, query - 1);
    const auto row = mask_row(batch, query);
    if (has_bias(row)) return false;
    const auto end = static_cast<size_t>(visible_end(before));
    return std::memcmp(before.data(), row.data(), end * sizeof(uint16_t)) == 0;
  }

  void find_tiles() {
    const int32_t most = max_tile_queries(shape_);
    for (int32_t batch = 0; batch < shape_.num_batches; ++batch) {
      for (int32_t query = 0; query < shape_.num_queries; ++query) {
        const int32_t count = args_.mask.data == nullptr ? shape_.num_cells
                                                         : num_visible(mask_row(batch, query));
        scratch_.counts()[batch * shape_.num_queries + query] = count;
        QueryTile* last = num_tiles_ == 0 ? nullptr : &scratch_.tiles()[num_tiles_ - 1];
        if (last != nullptr && last->batch == batch && last->num_queries < most &&
            follows(batch, query)) {
          ++last->num_queries;
          last->num_cells = count;
        } else {
          scratch_.tiles()[num_tiles_++] = {batch, query, 1, count};
        }
      }
    }
  }

  // Calls `work(unit)` for this thread's share of `num_units` of the tile, which together
  // weigh `weight`; all tiles together weigh `total`.
  template <typename Work>
  void share(int64_t& before, int64_t total, int32_t num_units, int64_t weight, Work&& work) {
    for (int32_t unit = 0; unit < num_units; ++unit) {
      const int64_t start = before + weight * unit / num_units;
      if (start * num_threads_ / total == thread_) work(unit);
    }
    before += weight;
  }

  static int64_t weight(const QueryTile& tile) {
    constexpr int64_t kQueryWeight = 32;  // what a query costs besides its cells
    return tile.num_queries * (tile.num_cells + kQueryWeight);
  }

  int64_t total_weight() const {
    int64_t total = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) total += weight(scratch_.tiles()[i]);
    return total;
  }

  void compute_tiles() {
    const int64_t total = total_weight();
    int64_t before = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      share(before, total, shape_.num_kv_heads, weight(tile), [&](int32_t head) {
        enter(i);
        load_queries(tile, head);
        const int32_t rows = tile.num_queries * group_;
        std::fill_n(scratch_.totals(), rows, SoftmaxState{});
        std::fill_n(scratch_.total_values(), rows * shape_.value_size, 0.0F);
        for (int32_t first = 0; first < tile.num_cells; first += kSpanCells) {
          compute_span(tile, head, first, scratch_.states(), scratch_.values());
          for (int32_t row = 0; row < rows; ++row) {
            merge(scratch_.totals()[row], scratch_.total_values() + row * shape_.value_size,
                  scratch_.states()[row], scratch_.values() + row * shape_.value_size,
                  shape_.value_size);
          }
        }
        for (int32_t row = 0; row < rows; ++row) {
          finish(tile, head, row, scratch_.totals()[row],
                 scratch_.total_values() + row * shape_.value_size);
        }
      });
    }
  }

  void compute_spans() {
    const int64_t total = total_weight();
    int64_t before = 0;
    size_t partial = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      const int32_t rows = tile.num_queries * group_;
      const int32_t units = num_spans(tile.num_cells) * shape_.num_kv_heads;
      share(before, total, units, weight(tile), [&](int32_t unit) {
        const int32_t head = unit % shape_.num_kv_heads;
        const size_t at = partial + static_cast<size_t>(unit * rows);
        enter(i);
        load_queries(tile, head);
        compute_span(tile, head, unit / shape_.num_kv_heads * kSpanCells,
                     scratch_.partial_states() + at, scratch_.partial_values(at));
      });
      partial += static_cast<size_t>(units * rows);
    }
  }

  void merge_spans() {
    size_t partial = 0;
    int32_t row_index = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      const int32_t rows = tile.num_queries * group_;
      const int32_t spans = num_spans(tile.num_cells);
      for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
        for (int32_t row = 0; row < rows; ++row) {
          if (row_index++ % num_threads_ != thread_) continue;
          SoftmaxState state;
          float* values = scratch_.total_values();
          std::fill_n(values, shape_.value_size, 0.0F);
          for (int32_t span = 0; span < spans; ++span) {
            const size_t at =
                partial + static_cast<size_t>((span * shape_.num_kv_heads + head) * rows + row);
            merge(state, values, scratch_.partial_states()[at], scratch_.partial_values(at),
                  shape_.value_size);
          }
          finish(tile, head, row, state, values);
        }
      }
      partial += static_cast<size_t>(spans * shape_.num_kv_heads * rows);
    }
  }

  // Lists the cells of a tile, once while the thread works on it.
  void enter(int32_t index) {
    if (current_tile_ == index) return;
    current_tile_ = index;
    const QueryTile& tile = scratch_.tiles()[index];
    int32_t* cells = scratch_.cells();
    biases_ = nullptr;
    if (args_.mask.data == nullptr) {
      for (int32_t i = 0; i < shape_.num_cells; ++i) cells[i] = i;
      return;
    }
    const auto row = mask_row(tile.batch, tile.first_query + tile.num_queries - 1);
    list_visible(row, cells);
    if (!has_bias(row)) return;
    biases_ = scratch_.biases();
    for (int32_t i = 0; i < tile.num_cells; ++i) biases_[i] = simd::half_to_float(row[cells[i]]);
  }

  int32_t head_of(int32_t kv_head, int32_t row) const { return kv_head * group_ + row % group_; }

  void load_queries(const QueryTile& tile, int32_t kv_head) {
    const auto size = static_cast<size_t>(shape_.key_size);
    for (int32_t row = 0; row < tile.num_queries * group_; ++row) {
      const std::byte* from =
          args_.q.data + static_cast<size_t>(tile.batch) * args_.q.batch_stride +
          static_cast<size_t>(tile.first_query + row / group_) * args_.q.row_stride +
          static_cast<size_t>(head_of(kv_head, row)) * args_.q.head_stride;
      std::memcpy(scratch_.queries() + static_cast<size_t>(row) * size, from,
                  size * sizeof(float));
    }
  }

  CellRows rows_of(const AttentionTensor& tensor, int32_t batch, int32_t kv_head) const {
    return {tensor.data + static_cast<size_t>(batch) * tensor.batch_stride +
                static_cast<size_t>(kv_head) * tensor.head_stride,
            tensor.row_stride, scratch_.cells()};
  }

  // The weighted values of the tile's rows over the span that begins at `first`.
  void compute_span(const QueryTile& tile, int32_t kv_head, int32_t first, SoftmaxState* states,
                    float* values) {
    const int32_t last = std::min(first + kSpanCells, tile.num_cells);
    const int32_t rows = tile.num_queries * group_;
    float* scores = scratch_.scores();
    score_span(scratch_.queries(), rows, rows_of(args_.k, tile.batch, kv_head), first, last,
               shape_.key_size, scores);
    const bool is_capped = args_.softcap != 0;
    const float scale = is_capped ? args_.scale / args_.softcap : args_.scale;
    for (int32_t row = 0; row < rows; ++row) {
      const int32_t query = tile.batch * shape_.num_queries + tile.first_query + row / group_;
      const int32_t count = std::clamp(scratch_.counts()[query] - first, 0, last - first);
      states[row] = softmax_span(scores + row * kSpanCells, count, last - first, scale,
                                 args_.softcap, sloped_biases(head_of(kv_head, row), first, last));
    }
    weigh_span(scores, rows, rows_of(args_.v, tile.batch, kv_head), first, last - first,
               shape_.value_size, values);
  }

  // A tile with biases has one query; those of one span times the head's slope.
  const float* sloped_biases(int32_t head, int32_t first, int32_t last) {
    if (biases_ == nullptr) return nullptr;
    const float slope = alibi_slope(args_.max_bias, shape_.num_heads, head);
    float* sloped = scratch_.span_biases();
    for (int32_t i = first; i < last; ++i) sloped[i - first] = biases_[i] * slope;
    return sloped;
  }

  void finish(const QueryTile& tile, int32_t kv_head, int32_t row, SoftmaxState state,
              float* values) {
    const int32_t head = head_of(kv_head, row);
    if (args_.sinks != nullptr) {
      // Its value is nothing: only the sum of the weights grows.
      const float highest = std::max(state.max, args_.sinks[head]);
      const float keep = std::exp(state.max - highest);
      state.sum = state.sum * keep + std::exp(args_.sinks[head] - highest);
      for (int32_t d = 0; d < shape_.value_size; ++d) values[d] *= keep;
    }
    const float factor = state.sum == 0 ? 0.0F : 1.0F / state.sum;
    const int32_t query = tile.batch * shape_.num_queries + tile.first_query + row / group_;
    float* out =
        args_.out + (static_cast<size_t>(query) * static_cast<size_t>(shape_.num_heads) +
                     static_cast<size_t>(head)) *
                        static_cast<size_t>(shape_.value_size);
    for (int32_t d = 0; d < shape_.value_size; ++d) out[d] = values[d] * factor;
  }

  const AttentionArgs& args_;
  const AttentionShape& shape_;
  const int thread_;
  const int num_threads_;
  const int32_t group_;  // heads that share a KV head
  AttentionScratch scratch_;
  int32_t num_tiles_ = 0;
  int32_t current_tile_ = -1;
  float* biases_ = nullptr;  // of the current tile
};

}  // namespace

bool can_attend(const AttentionShape& shape) {
  return shape.key_size > 0 && shape.key_size % kLanes == 0 && shape.value_size > 0 &&
         shape.value_size % kLanes == 0 && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0;
}

void attend(const AttentionArgs& args, int thread, int num_threads, std::byte* scratch,
            void (*barrier)(void*), void* context) {
  Worker(args, thread, num_threads, scratch).run(barrier, context);
}

}  // namespace snapllm
