#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/attention_scratch.h"
#include "kernels/helpers.h"
#include "kernels/query_tiles.h"
#include "kernels/span_kernel.h"
#include "kernels/visible_cells.h"

namespace snapllm {
namespace {

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
  Worker(const AttentionArgs& args, const Team& team, std::byte* scratch)
      : args_(args),
        shape_(args.shape),
        team_(team),
        group_(shape_.num_heads / shape_.num_kv_heads),
        scratch_(shape_, team.thread, team.num_threads, scratch) {}

  // A thread that computes beside the team's only one.
  Worker(const AttentionArgs& args, std::byte* scratch, const Helpers::Claim* claim)
      : args_(args),
        shape_(args.shape),
        team_(),
        group_(shape_.num_heads / shape_.num_kv_heads),
        scratch_(shape_, 0, 1, scratch),
        claim_(claim) {}

  void run() {
    find_tiles();
    if (team_.helpers != nullptr && run_helped()) return;
    if (scratch_.has_partials()) {
      compute_spans();
      team_.wait_for_all(team_.context);
      merge_spans();
      return;
    }
    const int shares = num_shares(cost(), team_.num_threads);
    if (shares > team_.num_threads) {
      take_tiles(shares);
    } else {
      compute_tiles();
    }
  }

 private:
  MaskRows mask_of(int32_t batch) const {
    const auto num_cells = static_cast<size_t>(shape_.num_cells);
    if (args_.mask.data == nullptr) return {nullptr, 0, num_cells};
    return {args_.mask.data + static_cast<size_t>(batch) * args_.mask.batch_stride,
            args_.mask.row_stride, num_cells};
  }

  void find_tiles() {
    for (int32_t batch = 0; batch < shape_.num_batches; ++batch) {
      const int32_t first = batch * shape_.num_queries;
      num_tiles_ += snapllm::find_tiles(
          mask_of(batch), args_.order, shape_.num_queries, max_tile_queries(shape_), batch,
          {scratch_.tiles() + num_tiles_, scratch_.chains(), scratch_.order() + first,
           scratch_.counts() + first});
    }
  }

  // Query `index` of the tile, of its batch's.
  int32_t query_of(const QueryTile& tile, int32_t index) const {
    return scratch_.order()[tile.batch * shape_.num_queries + tile.first + index];
  }

  int32_t count_of(const QueryTile& tile, int32_t index) const {
    return scratch_.counts()[tile.batch * shape_.num_queries + query_of(tile, index)];
  }

  TileRun run(const QueryTile& tile, int32_t index) const {
    return run_of(tile, index, [&](int32_t query) { return count_of(tile, query); });
  }

  // Calls `work(unit)` for this thread's share of `num_units` of the tile, which together
  // weigh `weight`; all tiles together weigh `total`.
  template <typename Work>
  void share(int64_t& before, int64_t total, int32_t num_units, int64_t weight, Work&& work) {
    for (int32_t unit = 0; unit < num_units; ++unit) {
      const int64_t start = before + weight * unit / num_units;
      if (start * team_.num_threads / total == team_.thread) work(unit);
    }
    before += weight;
  }

  static int64_t weight(const TileRun& run) {
    constexpr int64_t kQueryWeight = 32;  // what a query costs besides its cells
    return run.num_queries * (run.end - run.begin + kQueryWeight);
  }

  int64_t weight(const QueryTile& tile) const {
    int64_t sum = 0;
    for (int32_t i = 0; i < num_runs(tile); ++i) sum += weight(run(tile, i));
    return sum;
  }

  int64_t total_weight() const {
    int64_t total = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) total += weight(scratch_.tiles()[i]);
    return total;
  }

  // Multiply-adds of all tiles.
  double cost() const {
    return static_cast<double>(total_weight()) * shape_.num_heads *
           (shape_.key_size + shape_.value_size);
  }

  // Parts of each tile, so that there are at least so many shares, if there are heads for them.
  int32_t num_parts(int shares) const {
    return std::min((shares + num_tiles_ - 1) / num_tiles_, shape_.num_kv_heads);
  }

  // A share's heads of its tile.
  struct Part {
    int32_t tile;
    int32_t first_head;
    int32_t end_head;
  };
  Part part_of(int share, int32_t parts) const {
    const int32_t part = share % parts;
    return {share / parts, shape_.num_kv_heads * part / parts,
            shape_.num_kv_heads * (part + 1) / parts};
  }

  void compute_part(int share, int32_t parts) {
    const Part part = part_of(share, parts);
    compute_heads(part.tile, part.first_head, part.end_head);
  }

  void take_tiles(int shares) {
    const int32_t parts = num_parts(shares);
    begin_taking(team_);
    take_shares(team_, num_tiles_ * parts, [&](int share) { compute_part(share, parts); });
  }

  // Returns false where help is of no use.
  bool run_helped() {
    constexpr double kMinCost = 1 << 16;  // of a share, in multiply-adds, next to which taking it is nothing
    constexpr int kSharesPerThread = 8;
    const int shares = static_cast<int>(
        std::min(cost() / kMinCost, 1.0 * kSharesPerThread * (1 + team_.helpers->num_threads())));
    if (shares < 2) return false;
    const int32_t parts = num_parts(shares);
    if (num_tiles_ * parts < 2 || num_tiles_ * parts > Helpers::kMaxShares) return false;
    team_.helpers->run(SharedParts{args_, this, scratch_.tiles(), scratch_.order(),
                                   scratch_.counts(), num_tiles_, parts},
                       num_tiles_ * parts);
    return true;
  }

  // Parts of tiles as work that helpers take shares of.
  struct SharedParts {
    AttentionArgs args;
    Worker* worker;  // of the thread that is helped, and what it found:
    const QueryTile* tiles;
    const int32_t* order;
    const int32_t* counts;
    int32_t num_tiles;
    int32_t parts;

    void compute(int share) const { worker->compute_part(share, parts); }

    size_t apart_bytes(int) const {
      return out_begin() + sizeof(float) * num_queries() *
                               static_cast<size_t>(args.shape.num_heads * args.shape.value_size);
    }

    void compute_apart(int share, std::byte* out, const Helpers::Claim& claim) const {
      AttentionArgs apart = args;
      apart.out = reinterpret_cast<float*>(out + out_begin());
      Worker own(apart, out, &claim);
      std::copy_n(tiles, num_tiles, own.scratch_.tiles());
      std::copy_n(order, num_queries(), own.scratch_.order());
      std::copy_n(counts, num_queries(), own.scratch_.counts());
      if (claim.holds()) own.compute_part(share, parts);
    }

    void put(int share, std::byte* out) const {
      const Worker own(args, out, nullptr);
      const Part part = own.part_of(share, parts);
      const QueryTile& tile = own.scratch_.tiles()[part.tile];
      const auto size = static_cast<size_t>(own.group_ * args.shape.value_size);
      const auto num_heads = static_cast<size_t>(args.shape.num_kv_heads);
      const auto* from = reinterpret_cast<const float*>(out + out_begin());
      for (int32_t i = 0; i < tile.num_queries; ++i) {
        const auto query = static_cast<size_t>(tile.batch * args.shape.num_queries + own.query_of(tile, i));
        const size_t at = (query * num_heads + static_cast<size_t>(part.first_head)) * size;
        std::copy_n(from + at, static_cast<size_t>(part.end_head - part.first_head) * size, args.out + at);
      }
    }

   private:
    size_t num_queries() const {
      return static_cast<size_t>(args.shape.num_queries) * static_cast<size_t>(args.shape.num_batches);
    }
    // Behind the scratch.
    size_t out_begin() const { return (attention_scratch_bytes(args.shape, 1) + 63) / 64 * 64; }
  };

  void compute_tiles() {
    const int64_t total = total_weight();
    int64_t before = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      int32_t first_head = shape_.num_kv_heads;
      int32_t end_head = 0;
      share(before, total, shape_.num_kv_heads, weight(tile), [&](int32_t head) {
        first_head = std::min(first_head, head);
        end_head = head + 1;
      });
      if (first_head < end_head) compute_heads(i, first_head, end_head);
    }
  }

  void compute_heads(int32_t index, int32_t first_head, int32_t end_head) {
    const int32_t most = max_heads_together(scratch_.tiles()[index].num_queries * group_);
    for (int32_t head = first_head; head < end_head; head += most) {
      if (!compute_together(index, head, std::min(head + most, end_head))) return;
    }
  }

  // Each span of the memory is read once for all the heads, one beside the other as they lie.
  // Returns false where the claim was lost.
  bool compute_together(int32_t index, int32_t first_head, int32_t end_head) {
    const QueryTile& tile = scratch_.tiles()[index];
    const int32_t rows = tile.num_queries * group_;
    const int32_t size = shape_.value_size;
    const auto at = [&](int32_t head) { return (head - first_head) * rows; };
    std::fill_n(scratch_.totals(), at(end_head), SoftmaxState{});
    std::fill_n(scratch_.total_values(), at(end_head) * size, 0.0F);
    for (int32_t head = first_head; head < end_head; ++head) {
      load_queries(tile, {0, tile.num_queries, 0, 0}, head,
                   scratch_.queries() + at(head) * shape_.key_size);
    }
    for (int32_t r = 0; r < num_runs(tile); ++r) {
      const TileRun run = this->run(tile, r);
      const int32_t first_row = run.first * group_;
      for (int32_t first = run.begin; first < run.end; first += kSpanCells) {
        if (!enter(index, r)) return false;
        read_ahead(tile, run, first_head, end_head, first);
        for (int32_t head = first_head; head < end_head; ++head) {
          compute_span(tile, run, head, first,
                       scratch_.queries() + (at(head) + first_row) * shape_.key_size,
                       scratch_.states(), scratch_.values());
          for (int32_t row = 0; row < run.num_queries * group_; ++row) {
            const int32_t total = at(head) + first_row + row;
            merge(scratch_.totals()[total], scratch_.total_values() + total * size,
                  scratch_.states()[row], scratch_.values() + row * size, size);
          }
        }
      }
    }
    for (int32_t head = first_head; head < end_head; ++head) {
      for (int32_t row = 0; row < rows; ++row) {
        finish(tile, head, row, scratch_.totals()[at(head) + row],
               scratch_.total_values() + (at(head) + row) * size);
      }
    }
    return true;
  }

  static int32_t num_spans_of(const TileRun& run) { return num_spans(run.end - run.begin); }

  void compute_spans() {
    const int64_t total = total_weight();
    int64_t before = 0;
    size_t partial = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      for (int32_t r = 0; r < num_runs(tile); ++r) {
        const TileRun run = this->run(tile, r);
        const int32_t rows = run.num_queries * group_;
        const int32_t units = num_spans_of(run) * shape_.num_kv_heads;
        int32_t ahead = -1;  // the span whose cells were read
        share(before, total, units, weight(run), [&](int32_t unit) {
          const int32_t head = unit % shape_.num_kv_heads;
          const int32_t first = run.begin + unit / shape_.num_kv_heads * kSpanCells;
          const size_t at = partial + static_cast<size_t>(unit * rows);
          enter(i, r);  // of a team's thread, which has no claim to lose
          if (ahead != first) read_ahead(tile, run, head, shape_.num_kv_heads, first);
          ahead = first;
          load_queries(tile, run, head, scratch_.queries());
          compute_span(tile, run, head, first, scratch_.queries(), scratch_.partial_states() + at,
                       scratch_.partial_values(at));
        });
        partial += static_cast<size_t>(units * rows);
      }
    }
  }

  void merge_spans() {
    size_t partial = 0;
    int32_t row_index = 0;
    for (int32_t i = 0; i < num_tiles_; ++i) {
      const QueryTile& tile = scratch_.tiles()[i];
      const TileRun first = run(tile, 0);
      size_t own = partial + num_partials(first);
      for (int32_t query = 0; query < tile.num_queries; ++query) {
        const TileRun rest = tile.num_shared == 0 ? TileRun() : run(tile, 1 + query);
        for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
          for (int32_t row = 0; row < group_; ++row) {
            if (row_index++ % team_.num_threads != team_.thread) continue;
            SoftmaxState state;
            std::fill_n(scratch_.total_values(), shape_.value_size, 0.0F);
            merge_run(first, partial, head, query * group_ + row, state);
            merge_run(rest, own, head, row, state);
            finish(tile, head, query * group_ + row, state, scratch_.total_values());
          }
        }
        own += num_partials(rest);
      }
      partial = own;
    }
  }

  size_t num_partials(const TileRun& run) const {
    return static_cast<size_t>(num_spans_of(run) * shape_.num_kv_heads * run.num_queries * group_);
  }

  // Takes what the spans of a run, whose partial results begin at `partial`, have for one of its
  // rows into the total.
  void merge_run(const TileRun& run, size_t partial, int32_t head, int32_t row,
                 SoftmaxState& state) {
    for (int32_t span = 0; span < num_spans_of(run); ++span) {
      const int32_t index = (span * shape_.num_kv_heads + head) * run.num_queries * group_ + row;
      const size_t at = partial + static_cast<size_t>(index);
      merge(state, scratch_.total_values(), scratch_.partial_states()[at],
            scratch_.partial_values(at), shape_.value_size);
    }
  }

  // Lists the cells of a run, once while the thread works on it. Returns false where the claim was
  // lost, and the list may be of anything: it is asked for each span, before that is computed.
  bool enter(int32_t index, int32_t run_index) {
    if (current_tile_ != index || current_run_ != run_index) {
      current_tile_ = index;
      current_run_ = run_index;
      list_cells(index, run_index);
    }
    return claim_ == nullptr || claim_->holds();
  }

  void list_cells(int32_t index, int32_t run_index) {
    const QueryTile& tile = scratch_.tiles()[index];
    const TileRun run = this->run(tile, run_index);
    int32_t* cells = scratch_.cells();
    biases_ = nullptr;
    if (args_.mask.data == nullptr) {
      for (int32_t i = 0; i < shape_.num_cells; ++i) cells[i] = i;
      return;
    }
    const auto row = mask_of(tile.batch)[query_of(tile, run.first + run.num_queries - 1)];
    const auto count = static_cast<size_t>(list_visible(row, cells));
    if (args_.order.stamps != nullptr) sort_cells({cells, count}, args_.order.stamps);
    if (!tile.has_bias) return;
    biases_ = scratch_.biases();
    for (size_t i = 0; i < count; ++i) {
      biases_[i] = simd::half_to_float(row[static_cast<size_t>(cells[i])]);
    }
  }

  int32_t head_of(int32_t kv_head, int32_t row) const { return kv_head * group_ + row % group_; }

  void load_queries(const QueryTile& tile, const TileRun& run, int32_t kv_head, float* queries) {
    const auto size = static_cast<size_t>(shape_.key_size);
    for (int32_t row = 0; row < run.num_queries * group_; ++row) {
      const std::byte* from =
          args_.q.data + static_cast<size_t>(tile.batch) * args_.q.batch_stride +
          static_cast<size_t>(query_of(tile, run.first + row / group_)) * args_.q.row_stride +
          static_cast<size_t>(head_of(kv_head, row)) * args_.q.head_stride;
      std::memcpy(queries + static_cast<size_t>(row) * size, from, size * sizeof(float));
    }
  }

  CellRows rows_of(const AttentionTensor& tensor, int32_t batch, int32_t kv_head) const {
    return {tensor.data + static_cast<size_t>(batch) * tensor.batch_stride +
                static_cast<size_t>(kv_head) * tensor.head_stride,
            tensor.row_stride, scratch_.cells()};
  }

  // Brings the keys and values of several heads in the span that begins at `first` into a near
  // cache. One head after the other would jump from cell to cell, and so slowly that a prefetch for
  // each has no effect where the page's address is not at hand, as on virtual machines; what is read
  // in the order of the memory, the CPU fetches by itself.
  void read_ahead(const QueryTile& tile, const TileRun& run, int32_t first_head, int32_t end_head,
                  int32_t first) const {
    constexpr int32_t kLineBytes = 64;
    const int32_t last = std::min(first + kSpanCells, run.end);
    const auto read = [&](const AttentionTensor& tensor, int32_t size) {
      if (tensor.head_stride > tensor.row_stride) return;  // each head has a memory of its own
      const CellRows rows = rows_of(tensor, tile.batch, first_head);
      const size_t num_bytes = tensor.head_stride * static_cast<size_t>(end_head - first_head - 1) +
                               sizeof(uint16_t) * static_cast<size_t>(size);
      for (int32_t i = first; i < last; ++i) {
        const auto* row = reinterpret_cast<const volatile std::byte*>(rows[i]);
        for (size_t at = 0; at < num_bytes; at += kLineBytes) static_cast<void>(row[at]);
      }
    };
    read(args_.k, shape_.key_size);
    read(args_.v, shape_.value_size);
  }

  // The weighted values of the run's rows over the span that begins at `first`.
  void compute_span(const QueryTile& tile, const TileRun& run, int32_t kv_head, int32_t first,
                    const float* queries, SoftmaxState* states, float* values) {
    const int32_t last = std::min(first + kSpanCells, run.end);
    const int32_t rows = run.num_queries * group_;
    float* scores = scratch_.scores();
    int32_t* counts = scratch_.row_counts();
    score_span(queries, rows, rows_of(args_.k, tile.batch, kv_head), first, last,
               shape_.key_size, scratch_.packed(), scores);
    const bool is_capped = args_.softcap != 0;
    const float scale = is_capped ? args_.scale / args_.softcap : args_.scale;
    for (int32_t row = 0; row < rows; ++row) {
      const int32_t count = count_of(tile, run.first + row / group_);
      counts[row] = std::clamp(count - first, 0, last - first);
      states[row] = softmax_span(scores + row * kSpanCells, counts[row], last - first, scale,
                                 args_.softcap, sloped_biases(head_of(kv_head, row), first, last));
    }
    weigh_span(scores, counts, rows, rows_of(args_.v, tile.batch, kv_head), first, last,
               shape_.value_size, scratch_.packed(), values);
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
    const int32_t query = tile.batch * shape_.num_queries + query_of(tile, row / group_);
    float* out =
        args_.out + (static_cast<size_t>(query) * static_cast<size_t>(shape_.num_heads) +
                     static_cast<size_t>(head)) *
                        static_cast<size_t>(shape_.value_size);
    for (int32_t d = 0; d < shape_.value_size; ++d) out[d] = values[d] * factor;
  }

  const AttentionArgs& args_;
  const AttentionShape& shape_;
  const Team team_;
  const int32_t group_;  // heads that share a KV head
  AttentionScratch scratch_;
  const Helpers::Claim* const claim_ = nullptr;  // of a helper
  int32_t num_tiles_ = 0;
  int32_t current_tile_ = -1;
  int32_t current_run_ = -1;
  float* biases_ = nullptr;  // of the current run
};

}  // namespace

bool can_attend(const AttentionShape& shape) {
  return shape.key_size > 0 && shape.key_size % kLanes == 0 && shape.value_size > 0 &&
         shape.value_size % kLanes == 0 && shape.num_kv_heads > 0 &&
         shape.num_heads % shape.num_kv_heads == 0;
}

void attend(const AttentionArgs& args, const Team& team, std::byte* scratch) {
  Worker(args, team, scratch).run();
}

}  // namespace snapllm
