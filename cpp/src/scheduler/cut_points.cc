#include "scheduler/cut_points.h"

#include <algorithm>

namespace snapllm {

std::vector<int32_t> checkpoint_cuts(std::span<const Token> prompt,
                                     const std::vector<bool>& is_control, int32_t num_cached,
                                     bool is_kept_whole, int32_t min_distance) {
  const auto last = std::find(is_control.rbegin(), is_control.rend(), true);
  const auto num_searched = static_cast<size_t>(is_control.rend() - last);
  std::vector<int32_t> turns;
  for (size_t i = 1; i < num_searched; ++i) {
    if (prompt[i] == prompt[num_searched - 1]) turns.push_back(static_cast<int32_t>(i));
  }
  std::vector<int32_t> wanted;
  if (turns.empty()) {
    if (!is_kept_whole) wanted.push_back(static_cast<int32_t>(prompt.size()) - 1);
  } else {
    wanted.push_back(turns.front());
    if (turns.size() >= 2) wanted.push_back(turns[turns.size() - 2]);
    wanted.push_back(turns.back());
  }

  std::vector<int32_t> cuts;
  int32_t previous = num_cached;
  for (const int32_t cut : wanted) {
    if (cut < previous + min_distance) continue;
    cuts.push_back(cut);
    previous = cut;
  }
  return cuts;
}

}  // namespace snapllm
