// What the engine answers, and the queue the answers come through.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "snapllm/request.h"
#include "snapllm/status.h"

namespace snapllm {

enum class FinishReason { kNone, kStop, kLength, kCancelled, kError };

struct TokenLogprobs {
  Token token = -1;
  std::string bytes;  // the token's own bytes; not always valid UTF-8
  float logprob = 0.0f;
  struct Alternative {
    Token token = -1;
    std::string bytes;
    float logprob = 0.0f;
  };
  std::vector<Alternative> top;  // most likely first
};

struct RequestTimings {
  double queue_ms = 0.0;    // submit to admission
  double prefill_ms = 0.0;  // admission to the first token
  double decode_ms = 0.0;   // first token to the last
};

// The next piece of one request's answer. Exactly one output of a request has a
// finish reason, and it is the last.
struct RequestOutput {
  uint64_t request_id = 0;
  std::string text;  // whole UTF-8 characters; stop strings are never in it
  std::vector<Token> tokens;
  std::vector<TokenLogprobs> logprobs;

  FinishReason finish_reason = FinishReason::kNone;
  // Below: set in the last output only.
  std::string stop_sequence;  // the stop string that ended it; empty otherwise
  Status error;               // with kError
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_tokens = 0;  // of the prompt, not computed but restored
  int32_t num_generated_tokens = 0;
  int64_t seed = 0;
  RequestTimings timings;

  bool finished() const { return finish_reason != FinishReason::kNone; }
};

}  // namespace snapllm
