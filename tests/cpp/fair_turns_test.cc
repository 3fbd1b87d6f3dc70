#include "scheduler/fair_turns.h"

#include <algorithm>
#include <string>
#include <vector>

#include "check.h"

namespace snapllm {
namespace {

const char kNames[] = "abc";

// Takes turns among the named, each of which takes so long; returns who had them.
std::string take_turns(FairTurns& turns, const std::string& ready, int count, double a_ms,
                       double other_ms) {
  std::vector<FairTurns::Id> ids;
  for (const char name : ready) ids.push_back(kNames + (name - 'a'));
  std::string log;
  for (int i = 0; i < count; ++i) {
    const auto* next = static_cast<const char*>(turns.next(ids));
    log += *next;
    turns.charge(next, *next == 'a' ? a_ms : other_ms);
  }
  return log;
}

TEST(fair_turns, equal_steps_alternate) {
  FairTurns turns;
  CHECK_EQ(take_turns(turns, "abc", 7, 1.0, 1.0), "abcabca");
}

TEST(fair_turns, long_steps_get_no_more_of_the_time_than_short_ones) {
  FairTurns turns;
  CHECK_EQ(take_turns(turns, "ab", 12, 50.0, 10.0), "abbbbbabbbbb");
}

TEST(fair_turns, who_comes_goes_first_and_has_no_old_time_to_make_up_for) {
  FairTurns turns;
  take_turns(turns, "a", 100, 10.0, 10.0);
  CHECK_EQ(take_turns(turns, "ab", 5, 10.0, 10.0), "babab");
  take_turns(turns, "b", 100, 10.0, 10.0);
  CHECK_EQ(take_turns(turns, "ab", 4, 10.0, 10.0), "abab");
}

TEST(fair_turns, who_does_nothing_in_its_turn_passes_the_device_on) {
  FairTurns turns;
  const std::string log = take_turns(turns, "ab", 1000, 5.0, 0.0);
  CHECK(std::count(log.begin(), log.end(), 'a') > 5);
}

TEST(fair_turns, forgotten_begins_anew) {
  FairTurns turns;
  take_turns(turns, "ab", 2, 1000.0, 1.0);
  turns.forget(kNames);
  CHECK_EQ(take_turns(turns, "ab", 2, 1.0, 1.0).front(), 'a');
}

}  // namespace
}  // namespace snapllm
