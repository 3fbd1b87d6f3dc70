// What leaves a tier that is too full: a pure function.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace snapllm {

struct EvictionCandidate {
  uint64_t bytes = 0;
  uint64_t last_used = 0;  // a logical clock
  int32_t end = 0;         // the position the piece reaches to
};

// The candidates to evict so that at least `bytes` become free, or all of them. Least
// recently used first; of a chain that was used at once the deepest piece first, since
// what lies below a missing piece is of no use.
inline std::vector<size_t> pick_victims(std::span<const EvictionCandidate> candidates,
                                        uint64_t bytes) {
  std::vector<size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto& x = candidates[a];
    const auto& y = candidates[b];
    return x.last_used != y.last_used ? x.last_used < y.last_used : x.end > y.end;
  });
  uint64_t freed = 0;
  size_t count = 0;
  while (count < order.size() && freed < bytes) freed += candidates[order[count++]].bytes;
  order.resize(count);
  return order;
}

}  // namespace snapllm
