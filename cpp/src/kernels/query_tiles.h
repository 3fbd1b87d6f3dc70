// Which queries are computed together, and over which cells.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cell_order.h"
#include "kernels/visible_cells.h"

namespace snapllm {

// Queries that are computed together. Either each attends to all that the one before does, in the
// same order, and maybe to more: as the tokens of one prompt do. Or they attend to the same
// `num_shared` cells first, and then to what is not the others': as answers that begin with the
// same prompt do.
struct QueryTile {
  int32_t batch = 0;       // the outermost dimension: a KV memory of its own
  int32_t first = 0;       // of its queries, in the order of the tiles
  int32_t num_queries = 0;
  int32_t first_cell = 0;  // that the first query attends to
  int32_t num_cells = 0;   // that the last query attends to
  int32_t num_shared = 0;  // whole spans; 0 in the first case
  bool has_bias = false;    // then it has one query
};

// Queries of a tile that go over cells [begin, end) of those that they see.
struct TileRun {
  int32_t first = 0;  // of the tile's queries
  int32_t num_queries = 0;
  int32_t begin = 0;
  int32_t end = 0;
};

inline int32_t num_runs(const QueryTile& tile) {
  return tile.num_shared == 0 ? 1 : 1 + tile.num_queries;
}

// Run number `index`, after all those before it; `num_cells(i)` is what query i of the tile sees.
template <typename NumCells>
TileRun run_of(const QueryTile& tile, int32_t index, NumCells&& num_cells) {
  if (tile.num_shared == 0) return {0, tile.num_queries, 0, tile.num_cells};
  if (index == 0) return {0, tile.num_queries, 0, tile.num_shared};
  return {index - 1, 1, tile.num_shared, num_cells(index - 1)};
}

// The rows of a mask: one for each query of a batch, or none where all cells are visible.
struct MaskRows {
  const std::byte* data = nullptr;
  size_t stride = 0;
  size_t num_cells = 0;

  std::span<const uint16_t> operator[](int32_t query) const {
    return {reinterpret_cast<const uint16_t*>(data + stride * static_cast<size_t>(query)),
            num_cells};
  }
};

// Where the tiles of one batch are written to.
struct TileSpace {
  QueryTile* tiles;  // as many as there are queries
  QueryTile* chains;  // likewise, for use in between
  int32_t* order;    // the queries in the order of the tiles
  int32_t* counts;   // by query: how many cells it sees
};

// The tiles of a batch, of at most `max_queries` each, over cells in this order. Returns how many
// there are.
int32_t find_tiles(const MaskRows& mask, const CellOrder& order, int32_t num_queries,
                   int32_t max_queries, int32_t batch, const TileSpace& space);

}  // namespace snapllm
