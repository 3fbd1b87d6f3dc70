// How many threads to compute a step with, learned from what steps take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace snapllm {

// What a step is computed with.
struct StepThreads {
  int32_t num_threads = 1;  // that wait for each other
  int32_t num_helpers = 0;  // of one thread (kernels/helpers.h)

  bool operator==(const StepThreads&) const = default;
};

// The threads of a step wait for each other many times. Where something else wants one of their
// cores (the server itself, a client, another program), a step is done sooner with fewer of them, or
// with one that others help; what is best depends on the size of the step and changes from second to
// second. Steps of about one size are a class of their own. They are computed as was fastest lately,
// now and then a few with the next more or fewer: the dearer that is, the more seldom. Before the first
// such trial they are computed as the next smaller ones are, where those have had theirs: long steps are
// few, and come all at once. Not thread-safe.
class ThreadTuner {
 public:
  // Chooses among max_threads and halves of them, one with helpers, and one. Steps of more than
  // max_helped_tokens have no helpers.
  // REQUIRES: max_threads > 0
  explicit ThreadTuner(int32_t max_threads, int32_t max_helped_tokens = 0);

  // What to compute the next step with, which has so many tokens.
  // REQUIRES: num_tokens > 0
  StepThreads choose(int32_t num_tokens);
  // What that step took.
  void note(double us);
  // Takes the number for the best of single tokens, until steps show another.
  void begin_with(int32_t num_threads);

 private:
  // What a token takes, as an average of steps.
  class Cost {
   public:
    // Starts anew. Each step counts no more than the limit; 0 = follows from the shortest.
    void restart(double limit_us);
    void add(double us, int32_t num_tokens);
    double average_us() const { return sum_us_ / count_; }
    double least_us() const { return least_us_; }
    double least_step_us() const { return least_step_us_; }  // of a whole step

   private:
    double limit_us_ = 0.0;
    double sum_us_ = 0.0;
    double least_us_ = 0.0;
    double least_step_us_ = 0.0;
    int count_ = 0;
  };
  struct Level {
    StepThreads threads;
    double log_cost = 0.0;     // the logarithm of its cost in times of the best level's
    double extra_steps = 0.0;  // of the best, that its trials took more than their own number
    bool is_known = false;
  };
  struct Class {
    std::vector<Level> levels;  // of ever fewer threads
    size_t best = 0;
    size_t tried = 0;          // = best outside of a trial
    bool tried_fewer = false;  // in the last trial
    bool is_learned = false;   // a trial has ended
    int num_steps_left = 0;    // until the trial ends, or the next one begins
    bool is_new = true;        // no step has been computed with these threads yet
    Cost cost;                 // of the best, since the last trial
    Cost trial_cost;
    double trial_us = 0.0;     // a token: of all steps of the trial, however long
    int trial_steps = 0;       // their number
  };

  static size_t next_trial(const Class& steps);
  static void begin_trial(Class& steps);
  static void end_trial(Class& steps);
  static void become_best(Class& steps, size_t level);
  // Has the steps of the next size begin with the best of these, unless they have learned theirs.
  void teach_longer(const Class& steps);

  // 1, 2 to 3, 4 to 7, ..., 128 tokens and more; and those that have no helpers
  static constexpr size_t kNumClasses = 9;
  const int32_t max_helped_tokens_;
  std::array<Class, kNumClasses> classes_;
  Class* current_ = nullptr;
  int32_t num_tokens_ = 0;
};

}  // namespace snapllm
