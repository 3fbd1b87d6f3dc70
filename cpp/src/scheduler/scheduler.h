// Continuous batching for one resident model.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "backend/text_backend.h"
#include "scheduler/batch_builder.h"
#include "scheduler/compute_thread.h"
#include "scheduler/embed_counts.h"
#include "scheduler/generation_counts.h"
#include "scheduler/prefix_cache.h"
#include "scheduler/request_queue.h"
#include "scheduler/sequence.h"
#include "snapllm/stats.h"

namespace snapllm {

class Scheduler : public Steppable {
 public:
  // `store` may be null.
  Scheduler(LoadedModel loaded, int32_t max_queued_requests,
            std::shared_ptr<KvStore> store = nullptr);
  ~Scheduler() override;

  // Any thread. The request's tokens and limits were checked by the engine.
  Status submit(std::unique_ptr<Sequence> sequence);
  // Any thread: ends the request at the next step; false when it is not alive.
  bool cancel(uint64_t request_id) { return queue_.cancel(request_id); }
  // Any thread: refuses new requests.
  void close() { queue_.close(); }
  // Any thread: whether no request is alive.
  bool is_idle() const { return queue_.is_idle(); }
  // Any thread: since when nothing of it is computed, if nothing is; the clock's beginning when
  // nothing ever was.
  std::chrono::steady_clock::time_point idle_since() const {
    return std::max(queue_.idle_since(), embed_counts_.ended_at());
  }
  // Waits until no request is alive, or for the deadline.
  void wait_idle(std::chrono::steady_clock::time_point deadline) { queue_.wait_idle(deadline); }
  // Any thread: what is computed of this model, embeddings included.
  ModelStats stats() const;
  EmbedCounts& embed_counts() { return embed_counts_; }
  // Any thread: whether the tokens are hot.
  bool is_hot(const Hash128& root, std::span<const Token> tokens) const {
    return prefix_cache_.is_hot(root, tokens);
  }

  // Compute thread only.
  bool has_work() const override;
  void step(const Turn& turn) override;
  // What stays hot is stored while nothing computes.
  bool has_idle_work() const override { return prefix_cache_.has_unsaved(); }
  void step_idle() override { prefix_cache_.save_some(); }
  // Ends every request, with `status` as its error, and stores what is hot.
  // REQUIRES: !status.ok()
  void abort_all(const Status& status);
  // Ok until abort_all; then why nothing of the model is to be computed any more.
  const Status& end_status() const { return end_status_; }
  TextContext& context() { return *context_; }
  // Stores what is hot and was to be stored when nothing computes.
  void save_hot() { prefix_cache_.save_all(); }
  // Moves a prefix into the KV memory, or out of it (see PrefixCache).
  Status promote(const Hash128& root, std::span<const Token> tokens, const StoredPrefix& stored);
  void demote(const Hash128& root, std::span<const Token> tokens,
              std::span<const std::vector<Token>> kept);

 private:
  void take_arrivals();
  void cancel_request(uint64_t request_id);
  void admit();
  // Starts the request with the prefix that the plan found for it.
  void start(std::unique_ptr<Sequence> sequence, PrefixPlan plan);
  int32_t num_free_cells() const;
  // Grants the running sequences the cells of their next step, the oldest first. Where
  // there are none left the youngest is preempted, to go on before all that wait.
  void grant_cells();
  void preempt_youngest();
  // Computes one batch of text and samples from it.
  void decode(const Turn& turn);
  // How the prompts in `work` are to be computed in this step.
  PrefillPace pace(std::span<const PendingWork> work, const Turn& turn) const;
  // Says that a batch took so long, and was computed or was stopped.
  void note_stoppable(double ms, bool was_stopped);
  // Encodes or computes the media that a sequence has come to: one piece a step, so that
  // the others' text goes on in between.
  void compute_media();
  Status decode_span(Sequence& sequence);
  // Notes the log probabilities of what follows in the prompt, for tokens of it that were computed
  // as the batch's entries from `begin` on.
  void score(Sequence& sequence, int32_t begin, int32_t num_computed);
  // Says that so many of the sequence's tokens are now in the KV memory.
  void note_computed(Sequence& sequence, int32_t num_tokens);
  // Lets the decoding sequences guess ahead, where they are few.
  void draft();
  void sample(const std::vector<BatchShare>& shares, const std::vector<int32_t>& output_index);
  // Samples what a sequence computed in this step, as far as its guesses were right. The index is
  // that of its token before them.
  void sample_share(const BatchShare& share, int32_t output_index);
  void fail_shares(const std::vector<BatchShare>& shares, const Status& status);
  void accept_token(Sequence& sequence, SampledToken sampled);
  // Sends what there is to send, and keeps what those that ended computed.
  void hand_over();
  void flush_outputs();
  void release_finished();
  std::vector<PendingWork> pending_work() const;
  void update_stats();
  void check_invariants() const;

  const std::shared_ptr<const TextModel> model_;
  const std::unique_ptr<TextContext> context_;
  PrefixCache prefix_cache_;
  RequestQueue queue_;
  EmbedCounts embed_counts_;
  GenerationCounts counts_;

  // Compute thread only:
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<SequenceId> free_ids_;
  std::vector<BatchEntry> batch_;
  Status end_status_;
  std::deque<uint64_t> media_turns_;  // requests that have come to media, in their order
  int32_t num_reserved_cells_ = 0;  // by running sequences, without what they share
  double ms_per_prefill_token_ = 0.0;  // moving average
  double owed_ms_ = 0.0;  // of computing that nothing stops, for what was lost where it was
};

}  // namespace snapllm
