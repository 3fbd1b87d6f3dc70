#include "backend/prompt_limit.h"

#include <string>

namespace snapllm {

Status prompt_too_long(int64_t num_tokens, int32_t context_size) {
  return {StatusCode::kContextLengthExceeded,
          "prompt is too long: " + std::to_string(num_tokens) + " tokens > " +
              std::to_string(context_size - 1) + " maximum. This model's maximum context length is " +
              std::to_string(context_size) + " tokens, with one or more for the answer."};
}

Status PromptLimit::check(size_t num_bytes) const {
  const size_t least_tokens = num_bytes / longest_token_bytes;
  if (least_tokens <= static_cast<size_t>(context_size)) return {};
  return prompt_too_long(static_cast<int64_t>(least_tokens), context_size);
}

}  // namespace snapllm
