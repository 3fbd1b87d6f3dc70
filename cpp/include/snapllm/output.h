// What the engine answers, and the queue the answers come through.
#pragma once

#include <cstddef>
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

// Where a prompt went another way than what was cached; -1 = nowhere, as far as it goes.
struct Difference {
  int32_t at = -1;  // position in the prompt
  Token cached_token = -1;
};

// How much of a prompt was reused, and why not more.
struct CacheReport {
  int32_t num_hot_tokens = 0;   // forked within the KV memory
  int32_t num_warm_tokens = 0;  // restored from RAM
  int32_t num_cold_tokens = 0;  // restored from disk
  double restore_ms = 0.0;      // admission until all of those were there
  Difference difference{};
  int32_t num_tokens() const { return num_hot_tokens + num_warm_tokens + num_cold_tokens; }
};

// The next piece of one request's answer. Exactly one output of a request has a
// finish reason, and it is the last.
struct RequestOutput {
  uint64_t request_id = 0;
  std::string text;  // whole UTF-8 characters; stop strings are never in it
  std::vector<Token> tokens;
  // Of each of them, how long the answer is with its text, in bytes since the beginning and
  // before a stop string is cut off. Part of a character counts with the rest of it.
  std::vector<size_t> token_ends;
  std::vector<TokenLogprobs> logprobs;
  // Of the prompt's tokens, where they were asked for; NaN for the first, which follows nothing.
  std::vector<TokenLogprobs> prompt_logprobs;
  int32_t num_computed_prompt_tokens = 0;  // so far, with the reused ones
  int32_t num_cached_tokens = 0;           // of the prompt, not computed but reused
  int32_t num_generated_tokens = 0;        // so far

  FinishReason finish_reason = FinishReason::kNone;
  // Below: set in the last output only.
  std::string stop_sequence;  // the stop string that ended it; empty otherwise
  Status error;               // with kError
  int32_t num_prompt_tokens = 0;
  CacheReport cache;
  int64_t seed = 0;
  RequestTimings timings;

  bool finished() const { return finish_reason != FinishReason::kNone; }
  // Whether the answer begins with it.
  bool begins() const {
    return !tokens.empty() && static_cast<size_t>(num_generated_tokens) == tokens.size();
  }
};

}  // namespace snapllm
