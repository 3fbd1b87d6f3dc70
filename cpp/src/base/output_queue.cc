#include "snapllm/output_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iterator>
#include <system_error>

namespace snapllm {

OutputQueue::OutputQueue() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), process_(getpid()) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

OutputQueue::~OutputQueue() { ::close(fd_); }

bool OutputQueue::is_of_this_process() const { return getpid() == process_; }

void OutputQueue::push(std::vector<RequestOutput> outputs) {
  if (outputs.empty()) return;
  bool was_empty = false;
  {
    std::lock_guard lock(mutex_);
    was_empty = outputs_.empty();
    if (was_empty) {
      outputs_ = std::move(outputs);
    } else {
      outputs_.insert(outputs_.end(), std::make_move_iterator(outputs.begin()),
                      std::make_move_iterator(outputs.end()));
    }
  }
  // While outputs wait the descriptor is readable already, so the reader is
  // woken once however many steps it misses.
  if (was_empty) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
  }
}

std::vector<RequestOutput> OutputQueue::drain() {
  // The descriptor is cleared before the outputs are taken: a push in between
  // then leaves a spurious wake-up, never a lost one.
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = ::read(fd_, &count, sizeof(count));
  std::lock_guard lock(mutex_);
  return std::exchange(outputs_, {});
}

}  // namespace snapllm
