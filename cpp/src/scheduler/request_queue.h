// Requests on their way to the compute thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <utility>
#include <vector>

#include "scheduler/sequence.h"
#include "snapllm/status.h"

namespace snapllm {

// Bounded hand-over of new requests and of cancellations. Any thread pushes; the
// compute thread takes. Knows which requests are alive, so that a cancellation of
// anything else is refused at once.
class RequestQueue {
 public:
  explicit RequestQueue(size_t max_waiting) : max_waiting_(max_waiting) {}

  // Fails with kQueueFull at the bound and with kClosed after close().
  Status push(std::unique_ptr<Sequence> sequence);
  // False when no such request is alive.
  bool cancel(uint64_t request_id);
  // Refuses new requests from now on.
  void close();

  // Moves everything that arrived since the last call out.
  void take(std::deque<std::unique_ptr<Sequence>>& arrivals, std::vector<uint64_t>& cancels);
  // Says that requests were admitted, and so no longer count against the bound.
  void note_admitted(size_t count);
  // Says that an admitted request waits again.
  void note_preempted();
  // Says that a request has ended; `was_waiting`: without having been admitted.
  void note_finished(uint64_t request_id, bool was_waiting);

  bool has_arrivals() const;
  // Whether no request is alive.
  bool is_idle() const;
  // When the last request ended that left none alive; the clock's beginning when none has.
  std::chrono::steady_clock::time_point idle_since() const;
  // Waits until no request is alive, or for the deadline.
  void wait_idle(std::chrono::steady_clock::time_point deadline);
  int32_t num_waiting() const;

 private:
  const size_t max_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  // Guarded by mutex_:
  std::vector<std::unique_ptr<Sequence>> arrivals_;
  std::vector<uint64_t> cancels_;
  std::unordered_set<uint64_t> live_;
  size_t num_waiting_ = 0;
  std::chrono::steady_clock::time_point idle_since_;
  bool closed_ = false;
};

}  // namespace snapllm
