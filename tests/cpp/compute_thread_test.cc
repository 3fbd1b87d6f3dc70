#include "scheduler/compute_thread.h"

#include <poll.h>

#include <cctype>
#include <functional>
#include <future>
#include <latch>
#include <stdexcept>

#include "check.h"
#include "fake_backend.h"
#include "scheduler/scheduler.h"

namespace snapllm {
namespace {

// Has a given number of steps to do; counts and names those it did, in capitals where others waited.
class Countdown : public Steppable {
 public:
  explicit Countdown(std::string* log = nullptr, char name = '?') : log_(log), name_(name) {}

  void give(int num_steps) { left_ += num_steps; }
  int num_done() const { return num_done_; }
  bool wait_done(int num_steps) {
    const auto deadline = testing::far_deadline();
    std::unique_lock lock(mutex_);
    return stepped_.wait_until(lock, deadline, [&] { return num_done_ >= num_steps; });
  }

  bool has_work() const override { return left_ > 0; }
  void step(const Turn& turn) override {
    if (log_ != nullptr) *log_ += turn.others_wait ? static_cast<char>(std::toupper(name_)) : name_;
    --left_;
    { std::lock_guard lock(mutex_); ++num_done_; }
    stepped_.notify_all();
  }

 private:
  std::string* const log_;
  const char name_;
  std::atomic<int> left_{0};
  std::atomic<int> num_done_{0};
  std::mutex mutex_;
  std::condition_variable stepped_;
};

constexpr int kForever = 1'000'000'000;

TEST(compute_thread, steps_what_has_work_and_then_rests) {
  const auto work = std::make_shared<Countdown>();
  work->give(3);
  ComputeThread thread;
  thread.attach(work);
  CHECK(work->wait_done(3));
  thread.run([] {});  // a whole turn later
  CHECK_EQ(work->num_done(), 3);
}

// Has work and idle work to do, and notes them as w and i.
class Mixed : public Steppable {
 public:
  Mixed(int num_steps, int num_idle_steps) : left_(num_steps), idle_left_(num_idle_steps) {}
  bool has_work() const override { return left_ > 0; }
  void step(const Turn&) override { note('w', left_); }
  bool has_idle_work() const override { return idle_left_ > 0; }
  void step_idle() override { note('i', idle_left_); }

  std::string wait_done(size_t num_steps) {
    std::unique_lock lock(mutex_);
    stepped_.wait_until(lock, testing::far_deadline(), [&] { return log_.size() >= num_steps; });
    return log_;
  }

 private:
  void note(char kind, std::atomic<int>& left) {
    --left;
    std::lock_guard lock(mutex_);
    log_ += kind;
    stepped_.notify_all();
  }

  std::atomic<int> left_, idle_left_;
  std::mutex mutex_;
  std::condition_variable stepped_;
  std::string log_;
};

TEST(compute_thread, idle_work_is_done_when_nobody_has_other_work) {
  const auto work = std::make_shared<Countdown>();
  const auto mixed = std::make_shared<Mixed>(2, 3);
  work->give(5);
  ComputeThread thread;
  thread.run([&] {  // all of it is there when the first step is chosen
    std::thread([&] { thread.attach(work); }).join();
    std::thread([&] { thread.attach(mixed); }).join();
  });
  CHECK_EQ(mixed->wait_done(5), std::string("wwiii"));
  CHECK_EQ(work->num_done(), 5);
}

TEST(compute_thread, notify_wakes_it_from_its_rest) {
  const auto work = std::make_shared<Countdown>();
  ComputeThread thread;
  thread.attach(work);
  for (int round = 1; round <= 50; ++round) {
    work->give(1);
    thread.notify();
    REQUIRE(work->wait_done(round));
  }
}

TEST(compute_thread, a_step_is_told_whether_others_wait) {
  std::string log;
  const auto a = std::make_shared<Countdown>(&log, 'a');
  const auto b = std::make_shared<Countdown>(&log, 'b');
  ComputeThread thread;
  thread.attach(a);
  thread.attach(b);
  thread.run([&] { a->give(2); });
  CHECK(a->wait_done(2));
  thread.run([] {});
  CHECK_EQ(log, "aa");
  thread.run([&] {
    a->give(1);
    b->give(1);
  });
  CHECK(a->wait_done(3));
  CHECK(b->wait_done(1));
  thread.run([] {});
  // The one that is left over waits for nobody.
  CHECK(log == "aaAb" || log == "aaBa");
}

// Its steps last until something else wants the thread.
class Waiter : public Steppable {
 public:
  bool has_work() const override { return left_ > 0; }
  void step(const Turn& turn) override {
    begun_.count_down();
    while (!*turn.is_wanted) std::this_thread::yield();
    --left_;
  }
  void wait_begun() { begun_.wait(); }

 private:
  std::atomic<int> left_{1};
  std::latch begun_{1};
};

TEST(compute_thread, a_step_learns_of_what_comes_meanwhile) {
  const auto come = [](const std::function<void(ComputeThread&)>& something) {
    const auto waiter = std::make_shared<Waiter>();
    ComputeThread thread;
    thread.attach(waiter);
    waiter->wait_begun();
    something(thread);
    thread.run([] {});  // after the step
    CHECK(!waiter->has_work());
  };
  come([](ComputeThread& thread) { thread.notify(); });
  come([](ComputeThread& thread) { thread.run([] {}); });
  come([](ComputeThread& thread) { thread.attach(std::make_shared<Countdown>()); });
}

TEST(compute_thread, a_step_that_waits_for_something_new_ends_with_the_thread) {
  const auto waiter = std::make_shared<Waiter>();
  ComputeThread thread;
  thread.attach(waiter);
  waiter->wait_begun();
}

TEST(compute_thread, task_runs_on_the_one_thread_and_its_exception_comes_back) {
  ComputeThread thread;
  std::thread::id first, second;
  thread.run([&] { first = std::this_thread::get_id(); });
  bool thrown = false;
  try {
    thread.run([] { throw std::runtime_error("task"); });
  } catch (const std::runtime_error& e) {
    thrown = std::string(e.what()) == "task";
  }
  CHECK(thrown);
  thread.run([&] { second = std::this_thread::get_id(); });
  CHECK(first == second);
  CHECK(first != std::this_thread::get_id());
}

TEST(compute_thread, detached_is_never_stepped_again_and_let_go) {
  const auto work = std::make_shared<Countdown>();
  const auto other = std::make_shared<Countdown>();
  work->give(kForever);
  other->give(kForever);
  ComputeThread thread;
  thread.attach(work);
  thread.attach(other);
  CHECK(work->wait_done(1));
  thread.detach(work.get());
  CHECK_EQ(work.use_count(), 1);
  const int done = work->num_done();
  CHECK(other->wait_done(other->num_done() + 3));
  CHECK_EQ(work->num_done(), done);
}

TEST(compute_thread, stops_in_the_middle_of_work) {
  const auto work = std::make_shared<Countdown>();
  work->give(kForever);
  {
    ComputeThread thread;
    thread.attach(work);
    CHECK(work->wait_done(1));
  }
  CHECK_EQ(work.use_count(), 1);
  CHECK(work->has_work());
}

TEST(compute_thread, stops_without_ever_having_worked) { ComputeThread thread; }

TEST(compute_thread, tasks_of_many_threads_all_run) {
  ComputeThread thread;
  int count = 0;  // touched on the compute thread only
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 50; ++j) thread.run([&] { ++count; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(count, 8 * 50);
}

TEST(compute_thread, many_threads_submit_and_cancel_and_all_are_answered) {
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kEach = 25;
  const auto model = std::make_shared<testing::FakeTextModel>(testing::fake_info(512, 4), 64, 64);
  auto context = std::make_unique<testing::FakeTextContext>(model);
  context->script("prompt", testing::to_tokens("some answer"));
  const auto scheduler =
      std::make_shared<Scheduler>(LoadedModel{model, std::move(context)}, kThreads * kEach);
  const auto outputs = std::make_shared<OutputQueue>();
  ComputeThread thread;
  thread.attach(scheduler);

  std::vector<std::thread> callers;
  std::atomic<int> num_refused{0};
  for (uint64_t t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t id = t * kEach + i;
        if (!scheduler->submit(testing::make_sequence(id, "prompt", 20, outputs)).ok()) ++num_refused;
        thread.notify();
        if (i % 5 == 0 && scheduler->cancel(id)) thread.notify();
      }
    });
  }
  std::map<uint64_t, std::string> texts;
  uint64_t num_finished = 0;
  pollfd entry{outputs->fd(), POLLIN, 0};
  while (num_finished < kThreads * kEach && poll(&entry, 1, 20'000) == 1) {
    for (const RequestOutput& output : outputs->drain()) {
      texts[output.request_id] += output.text;
      if (!output.finished()) continue;
      ++num_finished;
      const bool may_be_cancelled = output.request_id % kEach % 5 == 0;
      if (may_be_cancelled && output.finish_reason == FinishReason::kCancelled) continue;
      CHECK_EQ(output.finish_reason, FinishReason::kStop);
      CHECK_EQ(texts[output.request_id], "some answer");
    }
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(num_refused.load(), 0);
  CHECK_EQ(num_finished, kThreads * kEach);
  thread.detach(scheduler.get());
  CHECK_EQ(scheduler->stats().num_finished, kThreads * kEach);
  CHECK_EQ(scheduler->stats().num_kv_cells_used, 0);
}

TEST(compute_thread, one_serves_the_whole_process_and_ends_with_its_last_user) {
  auto first = ComputeThread::shared();
  auto second = ComputeThread::shared();
  CHECK(first == second);
  std::thread::id before;
  first->run([&] { before = std::this_thread::get_id(); });
  first.reset();
  std::thread::id after;
  second->run([&] { after = std::this_thread::get_id(); });
  CHECK(before == after);
}

}  // namespace
}  // namespace snapllm
