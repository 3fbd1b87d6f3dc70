// What a model embeds, counted beside what its scheduler computes.
#pragma once

#include <chrono>
#include <mutex>
#include <utility>

#include "snapllm/stats.h"

namespace snapllm {

// Thread-safe. Each input is a request, as each answer of a chat is.
class EmbedCounts {
 public:
  using Clock = std::chrono::steady_clock;

  // Calls `change` with the counts, alone.
  template <typename Change>
  void update(Change&& change) {
    std::lock_guard lock(mutex_);
    std::forward<Change>(change)(counts_);
  }
  // Says that a job has ended.
  void note_ended() {
    std::lock_guard lock(mutex_);
    ended_at_ = Clock::now();
  }
  // When the last job ended; the clock's beginning when none has.
  Clock::time_point ended_at() const {
    std::lock_guard lock(mutex_);
    return ended_at_;
  }
  void add_to(ModelStats& stats) const {
    std::lock_guard lock(mutex_);
    stats.add_counters(counts_);
    stats.num_waiting += counts_.num_waiting;
    stats.num_running += counts_.num_running;
  }

 private:
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  ModelStats counts_;
  Clock::time_point ended_at_;
};

}  // namespace snapllm
