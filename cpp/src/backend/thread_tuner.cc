#include "backend/thread_tuner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace snapllm {
namespace {

// Fewer threads win a near-tie: they leave cores to the server.
constexpr double kTie = 0.05;  // of a logarithm of costs, so 5 %
constexpr int kTrialSteps = 4;
constexpr int kMinStepsBetweenTrials = 64;
constexpr int kStepsBeforeFirstTrial = 32;
// So many times what a trial costs is computed between two of them.
constexpr double kTimesTrialCost = 50.0;
// The weight of what the last trial found; the rest is of those before.
constexpr double kWeight = 0.5;
// Costs differ by no more than this, as logarithms: the next trial is not put off for minutes.
constexpr double kMaxLogCost = 4.0;
// A step that was held up counts no more than so many of the shortest: one hiccup of the
// machine changes nothing, several do.
constexpr double kMaxHold = 8.0;
// Steps that take longer always get all threads.
constexpr double kSlowStepUs = 10'000.0;

}  // namespace

void ThreadTuner::Cost::add(double us) {
  least_us_ = count_ == 0 ? us : std::min(least_us_, us);
  sum_us_ += std::min(us, limit_us_ > 0.0 ? limit_us_ : kMaxHold * least_us_);
  ++count_;
}

void ThreadTuner::Cost::restart(double limit_us) {
  *this = Cost();
  limit_us_ = limit_us;
}

ThreadTuner::ThreadTuner(int32_t max_threads) {
  for (Class& steps : classes_) {
    for (int32_t threads = max_threads; threads >= 1; threads /= 2) {
      steps.levels.push_back({.num_threads = threads});
    }
    steps.num_steps_left = kStepsBeforeFirstTrial;
  }
}

void ThreadTuner::begin_with(int32_t num_threads) {
  Class& steps = classes_.front();
  const auto found = std::ranges::find_if(
      steps.levels, [&](const Level& level) { return level.num_threads <= num_threads; });
  steps.best = std::min<size_t>(found - steps.levels.begin(), steps.levels.size() - 1);
  steps.tried = steps.best;
}

int32_t ThreadTuner::choose(int32_t num_tokens) {
  const auto index = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(num_tokens)) - 1);
  Class& steps = classes_[std::min(index, kNumClasses - 1)];
  if (steps.levels.size() == 1 || steps.cost.least_us() * num_tokens > kSlowStepUs) {
    current_ = nullptr;
    return steps.levels.front().num_threads;
  }
  current_ = &steps;
  num_tokens_ = num_tokens;
  if (steps.num_steps_left == 0) {
    if (steps.tried == steps.best) {
      begin_trial(steps);
    } else {
      end_trial(steps);
    }
  }
  return steps.levels[steps.tried].num_threads;
}

void ThreadTuner::note(double us) {
  if (current_ == nullptr) return;
  Class& steps = *current_;
  --steps.num_steps_left;
  // What has just changed wakes threads and fills caches first.
  if (std::exchange(steps.is_new, false)) return;
  (steps.tried == steps.best ? steps.cost : steps.trial_cost).add(us / num_tokens_);
}

size_t ThreadTuner::next_trial(const Class& steps) {
  const bool has_more = steps.best > 0;
  const bool has_fewer = steps.best + 1 < steps.levels.size();
  const bool is_fewer = has_fewer && !(has_more && steps.tried_fewer);
  return is_fewer ? steps.best + 1 : steps.best - 1;
}

void ThreadTuner::begin_trial(Class& steps) {
  steps.tried = next_trial(steps);
  steps.tried_fewer = steps.tried > steps.best;
  steps.num_steps_left = kTrialSteps;
  steps.is_new = true;
  steps.trial_cost.restart(kMaxHold * steps.cost.least_us());
}

void ThreadTuner::end_trial(Class& steps) {
  Level& tried = steps.levels[steps.tried];
  const double found = std::log(steps.trial_cost.average_us() / steps.cost.average_us());
  const double before = tried.is_known ? tried.log_cost : found;
  tried.log_cost = std::clamp(std::lerp(before, found, kWeight), -kMaxLogCost, kMaxLogCost);
  tried.is_known = true;
  double least_us = steps.cost.least_us();
  if (tried.log_cost < (steps.tried_fewer ? kTie : -kTie)) {
    const double shift = tried.log_cost;
    for (Level& level : steps.levels) level.log_cost -= shift;
    steps.levels[steps.best].is_known = true;
    steps.best = steps.tried;
    least_us = steps.trial_cost.least_us();
  }
  steps.tried = steps.best;
  steps.is_new = true;
  steps.cost.restart(kMaxHold * least_us);
  const Level& next = steps.levels[next_trial(steps)];
  if (next.is_known) {
    const double extra_steps = kTrialSteps * std::max(0.0, std::exp(next.log_cost) - 1.0);
    const auto wanted = static_cast<int>(kTimesTrialCost * extra_steps);
    steps.num_steps_left = std::max(kMinStepsBetweenTrials, wanted);
  } else {
    steps.num_steps_left = kStepsBeforeFirstTrial;
  }
}

}  // namespace snapllm
