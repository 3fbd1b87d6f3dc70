// One thread that works off tasks in order, for files.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace snapllm {

class IoThread {
 public:
  IoThread();
  ~IoThread();  // works off what is queued
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  void push(std::function<void()> task);
  // Waits until everything pushed before is done.
  // REQUIRES: not called on the thread itself
  void flush();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::thread thread_;                       // last: started when all else is there
};

}  // namespace snapllm
