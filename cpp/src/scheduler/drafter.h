// Guesses the next tokens of a sequence from its own earlier text (prompt lookup): answers
// that quote a document or rewrite a file say again what was said. The guesses are
// computed in one batch and kept as far as the sampler draws the same tokens, so they
// change the time an answer takes and not the answer.
//
// Source: https://github.com/apoorvumang/prompt-lookup-decoding
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "snapllm/request.h"

namespace snapllm {

// What followed the latest earlier occurrence of the last tokens: of the longest run of
// them, between kMinMatch and kMaxMatch, that occurs earlier. At most `max_tokens`; none
// where there is no occurrence. Virtual tokens (negative) are never guessed.
inline constexpr int32_t kMinMatch = 3;
inline constexpr int32_t kMaxMatch = 8;
std::vector<Token> lookup_draft(std::span<const Token> tokens, int32_t max_tokens);

// How much one sequence guesses, by how well it went.
class Drafter {
 public:
  // `max_tokens` a guess; 0 = never.
  explicit Drafter(int32_t max_tokens) : max_tokens_(max_tokens) {}

  // The next tokens after `tokens`, `room` at most. Empty while guessing does not pay.
  std::vector<Token> propose(std::span<const Token> tokens, int32_t room);
  // Says how many of the proposed tokens were right.
  void note(int32_t num_proposed, int32_t num_accepted);

  int32_t num_proposed() const { return num_proposed_; }
  int32_t num_accepted() const { return num_accepted_; }

 private:
  static constexpr int32_t kFirstLimit = 4;
  static constexpr int32_t kMaxPause = 32;

  const int32_t max_tokens_;
  int32_t limit_ = kFirstLimit;  // of the next guess: doubles with success
  int32_t pause_ = 0;            // steps to sit out, doubled by each failure in a row
  int32_t next_pause_ = 1;
  int32_t num_proposed_ = 0;
  int32_t num_accepted_ = 0;
};

}  // namespace snapllm
