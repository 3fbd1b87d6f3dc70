// What a model generates, counted as its scheduler computes.
#pragma once

#include <mutex>
#include <string>
#include <utility>

#include "snapllm/stats.h"

namespace snapllm {

class Sequence;

// Thread-safe.
class GenerationCounts {
 public:
  explicit GenerationCounts(std::string model_id) { counts_.id = std::move(model_id); }

  // Calls `change` with the counts, alone.
  template <typename Change>
  void update(Change&& change) {
    std::lock_guard lock(mutex_);
    std::forward<Change>(change)(counts_);
  }
  // Says that a sequence has accepted a token.
  void note_token(const Sequence& sequence);
  // Says that a request has ended, in whatever way.
  void note_finished(const Sequence& sequence);
  ModelStats read() const {
    std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  ModelStats counts_;  // guarded by mutex_
};

}  // namespace snapllm
