#include "backend/prompt_limit.h"

#include <algorithm>
#include <string>

namespace snapllm {
namespace {

constexpr size_t kNumSamples = 16;
constexpr size_t kSampleBytes = 2048;

// The beginning of the character that a byte is of.
size_t character_at(const std::string& text, size_t at) {
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// How many tokens a text has, by samples from all over it.
size_t estimate(const std::string& text,
                const std::function<size_t(const std::string& text)>& count_tokens) {
  size_t num_bytes = 0;
  size_t num_tokens = 0;
  for (size_t i = 0; i < kNumSamples; ++i) {
    const size_t stride = text.size() / kNumSamples;
    const size_t begin = character_at(text, i * stride);
    const size_t end = character_at(text, i * stride + std::min(stride, kSampleBytes));
    num_tokens += count_tokens(text.substr(begin, end - begin));
    num_bytes += end - begin;
  }
  if (num_bytes == 0) return 0;
  return static_cast<size_t>(static_cast<double>(text.size()) * static_cast<double>(num_tokens) /
                             static_cast<double>(num_bytes));
}

}  // namespace

Status prompt_too_long(int64_t num_tokens, int32_t context_size) {
  return {StatusCode::kContextLengthExceeded,
          "prompt is too long: " + std::to_string(num_tokens) + " tokens > " +
              std::to_string(context_size - 1) + " maximum. This model's maximum context length is " +
              std::to_string(context_size) + " tokens, with one or more for the answer."};
}

Status PromptLimit::check(const std::string& text) const {
  const size_t least_tokens = text.size() / longest_token_bytes;
  if (least_tokens <= static_cast<size_t>(context_size)) return {};
  const size_t num_tokens = count_tokens ? estimate(text, count_tokens) : 0;
  return prompt_too_long(static_cast<int64_t>(std::max(least_tokens, num_tokens)), context_size);
}

}  // namespace snapllm
