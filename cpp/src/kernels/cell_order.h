// In which order the cells of a KV memory were written: that of the tokens of each sequence, wherever
// in the memory they lie.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace snapllm {

struct CellOrder {
  const uint64_t* stamps = nullptr;  // by cell, higher the later it was written; null = as they lie
  std::span<const int64_t> new_cells;  // by query: the cell that its token was written to just now
};

// The end of the cells from `begin` on that follow one another in their order.
inline int32_t end_of_run(std::span<const int32_t> cells, int32_t begin, const uint64_t* stamps) {
  const auto at = [&](int32_t i) { return stamps[cells[static_cast<size_t>(i)]]; };
  const auto size = static_cast<int32_t>(cells.size());
  int32_t end = std::min(begin + 1, size);
  while (end < size && at(end - 1) <= at(end)) ++end;
  return end;
}

// Puts cells that are listed as they lie into their order. They mostly are, or in a few runs.
inline void sort_cells(std::span<int32_t> cells, const uint64_t* stamps) {
  const auto size = static_cast<int32_t>(cells.size());
  const auto is_before = [&](int32_t a, int32_t b) { return stamps[a] < stamps[b]; };
  while (end_of_run(cells, 0, stamps) < size) {
    for (int32_t begin = 0; begin < size;) {
      const int32_t middle = end_of_run(cells, begin, stamps);
      const int32_t end = end_of_run(cells, middle, stamps);
      std::inplace_merge(cells.begin() + begin, cells.begin() + middle, cells.begin() + end,
                         is_before);
      begin = end;
    }
  }
}

}  // namespace snapllm
