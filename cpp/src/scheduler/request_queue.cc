#include "scheduler/request_queue.h"

#include <iterator>
#include <string>

namespace snapllm {

Status RequestQueue::push(std::unique_ptr<Sequence> sequence) {
  std::lock_guard lock(mutex_);
  if (closed_) return {StatusCode::kClosed, "the model is being unloaded"};
  if (num_waiting_ >= max_waiting_) {
    return {StatusCode::kQueueFull,
            "the model's queue is full (" + std::to_string(max_waiting_) + " requests wait)"};
  }
  ++num_waiting_;
  live_.insert(sequence->request_id());
  arrivals_.push_back(std::move(sequence));
  return {};
}

bool RequestQueue::cancel(uint64_t request_id) {
  std::lock_guard lock(mutex_);
  if (live_.count(request_id) == 0) return false;
  cancels_.push_back(request_id);
  return true;
}

void RequestQueue::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

void RequestQueue::take(std::deque<std::unique_ptr<Sequence>>& arrivals,
                        std::vector<uint64_t>& cancels) {
  std::lock_guard lock(mutex_);
  std::move(arrivals_.begin(), arrivals_.end(), std::back_inserter(arrivals));
  arrivals_.clear();
  cancels = std::exchange(cancels_, {});
}

void RequestQueue::note_admitted(size_t count) {
  std::lock_guard lock(mutex_);
  num_waiting_ -= count;
}

void RequestQueue::note_preempted() {
  std::lock_guard lock(mutex_);
  ++num_waiting_;
}

void RequestQueue::note_finished(uint64_t request_id, bool was_waiting) {
  std::lock_guard lock(mutex_);
  live_.erase(request_id);
  if (was_waiting) --num_waiting_;
  if (!live_.empty()) return;
  idle_since_ = std::chrono::steady_clock::now();
  idle_.notify_all();
}

bool RequestQueue::has_arrivals() const {
  std::lock_guard lock(mutex_);
  return !arrivals_.empty() || !cancels_.empty();
}

bool RequestQueue::is_idle() const {
  std::lock_guard lock(mutex_);
  return live_.empty();
}

std::chrono::steady_clock::time_point RequestQueue::idle_since() const {
  std::lock_guard lock(mutex_);
  return idle_since_;
}

void RequestQueue::wait_idle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  idle_.wait_until(lock, deadline, [&] { return live_.empty(); });
}

int32_t RequestQueue::num_waiting() const {
  std::lock_guard lock(mutex_);
  return static_cast<int32_t>(num_waiting_);
}

}  // namespace snapllm
