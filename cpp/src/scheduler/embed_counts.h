// What a model embeds, counted beside what its scheduler computes.
#pragma once

#include <mutex>
#include <utility>

#include "snapllm/stats.h"

namespace snapllm {

// Thread-safe. Each input is a request, as each answer of a chat is.
class EmbedCounts {
 public:
  // Calls `change` with the counts, alone.
  template <typename Change>
  void update(Change&& change) {
    std::lock_guard lock(mutex_);
    std::forward<Change>(change)(counts_);
  }
  void add_to(ModelStats& stats) const {
    std::lock_guard lock(mutex_);
    stats.add_counters(counts_);
    stats.num_waiting += counts_.num_waiting;
    stats.num_running += counts_.num_running;
  }

 private:
  mutable std::mutex mutex_;
  ModelStats counts_;  // guarded by mutex_
};

}  // namespace snapllm
