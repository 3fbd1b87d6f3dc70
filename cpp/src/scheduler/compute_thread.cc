#include "scheduler/compute_thread.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>

namespace snapllm {

std::shared_ptr<ComputeThread> ComputeThread::shared() {
  static std::mutex mutex;
  static std::weak_ptr<ComputeThread> of_process;
  static pid_t process = 0;
  std::lock_guard lock(mutex);
  auto found = of_process.lock();
  // A forked child has the object, but not the thread.
  if (found == nullptr || process != getpid()) {
    of_process = found = std::make_shared<ComputeThread>();
    process = getpid();
  }
  return found;
}

ComputeThread::ComputeThread() : thread_([this] { loop(); }) {}

ComputeThread::~ComputeThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = is_wanted_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void ComputeThread::attach(std::shared_ptr<Steppable> steppable) {
  {
    std::lock_guard lock(mutex_);
    attached_.push_back(std::move(steppable));
    is_wanted_ = true;
  }
  wake_.notify_all();
}

void ComputeThread::detach(const Steppable* steppable) {
  // On the compute thread, so that no step of it is under way.
  run([&] {
    std::lock_guard lock(mutex_);
    std::erase_if(attached_, [&](const auto& other) { return other.get() == steppable; });
    turns_.forget(steppable);
  });
}

void ComputeThread::notify() {
  {
    // The lock orders the caller's change before the thread's look at it.
    std::lock_guard lock(mutex_);
    is_wanted_ = true;
  }
  wake_.notify_one();
}

void ComputeThread::run(const std::function<void()>& task) {
  std::packaged_task<void()> packaged(task);
  auto done = packaged.get_future();
  {
    std::lock_guard lock(mutex_);
    tasks_.emplace_back([&packaged] { packaged(); });
    is_wanted_ = true;
  }
  wake_.notify_all();
  done.get();
}

bool ComputeThread::has_work() const {
  return !tasks_.empty() || std::any_of(attached_.begin(), attached_.end(),
                                        [](const auto& s) {
                                          return s->has_work() || s->has_idle_work();
                                        });
}

void ComputeThread::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stopping_ || has_work(); });
    if (stopping_ && tasks_.empty()) return;
    const auto tasks = std::exchange(tasks_, {});
    lock.unlock();
    for (const auto& task : tasks) task();
    lock.lock();
    step_next(lock);
  }
}

void ComputeThread::step_next(std::unique_lock<std::mutex>& lock) {
  using Clock = std::chrono::steady_clock;
  std::vector<FairTurns::Id> ready;
  for (const auto& steppable : attached_) {
    if (steppable->has_work()) ready.push_back(steppable.get());
  }
  if (ready.empty()) return step_idle(lock);
  const auto id = turns_.next(ready);
  const auto steppable =
      *std::find_if(attached_.begin(), attached_.end(), [&](auto& s) { return s.get() == id; });
  is_wanted_ = stopping_ || !tasks_.empty();
  lock.unlock();
  const auto start = Clock::now();
  steppable->step({.others_wait = ready.size() > 1, .is_wanted = &is_wanted_});
  turns_.charge(id, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  lock.lock();
}

void ComputeThread::step_idle(std::unique_lock<std::mutex>& lock) {
  const auto it = std::find_if(attached_.begin(), attached_.end(),
                               [](const auto& s) { return s->has_idle_work(); });
  if (it == attached_.end()) return;
  const auto steppable = *it;
  lock.unlock();
  steppable->step_idle();
  lock.lock();
}

}  // namespace snapllm
