// How long a prompt may be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "snapllm/status.h"

namespace snapllm {

// The refusal, in the words by which clients of both APIs know it: Anthropic's, by which agents
// begin to compact their conversation, and OpenAI's.
Status prompt_too_long(int64_t num_tokens, int32_t context_size);

// What can be said before a text is tokenised, which for a very long one takes long.
struct PromptLimit {
  size_t longest_token_bytes = 1;
  int32_t context_size = 0;
  std::function<size_t(const std::string& text)> count_tokens = {};

  // Refuses a text that has too many tokens however it is cut, and says about how many they are:
  // agents leave out of their conversation what is too much of it. May throw what counting throws.
  Status check(const std::string& text) const;
};

}  // namespace snapllm
