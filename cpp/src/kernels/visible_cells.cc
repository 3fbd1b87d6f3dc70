#include "kernels/visible_cells.h"

#include <algorithm>
#include <cstring>

namespace snapllm {
namespace {

// Wide enough for the compiler to test it in one or two instructions.
constexpr int32_t kGroup = 32;

bool all_hidden(const uint16_t* cells) {
  uint16_t other = 0;
  for (int32_t i = 0; i < kGroup; ++i) other |= cells[i] ^ kHiddenCell;
  return other == 0;
}

}  // namespace

int32_t visible_end(std::span<const uint16_t> row) {
  auto end = static_cast<int32_t>(row.size());
  while (end >= kGroup && all_hidden(&row[end - kGroup])) end -= kGroup;
  while (end > 0 && row[end - 1] == kHiddenCell) --end;
  return end;
}

int32_t num_visible(std::span<const uint16_t> row) {
  int32_t count = 0;
  for (const uint16_t cell : row) count += cell != kHiddenCell;
  return count;
}

bool has_bias(std::span<const uint16_t> row) {
  int32_t count = 0;
  for (const uint16_t cell : row) count += cell != kHiddenCell && cell != kPlainCell;
  return count > 0;
}

int32_t list_visible(std::span<const uint16_t> row, int32_t* cells) {
  const auto size = static_cast<int32_t>(row.size());
  int32_t count = 0;
  int32_t i = 0;
  while (i < size) {
    if (i + kGroup <= size && all_hidden(&row[i])) {
      i += kGroup;
      continue;
    }
    const int32_t end = std::min(i + kGroup, size);
    for (; i < end; ++i) {
      cells[count] = i;
      count += row[i] != kHiddenCell;
    }
  }
  return count;
}

}  // namespace snapllm
