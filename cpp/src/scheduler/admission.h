// Which waiting requests start now: a pure function.
#pragma once

#include <cstdint>
#include <span>

namespace snapllm {

// How many of the waiting requests, in their order, can be admitted. A request is
// admitted only with all the KV cells it can ever need, so that none that runs
// is stopped by another. First come, first served: nobody overtakes a request that
// waits for room.
inline size_t num_admissible(std::span<const int32_t> needed_cells, int32_t free_cells,
                             int32_t free_sequences) {
  size_t count = 0;
  while (count < needed_cells.size() && free_sequences > 0 && needed_cells[count] <= free_cells) {
    free_cells -= needed_cells[count];
    --free_sequences;
    ++count;
  }
  return count;
}

}  // namespace snapllm
