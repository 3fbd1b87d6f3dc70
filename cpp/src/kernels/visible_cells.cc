#include "kernels/visible_cells.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/simd.h"

namespace snapllm {
namespace {

// Calls `work(first, bits)` for each group of simd::kBits cells in which some are visible; their
// bits are set. Rows of many sequences are hidden for the most part.
template <typename Work>
void for_each_group(std::span<const uint16_t> row, Work&& work) {
  constexpr auto kGroup = static_cast<size_t>(simd::kBits);
  size_t first = 0;
  for (; first + kGroup <= row.size(); first += kGroup) {
    const uint32_t bits = simd::bits_unlike(&row[first], kHiddenCell);
    if (bits != 0) work(static_cast<int32_t>(first), bits, &row[first]);
  }
  if (first == row.size()) return;
  std::array<uint16_t, kGroup> rest;
  rest.fill(kHiddenCell);
  std::ranges::copy(row.subspan(first), rest.begin());
  const uint32_t bits = simd::bits_unlike(rest.data(), kHiddenCell);
  if (bits != 0) work(static_cast<int32_t>(first), bits, rest.data());
}

}  // namespace

VisibleCells visible_cells(std::span<const uint16_t> row) {
  VisibleCells visible;
  uint32_t biased = 0;
  for_each_group(row, [&](int32_t first, uint32_t bits, const uint16_t* cells) {
    if (visible.count == 0) visible.begin = first + std::countr_zero(bits);
    visible.count += std::popcount(bits);
    visible.end = first + std::bit_width(bits);
    biased |= bits & simd::bits_unlike(cells, kPlainCell);
  });
  visible.has_bias = biased != 0;
  return visible;
}

int32_t num_visible_in_both(std::span<const uint16_t> row, std::span<const uint16_t> other) {
  const size_t end = std::min(row.size(), other.size());
  constexpr size_t kStride = 128;
  size_t same = 0;
  while (same + kStride <= end &&
         std::memcmp(&row[same], &other[same], kStride * sizeof(uint16_t)) == 0) {
    same += kStride;
  }
  while (same < end && row[same] == other[same]) ++same;
  return visible_cells(row.first(same)).count;
}

bool are_in_order(std::span<const uint16_t> row, const uint64_t* stamps) {
  uint64_t last = 0;
  bool in_order = true;
  for_each_group(row, [&](int32_t first, uint32_t bits, const uint16_t*) {
    for (; bits != 0; bits &= bits - 1) {
      const uint64_t stamp = stamps[first + std::countr_zero(bits)];
      in_order = in_order && stamp >= last;
      last = stamp;
    }
  });
  return in_order;
}

int32_t list_visible(std::span<const uint16_t> row, int32_t* cells) {
  int32_t count = 0;
  for_each_group(row, [&](int32_t first, uint32_t bits, const uint16_t*) {
    for (; bits != 0; bits &= bits - 1) cells[count++] = first + std::countr_zero(bits);
  });
  return count;
}

}  // namespace snapllm
