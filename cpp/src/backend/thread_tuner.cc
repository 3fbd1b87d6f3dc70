#include "backend/thread_tuner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace snapllm {
namespace {

// Fewer threads win a near-tie: they leave cores to the server.
constexpr double kTie = 0.05;  // of a logarithm of costs, so 5 %
constexpr int kTrialSteps = 8;
constexpr int kMinStepsBetweenTrials = 128;
constexpr int kStepsBeforeFirstTrial = 16;
// So many times what a trial cost is computed until the next.
constexpr double kTimesTrialCost = 50.0;
// The weight of what the last trial found and took; the rest is of those before.
constexpr double kWeight = 0.25;
// Costs differ by no more than this, as logarithms, and trials cost no more steps than this: the
// next one is not put off for minutes.
constexpr double kMaxLogCost = 4.0;
constexpr double kMaxTrialCost = 1000.0;
// A step that was held up counts no more than so many of the shortest: one hiccup of the
// machine changes nothing, several do.
constexpr double kMaxHold = 8.0;
// Where even the shortest step takes longer, a trial is short and all of it counts.
constexpr double kSlowStepUs = 10'000.0;
constexpr int kSlowTrialSteps = 2;
// What one thread does by itself would be most of a step with more.
constexpr int32_t kMaxHelpers = 3;

}  // namespace

void ThreadTuner::Cost::restart(double limit_us) {
  *this = Cost();
  limit_us_ = limit_us;
}

void ThreadTuner::Cost::add(double us, int32_t num_tokens) {
  const double token_us = us / num_tokens;
  least_step_us_ = count_ == 0 ? us : std::min(least_step_us_, us);
  least_us_ = count_ == 0 ? token_us : std::min(least_us_, token_us);
  sum_us_ += std::min(token_us, limit_us_ > 0.0 ? limit_us_ : kMaxHold * least_us_);
  ++count_;
}

ThreadTuner::ThreadTuner(int32_t max_threads, int32_t max_helped_tokens)
    : max_helped_tokens_(max_helped_tokens) {
  const StepThreads helped = {1, std::min(max_threads - 1, kMaxHelpers)};
  for (Class& steps : classes_) {
    for (int32_t threads = max_threads; threads > 1; threads /= 2) {
      steps.levels.push_back({.threads = {threads, 0}});
    }
    const bool has_helpers = max_helped_tokens > 0 && &steps != &classes_.back();
    if (has_helpers && helped.num_helpers > 0) steps.levels.push_back({.threads = helped});
    steps.levels.push_back({.threads = {1, 0}});
    steps.num_steps_left = kStepsBeforeFirstTrial;
  }
}

void ThreadTuner::begin_with(int32_t num_threads) {
  Class& steps = classes_.front();
  const auto found = std::ranges::find_if(steps.levels, [&](const Level& level) {
    return level.threads.num_threads + level.threads.num_helpers <= num_threads;
  });
  steps.best = std::min<size_t>(found - steps.levels.begin(), steps.levels.size() - 1);
  steps.tried = steps.best;
}

StepThreads ThreadTuner::choose(int32_t num_tokens) {
  const auto index = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(num_tokens)) - 1);
  const bool is_too_long = max_helped_tokens_ > 0 && num_tokens > max_helped_tokens_;
  current_ = is_too_long ? &classes_.back() : &classes_[std::min(index, kNumClasses - 2)];
  num_tokens_ = num_tokens;
  Class& steps = *current_;
  if (steps.num_steps_left == 0) {
    if (steps.tried == steps.best) {
      begin_trial(steps);
    } else {
      end_trial(steps);
      teach_longer(steps);
    }
  }
  return steps.levels[steps.tried].threads;
}

void ThreadTuner::note(double us) {
  Class& steps = *current_;
  --steps.num_steps_left;
  const bool is_trial = steps.tried != steps.best;
  if (is_trial) steps.trial_us += us / num_tokens_;
  // What has just changed wakes threads and fills caches first.
  if (std::exchange(steps.is_new, false)) return;
  (is_trial ? steps.trial_cost : steps.cost).add(us, num_tokens_);
}

size_t ThreadTuner::next_trial(const Class& steps) {
  const bool has_more = steps.best > 0;
  const bool has_fewer = steps.best + 1 < steps.levels.size();
  const bool is_fewer = has_fewer && !(has_more && steps.tried_fewer);
  return is_fewer ? steps.best + 1 : steps.best - 1;
}

void ThreadTuner::begin_trial(Class& steps) {
  if (steps.levels.size() == 1) {
    steps.num_steps_left = kMinStepsBetweenTrials;
    return;
  }
  const bool is_slow = steps.cost.least_step_us() > kSlowStepUs;
  steps.tried = next_trial(steps);
  steps.tried_fewer = steps.tried > steps.best;
  steps.trial_steps = is_slow ? kSlowTrialSteps : kTrialSteps;
  steps.num_steps_left = steps.trial_steps;
  steps.is_new = !is_slow;
  steps.trial_us = 0.0;
  steps.trial_cost.restart(kMaxHold * steps.cost.least_us());
}

void ThreadTuner::end_trial(Class& steps) {
  Level& tried = steps.levels[steps.tried];
  const double best_us = steps.cost.average_us();
  const double found = std::log(steps.trial_cost.average_us() / best_us);
  const double took = std::min(steps.trial_us / best_us - steps.trial_steps, kMaxTrialCost);
  const double weight = tried.is_known ? kWeight : 1.0;
  tried.log_cost =
      std::clamp(std::lerp(tried.log_cost, found, weight), -kMaxLogCost, kMaxLogCost);
  tried.extra_steps = std::max(0.0, std::lerp(tried.extra_steps, took, weight));
  tried.is_known = true;
  steps.is_learned = true;
  double least_us = steps.cost.least_us();
  if (tried.log_cost < (steps.tried_fewer ? kTie : -kTie)) {
    least_us = steps.trial_cost.least_us();
    become_best(steps, steps.tried);
  }
  steps.tried = steps.best;
  steps.is_new = true;
  steps.cost.restart(kMaxHold * least_us);
  const Level& next = steps.levels[next_trial(steps)];
  const auto wanted = static_cast<int>(kTimesTrialCost * next.extra_steps);
  steps.num_steps_left =
      next.is_known ? std::max(kMinStepsBetweenTrials, wanted) : kStepsBeforeFirstTrial;
}

void ThreadTuner::teach_longer(const Class& steps) {
  const auto index = static_cast<size_t>(&steps - classes_.data());
  if (index + 1 >= kNumClasses - 1) return;  // none, or those that have no helpers
  Class& longer = classes_[index + 1];
  if (longer.is_learned || longer.tried != longer.best || longer.best == steps.best) return;
  longer.best = longer.tried = steps.best;
  longer.tried_fewer = true;  // longer steps rather want more threads: those are tried first
  longer.is_new = true;
  longer.cost.restart(0.0);
  longer.num_steps_left = kStepsBeforeFirstTrial;
}

void ThreadTuner::become_best(Class& steps, size_t level) {
  const double shift = steps.levels[level].log_cost;
  for (Level& each : steps.levels) {
    each.log_cost = std::clamp(each.log_cost - shift, -kMaxLogCost, kMaxLogCost);
    const double extra = steps.trial_steps * (std::exp(each.log_cost) - 1.0);
    each.extra_steps = std::clamp(extra, 0.0, kMaxTrialCost);
  }
  steps.levels[steps.best].is_known = true;
  steps.best = level;
}

}  // namespace snapllm
