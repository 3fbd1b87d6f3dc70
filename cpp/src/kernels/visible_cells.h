// Which cells of the KV memory a query attends to, read from its row of the mask: pure
// functions.
#pragma once

#include <cstdint>
#include <span>

namespace snapllm {

// Minus infinity and zero in binary16: hidden, and visible without a bias.
inline constexpr uint16_t kHiddenCell = 0xfc00;
inline constexpr uint16_t kPlainCell = 0;

// Queries that follow one another, of which each attends to all that the one before does,
// in the same order, and maybe to more: as the tokens of one prompt do.
struct QueryTile {
  int32_t batch = 0;  // the outermost dimension: a KV memory of its own
  int32_t first_query = 0;
  int32_t num_queries = 0;
  int32_t num_cells = 0;  // that the last query attends to
  bool has_bias = false;  // then it has one query
};

// What a row of the mask shows.
struct VisibleCells {
  int32_t count = 0;
  int32_t end = 0;        // of the last one
  bool has_bias = false;  // one of them is not plain
};

VisibleCells visible_cells(std::span<const uint16_t> row);

// Writes the indices of the visible cells, in order; `cells` has room for all of the row.
// Returns their number.
int32_t list_visible(std::span<const uint16_t> row, int32_t* cells);

}  // namespace snapllm
