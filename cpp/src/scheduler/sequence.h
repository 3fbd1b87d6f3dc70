// One request on its way through the scheduler.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/text_backend.h"
#include "base/utf8.h"
#include "scheduler/drafter.h"
#include "scheduler/answer_stops.h"
#include "scheduler/stop_matcher.h"
#include "snapllm/output_queue.h"
#include "store/kv_store.h"

namespace snapllm {

struct HotPrefix;

enum class SequenceState { kWaiting, kPrefilling, kDecoding, kFinished };

// What a sequence may reuse of earlier prompts.
struct PrefixSource {
  Hash128 root;             // of its model and namespace
  StoredPrefix prefetched;  // what the store had when the request came, as far as RAM held it
};

// Owned by the request queue while it waits and by the scheduler afterwards; only
// the compute thread touches it once it was admitted.
class Sequence {
 public:
  using Clock = std::chrono::steady_clock;

  // REQUIRES: prompt not empty, max_tokens > 0.
  Sequence(uint64_t request_id, GenerateRequest request, std::unique_ptr<Sampler> sampler,
           std::shared_ptr<OutputQueue> outputs, PrefixSource prefix = {},
           int32_t max_draft_tokens = 0);

  uint64_t request_id() const { return request_id_; }
  SequenceState state() const { return state_; }
  Sampler& sampler() { return *sampler_; }
  OutputQueue& outputs() { return *outputs_; }
  const ChatPrompt* chat() const { return request_.chat.get(); }
  // What its KV is under: an id of its own, or that of the hot prefix which it borrowed.
  SequenceId id() const { return id_; }
  FinishReason finish_reason() const { return finish_reason_; }

  int32_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int32_t num_computed() const { return num_computed_; }
  int32_t num_generated() const { return num_generated_; }
  std::span<const Token> prompt() const {
    return std::span(tokens_).first(static_cast<size_t>(num_prompt_tokens_));
  }
  // The prompt and what was generated, and of these what is in the KV memory.
  std::span<const Token> tokens() const { return tokens_; }
  std::span<const Token> computed_tokens() const {
    return std::span(tokens_).first(static_cast<size_t>(num_computed_));
  }
  bool is_prefill_only() const { return request_.prefill_only; }
  // KV cells the sequence needs at most, and of these those it shares with its base.
  int32_t num_total_cells() const {
    return num_prompt_tokens_ + (request_.prefill_only ? 0 : request_.max_tokens);
  }
  int32_t num_shared() const { return num_shared_; }
  // Answers are mostly far shorter than they may be, so cells are granted as it grows; all
  // at once where it cannot be preempted.
  int32_t num_first_cells() const;
  // More cells to be granted before the next step; 0 = enough are.
  int32_t num_missing_cells() const;
  void grant(int32_t num_cells) { num_granted_ += num_cells; }
  int32_t num_reserved_cells() const { return num_granted_ - num_shared_; }
  // Whether it can give its cells back and go on later: what it computed may be kept.
  bool can_preempt() const { return reuses_prefix() && !is_prefill_only(); }
  // Back to waiting, with nothing in the KV memory. What was generated stays.
  void preempt();
  // Tokens that are to be computed before the next one can be sampled.
  int32_t num_pending() const;

  // Where the prompt shows media. A span is computed as a whole, by itself.
  const MediaSpan* next_span() const;  // the first that is not computed yet; null = none
  bool is_at_span() const { return next_span() != nullptr && next_span()->begin == num_computed_; }
  // Of the pending tokens, those before the next span.
  int32_t num_pending_text() const;
  // The place of a token among the sequence's positions.
  // REQUIRES: not within a span
  int32_t position_of(int32_t index) const;
  // The count itself, or the beginning of the span it lies in: what can be reused.
  int32_t cut_before_span(int32_t num_tokens) const;

  bool reuses_prefix() const { return request_.reuses_prefix(); }
  const Hash128& root() const { return prefix_.root; }
  const StoredPrefix& prefetched() const { return prefix_.prefetched; }
  void forget_prefetched() { prefix_.prefetched = {}; }
  // Whether tokens of its prompt are still to get log probabilities.
  bool is_scored() const { return is_scored_ && state_ == SequenceState::kPrefilling; }
  int32_t num_prompt_logprobs() const { return request_.num_prompt_logprobs; }
  // The prompt's token behind the one that is `ahead` of those computed; none = it has ended.
  std::optional<Token> next_of_prompt(int32_t ahead) const;
  void add_prompt_logprobs(TokenLogprobs logprobs);
  // Tokens that may be reused: one is computed for its logits.
  int32_t max_reusable() const {
    return static_cast<int32_t>(tokens_.size()) - (request_.prefill_only ? 0 : 1);
  }

  void admit(SequenceId id);
  // Says that the first tokens were reused; `base` is the hot prefix with which
  // `num_shared` of their cells are shared, or null.
  // REQUIRES: admitted, nothing computed
  void begin_from(const CacheReport& reused, HotPrefix* base, int32_t num_shared);
  HotPrefix* base() const { return base_; }
  // Goes on under the id of a hot prefix that its tokens begin with, until that is returned.
  // REQUIRES: admitted, nothing computed
  void borrow(HotPrefix* lender, SequenceId id) { lender_ = lender, id_ = id; }
  // Under its own id again, which has no KV yet.
  void return_id() { lender_ = nullptr, id_ = own_id_; }
  HotPrefix* lender() const { return lender_; }  // null = it has borrowed no id
  SequenceId own_id() const { return own_id_; }
  // Gives its own id, which has no KV, for the borrowed one, which it keeps.
  SequenceId swap_ids() {
    lender_ = nullptr;
    return std::exchange(own_id_, id_);
  }
  void rebase(HotPrefix* base, int32_t num_shared) { base_ = base, num_shared_ = num_shared; }
  void note_difference(const Difference& difference);
  const CacheReport& cache() const { return cache_; }
  // Positions in the prompt where its state is to be kept (see checkpoint_cuts).
  void set_cuts(const std::vector<int32_t>& cuts) { cuts_.assign(cuts.begin(), cuts.end()); }
  // The next of them, 0 when there is none.
  int32_t next_cut() const { return cuts_.empty() ? 0 : cuts_.front(); }
  // The last of them that is no later than `position`, 0 when there is none.
  int32_t last_cut_up_to(int32_t position) const;
  // Whether the sequence stands at the next cut; the cut is then done with.
  bool take_cut();
  // Guesses the tokens after the pending one; see Drafter.
  // REQUIRES: decoding
  void draft();
  void drop_draft() { draft_.clear(); }
  const std::vector<Token>& drafted() const { return draft_; }
  Drafter& drafter() { return drafter_; }
  // Appends the next `num_tokens` tokens: pending ones, of which the last asks for logits, or all
  // do that are scored, and then drafted ones, which all do.
  // REQUIRES: 0 < num_tokens <= num_pending_text() + drafted().size()
  void append_to_batch(int32_t num_tokens, std::vector<BatchEntry>& batch) const;
  // Says that those tokens were computed.
  void advance(int32_t num_tokens);

  // Takes a sampled token. `bytes` are its text; `is_end` says that it ends the
  // generation. May finish the sequence.
  void accept(SampledToken sampled, std::string_view bytes, bool is_end);
  void finish(FinishReason reason, Status error = {});
  // Milliseconds until it was admitted, or ended without having been.
  double queue_ms() const;
  // Milliseconds from the token before to the last, or from the submission to the first.
  double token_wait_ms() const { return token_wait_ms_; }

  // The output since the last call; empty pieces are left out unless final.
  bool has_output() const;
  RequestOutput take_output();

 private:
  void fill_final(RequestOutput& output) const;

  const uint64_t request_id_;
  GenerateRequest request_;  // without its prompt, which begins tokens_
  const int32_t num_prompt_tokens_;
  const bool is_scored_;
  const std::unique_ptr<Sampler> sampler_;
  const std::shared_ptr<OutputQueue> outputs_;

  SequenceState state_ = SequenceState::kWaiting;
  SequenceId id_ = -1;
  SequenceId own_id_ = -1;
  HotPrefix* lender_ = nullptr;
  int32_t num_computed_ = 0;  // tokens in the KV memory
  int32_t num_generated_ = 0;
  std::vector<Token> tokens_;  // the prompt, then those generated
  PrefixSource prefix_;
  HotPrefix* base_ = nullptr;
  int32_t num_shared_ = 0;
  int32_t num_granted_ = 0;  // cells, with those it shares
  std::deque<int32_t> cuts_;
  Drafter drafter_;
  std::vector<Token> draft_;  // guessed in this step
  CacheReport cache_;  // of its first admission
  bool was_preempted_ = false;
  Utf8Decoder utf8_;
  size_t num_text_bytes_ = 0;  // that it gave so far
  StopMatcher format_stops_;
  AnswerStops stops_;
  RequestOutput output_;  // collected since take_output
  FinishReason finish_reason_ = FinishReason::kNone;
  Status error_;
  Clock::time_point submitted_at_ = Clock::now();
  Clock::time_point admitted_at_{};
  Clock::time_point first_token_at_{};
  Clock::time_point last_token_at_{};
  double token_wait_ms_ = 0.0;
  Clock::time_point finished_at_{};
};

}  // namespace snapllm
