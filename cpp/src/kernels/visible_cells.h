// Which cells of the KV memory a query attends to, read from its row of the mask: pure
// functions.
#pragma once

#include <cstdint>
#include <span>

namespace snapllm {

// Minus infinity and zero in binary16: hidden, and visible without a bias.
inline constexpr uint16_t kHiddenCell = 0xfc00;
inline constexpr uint16_t kPlainCell = 0;

// What a row of the mask shows.
struct VisibleCells {
  int32_t count = 0;
  int32_t begin = 0;      // the first one
  int32_t end = 0;        // of the last one
  bool has_bias = false;  // one of them is not plain
};

VisibleCells visible_cells(std::span<const uint16_t> row);

// How many cells two rows show before the first that one of them hides and the other does not.
int32_t num_visible_in_both(std::span<const uint16_t> row, std::span<const uint16_t> other);

// Whether those that a row shows were written in the order in which they lie.
bool are_in_order(std::span<const uint16_t> row, const uint64_t* stamps);

// Writes the indices of the visible cells, in order; `cells` has room for all of the row.
// Returns their number.
int32_t list_visible(std::span<const uint16_t> row, int32_t* cells);

}  // namespace snapllm
