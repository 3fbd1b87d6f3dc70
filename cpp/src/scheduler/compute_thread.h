// The one thread of a device that computes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "scheduler/fair_turns.h"

namespace snapllm {

// What a step is to go by.
struct Turn {
  bool others_wait = false;  // something else wants to compute, so the step should be a short one
  // Becomes true when something new comes meanwhile, for what can stop half-way; null = it never
  // does.
  const std::atomic<bool>* is_wanted = nullptr;
};

// Something that computes in small steps.
class Steppable {
 public:
  virtual ~Steppable() = default;
  virtual bool has_work() const = 0;
  virtual void step(const Turn& turn) = 0;
  // What can wait until nothing else computes, also in small steps.
  virtual bool has_idle_work() const { return false; }
  virtual void step_idle() {}
};

// Steps everything attached that has work, so that each gets the same share of the time, and
// sleeps while nobody has. A single long-lived thread, since ggml's OpenMP teams belong to their
// host thread: a second one would double the spinning workers.
class ComputeThread {
 public:
  // The one of this process, shared by all engines and there as long as one is: where there
  // are more OpenMP workers than cores, libgomp lets them sleep at every barrier, and small
  // models decode five times slower.
  static std::shared_ptr<ComputeThread> shared();

  ComputeThread();
  ~ComputeThread();
  ComputeThread(const ComputeThread&) = delete;
  ComputeThread& operator=(const ComputeThread&) = delete;

  void attach(std::shared_ptr<Steppable> steppable);
  // Returns when it is no longer being stepped and never will be again.
  // REQUIRES: not called on the compute thread.
  void detach(const Steppable* steppable);
  // Says that something attached may have work.
  void notify();
  // Runs `task` between two steps and waits for it.
  // REQUIRES: not called on the compute thread.
  void run(const std::function<void()>& task);

 private:
  void loop();
  // Steps whoever's turn it is, or where nobody has work, one with idle work.
  // REQUIRES: `lock` holds mutex_
  void step_next(std::unique_lock<std::mutex>& lock);
  void step_idle(std::unique_lock<std::mutex>& lock);
  bool has_work() const;  // REQUIRES: mutex_ held

  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_:
  std::vector<std::shared_ptr<Steppable>> attached_;
  std::vector<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::atomic<bool> is_wanted_ = false;  // read without it, too

  FairTurns turns_;  // compute thread only
  std::thread thread_;  // last: started when all else is there
};

}  // namespace snapllm
