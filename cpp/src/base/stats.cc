#include "snapllm/stats.h"

namespace snapllm {

void ModelStats::add_counters(const ModelStats& other) {
  num_requests += other.num_requests;
  num_finished += other.num_finished;
  num_cancelled += other.num_cancelled;
  num_failed += other.num_failed;
  num_prompt_tokens += other.num_prompt_tokens;
  num_cached_tokens += other.num_cached_tokens;
  num_generated_tokens += other.num_generated_tokens;
  num_embedded_tokens += other.num_embedded_tokens;
  num_encoded_media += other.num_encoded_media;
  num_steps += other.num_steps;
  num_batch_tokens += other.num_batch_tokens;
  num_batch_sequences += other.num_batch_sequences;
  queue_time.add(other.queue_time);
  time_to_first_token.add(other.time_to_first_token);
  inter_token_latency.add(other.inter_token_latency);
  num_loads += other.num_loads;
  num_evictions += other.num_evictions;
  load_ms += other.load_ms;
  num_hot_hits += other.num_hot_hits;
  num_warm_hits += other.num_warm_hits;
  num_cold_hits += other.num_cold_hits;
  num_failed_restores += other.num_failed_restores;
  num_draft_tokens += other.num_draft_tokens;
  num_accepted_draft_tokens += other.num_accepted_draft_tokens;
  num_stopped_steps += other.num_stopped_steps;
  num_preemptions += other.num_preemptions;
}

}  // namespace snapllm
