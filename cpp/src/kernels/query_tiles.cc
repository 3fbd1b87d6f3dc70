#include "kernels/query_tiles.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention_scratch.h"

namespace snapllm {
namespace {

// Finds tiles of one batch: first those of prompts, then answers that begin alike.
class TileFinder {
 public:
  TileFinder(const MaskRows& mask, const CellOrder& order, int32_t max_queries, int32_t batch,
             const TileSpace& space)
      : mask_(mask), order_(order), max_queries_(max_queries), batch_(batch), space_(space) {}

  int32_t find(int32_t num_queries) {
    const int32_t num_chains = find_chains(num_queries);
    int32_t num_tiles = 0;
    for (int32_t i = 0; i < num_chains; ++i) {
      const QueryTile& chain = space_.chains[i];
      if (chain.num_queries == 0) continue;  // it joined one before
      const int32_t parts = (chain.num_queries + max_queries_ - 1) / max_queries_;
      for (int32_t part = 0; part < parts; ++part) {
        space_.tiles[num_tiles++] = part_of(chain, part, parts);
      }
      QueryTile& tile = space_.tiles[num_tiles - 1];
      if (can_join(tile)) join(tile, i, num_chains);
    }
    return num_tiles;
  }

 private:
  VisibleCells cells_of(int32_t query) const {
    if (mask_.data != nullptr) return visible_cells(mask_[query]);
    const auto all = static_cast<int32_t>(mask_.num_cells);
    return {all, 0, all, false};
  }

  // Whether the cells of `query` begin with all those of the query before it.
  bool follows(int32_t query, const VisibleCells& before) const {
    if (mask_.data == nullptr) return true;
    if (order_.stamps != nullptr) return adds_its_own(query);
    return std::memcmp(mask_[query - 1].data(), mask_[query].data(),
                       static_cast<size_t>(before.end) * sizeof(uint16_t)) == 0;
  }

  // Whether it sees what the query before it does, and of other cells at most its own, the latest.
  bool adds_its_own(int32_t query) const {
    const auto row = mask_[query];
    const auto before = mask_[query - 1];
    const auto own = static_cast<size_t>(order_.new_cells[static_cast<size_t>(query)]);
    const auto are_same = [&](size_t begin, size_t end) {
      return std::memcmp(&row[begin], &before[begin], (end - begin) * sizeof(uint16_t)) == 0;
    };
    const bool is_added = before[own] == kHiddenCell && row[own] == kPlainCell;
    return (is_added || row[own] == before[own]) && are_same(0, own) &&
           (own + 1 == row.size() || are_same(own + 1, row.size()));
  }

  // Parts of one size to within a query: a small last one would go over as many cells for little.
  QueryTile part_of(const QueryTile& chain, int32_t part, int32_t parts) {
    const int32_t first = chain.first + chain.num_queries * part / parts;
    const int32_t end = chain.first + chain.num_queries * (part + 1) / parts;
    QueryTile tile = chain;
    tile.first = num_ordered_;
    tile.num_queries = end - first;
    tile.num_cells = space_.counts[end - 1];
    for (int32_t query = first; query < end; ++query) order(query);
    return tile;
  }

  // Queries that follow one another, however many they are.
  int32_t find_chains(int32_t num_queries) {
    int32_t num_chains = 0;
    VisibleCells before;
    for (int32_t query = 0; query < num_queries; ++query) {
      const VisibleCells visible = cells_of(query);
      space_.counts[query] = visible.count;
      QueryTile* last = num_chains == 0 ? nullptr : &space_.chains[num_chains - 1];
      if (last != nullptr && !visible.has_bias && follows(query, before)) {
        ++last->num_queries;
        last->num_cells = visible.count;
      } else {
        space_.chains[num_chains++] = {batch_,        query, 1, visible.begin,
                                       visible.count, 0,     visible.has_bias};
      }
      before = visible;
    }
    return num_chains;
  }

  bool can_join(const QueryTile& chain) const {
    return mask_.data != nullptr && chain.num_queries == 1 && !chain.has_bias &&
           chain.num_cells >= kSpanCells;
  }

  // Lets chains after number `index` join the tile that was made of it, as long as what they
  // share becomes more by it: spans that are gone over once instead of once for each.
  void join(QueryTile& tile, int32_t index, int32_t num_chains) {
    const auto row = mask_[space_.chains[index].first];
    const auto is_in_order = [&](std::span<const uint16_t> cells) {
      return order_.stamps == nullptr || are_in_order(cells, order_.stamps);
    };
    for (int32_t i = index + 1; i < num_chains && tile.num_queries < max_queries_; ++i) {
      QueryTile& other = space_.chains[i];
      if (!can_join(other) || other.first_cell != tile.first_cell) continue;
      const int32_t in_both = num_visible_in_both(row, mask_[other.first]);
      int32_t shared = in_both / kSpanCells * kSpanCells;
      if (tile.num_shared > 0) shared = std::min(shared, tile.num_shared);
      if (shared * tile.num_queries <= tile.num_shared * (tile.num_queries - 1)) continue;
      // What is shared must come first of what each attends to.
      if (tile.num_queries == 1 && !is_in_order(row)) return;
      if (!is_in_order(mask_[other.first])) continue;
      tile.num_shared = shared;
      tile.num_cells = other.num_cells;
      ++tile.num_queries;
      order(other.first);
      other.num_queries = 0;
    }
  }

  void order(int32_t query) { space_.order[num_ordered_++] = query; }

  const MaskRows& mask_;
  const CellOrder& order_;
  const int32_t max_queries_;
  const int32_t batch_;
  const TileSpace& space_;
  int32_t num_ordered_ = 0;
};

}  // namespace

int32_t find_tiles(const MaskRows& mask, const CellOrder& order, int32_t num_queries,
                   int32_t max_queries, int32_t batch, const TileSpace& space) {
  return TileFinder(mask, order, max_queries, batch, space).find(num_queries);
}

}  // namespace snapllm
