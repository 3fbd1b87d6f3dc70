#include "scheduler/drafter.h"

#include <algorithm>

namespace snapllm {

std::vector<Token> lookup_draft(std::span<const Token> tokens, int32_t max_tokens) {
  const auto size = static_cast<int32_t>(tokens.size());
  if (max_tokens < 1 || size <= kMinMatch) return {};
  int32_t best_length = kMinMatch - 1;
  int32_t best_end = 0;  // where what follows begins
  for (int32_t end = size - 1; end >= kMinMatch && best_length < kMaxMatch; --end) {
    int32_t length = 0;
    while (length < kMaxMatch && length < end &&
           tokens[static_cast<size_t>(end - 1 - length)] ==
               tokens[static_cast<size_t>(size - 1 - length)]) {
      ++length;
    }
    if (length > best_length) best_length = length, best_end = end;
  }
  std::vector<Token> draft;
  for (int32_t i = best_end; best_end > 0 && i < size && i < best_end + max_tokens; ++i) {
    const Token token = tokens[static_cast<size_t>(i)];
    if (token < 0) break;
    draft.push_back(token);
  }
  return draft;
}

std::vector<Token> Drafter::propose(std::span<const Token> tokens, int32_t room) {
  if (max_tokens_ == 0) return {};
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  return lookup_draft(tokens, std::min({limit_, max_tokens_, room}));
}

void Drafter::note(int32_t num_proposed, int32_t num_accepted) {
  if (num_proposed == 0) return;
  num_proposed_ += num_proposed;
  num_accepted_ += num_accepted;
  if (num_accepted == num_proposed) {
    limit_ = std::min(limit_ * 2, std::max(max_tokens_, 1));
  } else {
    limit_ = std::max(num_accepted, 1);
  }
  if (num_accepted > 0) {
    next_pause_ = 1;
  } else {
    pause_ = next_pause_;
    next_pause_ = std::min(next_pause_ * 2, kMaxPause);
  }
}

}  // namespace snapllm
