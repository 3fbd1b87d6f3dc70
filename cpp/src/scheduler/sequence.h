// One request on its way through the scheduler.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/text_backend.h"
#include "base/utf8.h"
#include "scheduler/stop_matcher.h"
#include "snapllm/output_queue.h"

namespace snapllm {

enum class SequenceState { kWaiting, kPrefilling, kDecoding, kFinished };

// Owned by the request queue while it waits and by the scheduler afterwards; only
// the compute thread touches it once it was admitted.
class Sequence {
 public:
  using Clock = std::chrono::steady_clock;

  // REQUIRES: prompt not empty, max_tokens > 0.
  Sequence(uint64_t request_id, GenerateRequest request, std::unique_ptr<Sampler> sampler,
           std::shared_ptr<OutputQueue> outputs);

  uint64_t request_id() const { return request_id_; }
  SequenceState state() const { return state_; }
  Sampler& sampler() { return *sampler_; }
  OutputQueue& outputs() { return *outputs_; }
  const ChatPrompt* chat() const { return request_.chat.get(); }
  SequenceId id() const { return id_; }
  FinishReason finish_reason() const { return finish_reason_; }

  int32_t num_prompt_tokens() const { return static_cast<int32_t>(request_.prompt.size()); }
  int32_t num_computed() const { return num_computed_; }
  int32_t num_generated() const { return num_generated_; }
  // KV cells the sequence needs at most.
  int32_t num_reserved_cells() const { return num_prompt_tokens() + request_.max_tokens; }
  // Tokens that are to be computed before the next one can be sampled.
  int32_t num_pending() const;

  void admit(SequenceId id);
  // Appends the next `num_tokens` pending tokens; the last of all asks for logits.
  // REQUIRES: 0 < num_tokens <= num_pending()
  void append_to_batch(int32_t num_tokens, std::vector<BatchEntry>& batch) const;
  // Says that those tokens were computed.
  void advance(int32_t num_tokens);

  // Takes a sampled token. `bytes` are its text; `is_end` says that it ends the
  // generation. May finish the sequence.
  void accept(SampledToken sampled, std::string_view bytes, bool is_end);
  void finish(FinishReason reason, Status error = {});

  // The output since the last call; empty pieces are left out unless final.
  bool has_output() const;
  RequestOutput take_output();

 private:
  void fill_final(RequestOutput& output) const;

  const uint64_t request_id_;
  const GenerateRequest request_;
  const std::unique_ptr<Sampler> sampler_;
  const std::shared_ptr<OutputQueue> outputs_;

  SequenceState state_ = SequenceState::kWaiting;
  SequenceId id_ = -1;
  int32_t num_computed_ = 0;  // tokens in the KV memory
  int32_t num_generated_ = 0;
  Token last_token_ = -1;  // generated, not yet computed
  Utf8Decoder utf8_;
  StopMatcher stop_;
  RequestOutput output_;  // collected since take_output
  FinishReason finish_reason_ = FinishReason::kNone;
  Status error_;
  Clock::time_point submitted_at_ = Clock::now();
  Clock::time_point admitted_at_{};
  Clock::time_point first_token_at_{};
  Clock::time_point finished_at_{};
};

}  // namespace snapllm
