#include "prompt_check.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "backend/prompt_limit.h"
#include "snapllm/chat_prompt.h"

namespace snapllm {
namespace {

Status invalid(const std::string& message) { return {StatusCode::kInvalidRequest, message}; }

// Virtual tokens must be those of the spans, and only those.
Status check_tokens(const GenerateRequest& request, const ModelInfo& info) {
  const auto num_tokens = static_cast<int32_t>(request.prompt.size());
  auto span = request.media.begin();
  for (int32_t i = 0; i < num_tokens; ++i) {
    while (span != request.media.end() && span->end() <= i) ++span;
    const bool in_span = span != request.media.end() && span->begin <= i;
    const Token token = request.prompt[static_cast<size_t>(i)];
    if (in_span ? token >= 0 : (token < 0 || token >= info.vocab_size)) {
      return invalid("token " + std::to_string(token) + " is not in the model's vocabulary");
    }
  }
  return {};
}

Status check_media(const GenerateRequest& request, const ModelInfo& info) {
  if (request.media.empty()) return {};
  if (!info.has_vision && !info.has_audio) {
    return invalid("model " + info.id + " takes text only: no images or audio");
  }
  const auto num_tokens = static_cast<int32_t>(request.prompt.size());
  int32_t end = 0;
  for (const MediaSpan& span : request.media) {
    if (span.begin < end || span.num_tokens <= 0 || span.end() > num_tokens ||
        span.chunk == nullptr) {
      return invalid("an image does not lie within the prompt");
    }
    end = span.end();
  }
  if (end == num_tokens && !request.prefill_only) {
    return invalid("the prompt must end with text, not with an image");
  }
  return {};
}

}  // namespace

void attach_media(GenerateRequest& request) {
  if (!request.media.empty() || request.chat == nullptr) return;
  const auto num_tokens = static_cast<int32_t>(request.prompt.size());
  std::ranges::copy_if(request.chat->media(), std::back_inserter(request.media),
                       [&](const MediaSpan& span) { return span.end() <= num_tokens; });
}

Status check_prompt(const GenerateRequest& request, const ModelInfo& info) {
  if (!info.supports_generation) {
    return invalid("model " + info.id + " is an embedding model: it cannot generate text");
  }
  if (request.prompt.empty()) return invalid("the prompt is empty");
  if (request.max_tokens == 0 || request.max_tokens < -1) {
    return invalid("max_tokens must be positive, or -1");
  }
  const auto num_tokens = static_cast<int64_t>(request.prompt.size());
  if (num_tokens >= info.context_size) {
    return prompt_too_long(num_tokens, info.context_size);
  }
  if (Status status = check_media(request, info); !status.ok()) return status;
  if (!request.media.empty() && request.num_prompt_logprobs >= 0) {
    return invalid("a prompt with images or audio has no log probabilities");
  }
  if (request.num_prompt_logprobs > info.vocab_size) {
    return invalid("num_prompt_logprobs exceeds the vocabulary");
  }
  return check_tokens(request, info);
}

}  // namespace snapllm
