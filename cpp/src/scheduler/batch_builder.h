// What one step computes: pure functions over the running sequences.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace snapllm {

// A running sequence as the plan sees it.
struct PendingWork {
  int32_t num_computed = 0;  // tokens in the KV memory
  int32_t num_pending = 0;   // tokens to compute before the next is sampled
  bool decoding = false;
  int32_t num_draft = 0;  // of a decoding one: guesses to be checked with its token
  int32_t next_cut = 0;  // a position no chunk may reach across; 0 = none
  bool is_scored = false;  // every token of the chunk has logits
};

struct BatchShare {
  size_t index = 0;  // into the list of PendingWork
  int32_t num_tokens = 0;
};

enum class PrefillPace {
  kShared,     // others wait for the end of the step: running streams, or other models
  kAlone,      // who comes meanwhile does, a cancellation or a new request
  kStoppable,  // who comes meanwhile stops it, and what it computed is lost
};

// Tokens of prefill one step may take: what fits the step's time at the measured speed (0 = not
// measured yet), at least a useful chunk. Of the batch at most, where it is shared of the ubatch;
// a longer time, since computing few rows at a time wastes some, stops at the ubatch, too. In whole
// ubatches or, below one, multiples of 32, so that kernels which compute rows in groups cut a
// prompt alike whatever the speed.
int32_t prefill_budget(PrefillPace pace, int32_t batch_tokens, int32_t ubatch_tokens,
                       double ms_per_prefill_token);

// Shares a step: every decoding sequence its token and its guesses, then prefill within
// `prefill_tokens`, most of it of who came first, the rest of who is nearest to its end. A chunk that does not reach its prompt's end is
// cut at a block boundary where one lies inside it, so that a prompt restored in
// blocks is later computed in the same pieces.
std::vector<BatchShare> plan_batch(std::span<const PendingWork> running, int32_t batch_tokens,
                                   int32_t prefill_tokens);

}  // namespace snapllm
