#include "snapllm/output_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <system_error>
#include <unordered_set>
#include <utility>

namespace snapllm {
namespace {

bool is_urgent(const RequestOutput& output) { return output.begins() || output.finished(); }

// Leaves in `outputs` those of requests that have an urgent one, and returns the others, both in order.
std::vector<RequestOutput> split_off_waiting(std::vector<RequestOutput>& outputs, size_t num_urgent) {
  if (num_urgent == 0) return std::exchange(outputs, {});
  std::unordered_set<uint64_t> urgent;
  for (const RequestOutput& output : outputs) {
    if (is_urgent(output)) urgent.insert(output.request_id);
  }
  const auto rest = std::ranges::stable_partition(
      outputs, [&](const RequestOutput& output) { return urgent.contains(output.request_id); });
  std::vector<RequestOutput> waiting(std::make_move_iterator(rest.begin()),
                                     std::make_move_iterator(rest.end()));
  outputs.erase(rest.begin(), rest.end());
  return waiting;
}

}  // namespace

OutputQueue::OutputQueue() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), process_(getpid()) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

OutputQueue::~OutputQueue() { ::close(fd_); }

bool OutputQueue::is_of_this_process() const { return getpid() == process_; }

void OutputQueue::push(std::vector<RequestOutput> outputs) {
  if (outputs.empty()) return;
  bool must_wake = false;
  {
    std::lock_guard lock(mutex_);
    num_urgent_ += static_cast<size_t>(std::ranges::count_if(outputs, is_urgent));
    if (outputs_.empty()) {
      outputs_ = std::move(outputs);
    } else {
      outputs_.insert(outputs_.end(), std::make_move_iterator(outputs.begin()),
                      std::make_move_iterator(outputs.end()));
    }
    must_wake = has_to_wake();
  }
  if (must_wake) wake();
}

std::vector<RequestOutput> OutputQueue::drain() {
  // The descriptor is cleared before the outputs are taken: a push in between
  // then leaves a spurious wake-up, never a lost one.
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(fd_, &count, sizeof(count));
  std::lock_guard lock(mutex_);
  is_woken_ = false;
  std::vector<RequestOutput> taken = std::exchange(outputs_, {});
  if (is_resting_) outputs_ = split_off_waiting(taken, num_urgent_);
  num_urgent_ = 0;
  return taken;
}

void OutputQueue::rest() {
  std::lock_guard lock(mutex_);
  is_resting_ = true;
}

void OutputQueue::resume() {
  bool must_wake = false;
  {
    std::lock_guard lock(mutex_);
    is_resting_ = false;
    must_wake = has_to_wake();
  }
  if (must_wake) wake();
}

// The reader is woken once, however many steps it misses.
bool OutputQueue::has_to_wake() {
  const bool may_take = is_resting_ ? num_urgent_ > 0 : !outputs_.empty();
  return may_take && !std::exchange(is_woken_, is_woken_ || may_take);
}

void OutputQueue::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
}

}  // namespace snapllm
