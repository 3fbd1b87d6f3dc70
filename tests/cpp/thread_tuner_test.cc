#include "backend/thread_tuner.h"

#include <functional>
#include <map>
#include <random>

#include "check.h"

namespace snapllm {
namespace {

// What a step takes with a number of threads, and which step it is.
using Machine = std::function<double(int32_t num_threads, int step)>;

struct Run {
  std::map<int32_t, int> num_steps;  // by number of threads
  double us = 0.0;
};

Run run(ThreadTuner& tuner, int32_t num_tokens, int num_steps, const Machine& machine) {
  Run done;
  for (int step = 0; step < num_steps; ++step) {
    const int32_t threads = tuner.choose(num_tokens).num_threads;
    const double us = machine(threads, step);
    tuner.note(us);
    ++done.num_steps[threads];
    done.us += us;
  }
  return done;
}

double idle(int32_t threads, int) { return 40.0 + 300.0 / threads; }
double busy(int32_t threads, int step) {
  return threads > 1 && step % 5 == 0 ? 4000.0 : idle(threads, step);
}

TEST(thread_tuner, on_an_idle_machine_nearly_all_steps_have_the_most_threads) {
  ThreadTuner tuner(2);
  const Run done = run(tuner, 1, 10'000, idle);
  CHECK(done.us < 10'000 * idle(2, 0) * 1.03);
}

TEST(thread_tuner, on_a_busy_machine_it_soon_takes_fewer) {
  ThreadTuner tuner(2);
  run(tuner, 1, 200, busy);
  const Run done = run(tuner, 1, 10'000, busy);
  CHECK(done.us < 10'000 * idle(1, 0) * 1.05);
}

TEST(thread_tuner, it_goes_down_and_up_by_halves) {
  ThreadTuner tuner(8);
  const auto best_is_two = [](int32_t threads, int) {
    return threads == 1 ? 200.0 : 50.0 * threads;
  };
  run(tuner, 1, 500, best_is_two);
  CHECK(run(tuner, 1, 1000, best_is_two).num_steps[2] > 900);
  run(tuner, 1, 20'000, idle);
  CHECK(run(tuner, 1, 1000, idle).num_steps[8] > 900);
}

TEST(thread_tuner, longer_steps_begin_as_what_shorter_ones_learned) {
  ThreadTuner tuner(2);
  run(tuner, 64, 200, busy);
  CHECK_EQ(run(tuner, 256, 10, busy).num_steps[1], 10);
  CHECK_EQ(run(tuner, 32, 10, busy).num_steps[2], 10);
  // What longer ones learn themselves stays.
  run(tuner, 256, 1000, idle);
  run(tuner, 64, 1000, busy);
  CHECK(run(tuner, 256, 100, idle).num_steps[2] > 80);
}

TEST(thread_tuner, what_was_learned_is_unlearned) {
  ThreadTuner tuner(2);
  run(tuner, 1, 1000, busy);
  run(tuner, 1, 3000, idle);
  CHECK(run(tuner, 1, 1000, idle).num_steps[2] > 950);
}

TEST(thread_tuner, a_single_hiccup_changes_nothing) {
  for (int hiccup = 2; hiccup < 400; ++hiccup) {
    ThreadTuner tuner(2);
    const Run done = run(tuner, 1, 400, [&](int32_t threads, int step) {
      return step == hiccup ? 50'000.0 : idle(threads, step);
    });
    CHECK(done.num_steps.at(2) > 360);
  }
}

TEST(thread_tuner, fewer_threads_win_a_near_tie) {
  ThreadTuner tuner(2);
  const auto tie = [](int32_t threads, int) { return threads == 2 ? 100.0 : 102.0; };
  run(tuner, 1, 200, tie);
  CHECK(run(tuner, 1, 1000, tie).num_steps[1] > 900);
}

TEST(thread_tuner, trials_of_slow_steps_cost_as_little) {
  ThreadTuner tuner(4);
  const auto slow = [](int32_t threads, int) { return 80'000.0 / threads; };
  CHECK(run(tuner, 512, 1000, slow).us < 1000 * slow(4, 0) * 1.03);
}

TEST(thread_tuner, threads_that_hold_up_every_step_are_given_up) {
  ThreadTuner tuner(2);
  const auto trapped = [](int32_t threads, int step) {
    return threads > 1 ? 60'000.0 : idle(threads, step);
  };
  run(tuner, 1, 40, trapped);
  CHECK(run(tuner, 1, 20'000, trapped).num_steps[1] > 19'900);
}

TEST(thread_tuner, steps_that_are_held_up_for_long_are_not_slow_ones) {
  double us = 0.0;
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    ThreadTuner tuner(2);
    const auto held_up = [&](int32_t threads, int step) {
      return threads > 1 && random() % 5 == 0 ? 12'000.0 : idle(threads, step);
    };
    run(tuner, 1, 1000, held_up);
    us += run(tuner, 1, 10'000, held_up).us;
  }
  CHECK(us < 50 * 10'000 * idle(1, 0) * 1.1);
}

TEST(thread_tuner, slow_steps_are_forgotten_when_they_are_short_again) {
  ThreadTuner tuner(2);
  run(tuner, 1, 1000, busy);
  run(tuner, 1, 500, [](int32_t threads, int) { return threads > 1 ? 20'000.0 : 40'000.0; });
  run(tuner, 1, 1000, busy);
  CHECK(run(tuner, 1, 1000, busy).num_steps[1] > 950);
}

TEST(thread_tuner, slow_steps_of_one_token_have_what_was_measured_before) {
  ThreadTuner tuner(4);
  tuner.begin_with(2);
  const auto slow = [](int32_t threads, int) { return threads == 2 ? 12'000.0 : 16'000.0; };
  CHECK(run(tuner, 1, 1000, slow).num_steps[2] > 970);
}

TEST(thread_tuner, trials_go_on_whatever_happens) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    std::mt19937 random(seed);
    ThreadTuner tuner(8);
    const std::map<int32_t, double> costs = {{8, 300.0}, {4, 310.0}, {2, 300.0}, {1, 600.0}};
    const auto noisy = [&](int32_t threads, int) {
      return random() % 10 == 0 ? 3000.0 : costs.at(threads);
    };
    run(tuner, 1, 200'000, noisy);
    run(tuner, 1, 20'000, idle);
    CHECK(run(tuner, 1, 1000, idle).num_steps[8] > 900);
  }
}

TEST(thread_tuner, sizes_of_steps_are_learned_apart) {
  ThreadTuner tuner(2);
  run(tuner, 1, 1000, busy);
  run(tuner, 32, 1000, idle);
  CHECK(run(tuner, 1, 100, busy).num_steps[1] > 90);
  CHECK(run(tuner, 32, 100, idle).num_steps[2] > 90);
}

TEST(thread_tuner, it_begins_with_what_was_measured_before) {
  ThreadTuner tuner(8);
  tuner.begin_with(2);
  CHECK_EQ(tuner.choose(1).num_threads, 2);
  CHECK_EQ(tuner.choose(2).num_threads, 8);
  tuner.begin_with(3);  // what is not tried is the next lower number
  CHECK_EQ(tuner.choose(1).num_threads, 2);
}

TEST(thread_tuner, one_thread_with_helpers_lies_between_one_and_more) {
  ThreadTuner tuner(2, 512);
  const auto cost = [](const StepThreads& threads) {
    return threads.num_helpers > 0 ? 200.0 : threads.num_threads == 2 ? 300.0 : 320.0;
  };
  std::map<int32_t, int> num_helped;
  for (int step = 0; step < 2000; ++step) {
    const StepThreads threads = tuner.choose(16);
    CHECK(threads.num_helpers == 0 || threads.num_threads == 1);
    tuner.note(cost(threads));
    if (step >= 1000) ++num_helped[threads.num_helpers];
  }
  CHECK(num_helped[1] > 900);
}

TEST(thread_tuner, long_steps_have_no_helpers_and_few_threads_many) {
  ThreadTuner tuner(8, 512);
  bool was_helped = false;
  for (int step = 0; step < 5000; ++step) {
    CHECK_EQ(tuner.choose(513).num_helpers, 0);
    tuner.note(100.0);
    const StepThreads threads = tuner.choose(512);
    tuner.note(threads.num_threads == 1 ? 50.0 : 50.0 * threads.num_threads);
    was_helped = was_helped || threads == StepThreads{1, 3};
  }
  CHECK(was_helped);
}

TEST(thread_tuner, what_was_measured_of_one_thread_is_without_helpers) {
  ThreadTuner tuner(2, 512);
  tuner.begin_with(1);
  CHECK(tuner.choose(1) == (StepThreads{1, 0}));
  tuner.begin_with(2);
  CHECK(tuner.choose(1) == (StepThreads{2, 0}));
}

TEST(thread_tuner, one_thread_is_never_more) {
  ThreadTuner tuner(1);
  CHECK_EQ(run(tuner, 4, 1000, idle).num_steps[1], 1000);
}

}  // namespace
}  // namespace snapllm
