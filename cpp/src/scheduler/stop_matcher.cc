#include "scheduler/stop_matcher.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace snapllm {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::push(std::string text) {
  if (stops_.empty()) return text;
  if (matched()) return {};
  pending_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = pending_.find(stop);
    if (at < first) {
      first = at;
      match_ = stop;
    }
  }
  if (matched()) return std::exchange(pending_, {}).substr(0, first);
  const size_t size = pending_.size() - held_back_bytes();
  std::string ready = pending_.substr(0, size);
  pending_.erase(0, size);
  return ready;
}

std::string StopMatcher::finish() { return std::exchange(pending_, {}); }

// The longest end of the pending text that begins a stop string.
size_t StopMatcher::held_back_bytes() const {
  const std::string_view pending = pending_;
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, pending.size()); size > longest; --size) {
      if (pending.substr(pending.size() - size) == std::string_view(stop).substr(0, size)) {
        longest = size;
      }
    }
  }
  return longest;
}

}  // namespace snapllm
