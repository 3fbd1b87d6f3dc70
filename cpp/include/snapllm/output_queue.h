// The one way up: a queue of outputs with an eventfd that an event loop can watch.
#pragma once

#include <mutex>
#include <vector>

#include "snapllm/output.h"

namespace snapllm {

// Many requests may share a queue (an asyncio pump has one for all of its own);
// a blocking caller makes one for each request. Thread-safe.
class OutputQueue {
 public:
  OutputQueue();  // throws std::system_error when no descriptor can be had
  ~OutputQueue();
  OutputQueue(const OutputQueue&) = delete;
  OutputQueue& operator=(const OutputQueue&) = delete;

  // Readable while outputs are waiting. Owned by the queue.
  int fd() const { return fd_; }
  // Whether this is the process that made it. A forked child has no outputs to wait for, and
  // reading would take the wake-ups of its parent, with whom it shares the descriptor.
  bool is_of_this_process() const;

  // Appends a step's outputs at once; wakes the reader only when it slept.
  void push(std::vector<RequestOutput> outputs);

  // Takes everything that is waiting and makes the descriptor unreadable.
  std::vector<RequestOutput> drain();

 private:
  const int fd_;
  const int process_;
  std::mutex mutex_;
  std::vector<RequestOutput> outputs_;  // guarded by mutex_
};

}  // namespace snapllm
