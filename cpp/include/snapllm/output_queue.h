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

  // Readable while outputs are waiting that may be taken. Owned by the queue.
  int fd() const { return fd_; }
  // Whether this is the process that made it. A forked child has no outputs to wait for, and
  // reading would take the wake-ups of its parent, with whom it shares the descriptor.
  bool is_of_this_process() const;

  // Appends a step's outputs at once; wakes the reader only when it slept.
  void push(std::vector<RequestOutput> outputs);

  // Takes everything that may be taken, in order, and makes the descriptor unreadable.
  std::vector<RequestOutput> drain();

  // Until `resume`, only requests whose answer begins or ends have their outputs taken, and wake the
  // reader: what goes on may wait for more of its kind.
  void rest();
  void resume();

 private:
  // Whether the reader has to be woken for what is waiting, and is not yet.
  bool has_to_wake();  // REQUIRES: mutex_
  void wake();

  const int fd_;
  const int process_;
  std::mutex mutex_;
  std::vector<RequestOutput> outputs_;  // guarded by mutex_
  size_t num_urgent_ = 0;               // of them, those that a rest does not hold; likewise
  bool is_resting_ = false;             // likewise
  bool is_woken_ = false;               // since the last drain; likewise
};

}  // namespace snapllm
