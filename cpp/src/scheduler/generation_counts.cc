#include "scheduler/generation_counts.h"

#include "scheduler/sequence.h"

namespace snapllm {

void GenerationCounts::note_token(const Sequence& sequence) {
  const bool is_first = sequence.num_generated() == 1;
  std::lock_guard lock(mutex_);
  (is_first ? counts_.time_to_first_token : counts_.inter_token_latency)
      .add(sequence.token_wait_ms());
}

void GenerationCounts::note_finished(const Sequence& sequence) {
  const CacheReport& cache = sequence.cache();
  std::lock_guard lock(mutex_);
  ++counts_.num_finished;
  if (sequence.finish_reason() == FinishReason::kCancelled) ++counts_.num_cancelled;
  if (sequence.finish_reason() == FinishReason::kError) ++counts_.num_failed;
  counts_.queue_time.add(sequence.queue_ms());
  counts_.num_prompt_tokens += static_cast<uint64_t>(sequence.num_prompt_tokens());
  counts_.num_generated_tokens += static_cast<uint64_t>(sequence.num_generated());
  counts_.num_cached_tokens += static_cast<uint64_t>(cache.num_tokens());
  counts_.num_hot_hits += static_cast<uint64_t>(cache.num_hot_tokens);
  counts_.num_warm_hits += static_cast<uint64_t>(cache.num_warm_tokens);
  counts_.num_cold_hits += static_cast<uint64_t>(cache.num_cold_tokens);
}

}  // namespace snapllm
