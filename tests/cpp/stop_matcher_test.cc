#include "scheduler/stop_matcher.h"

#include "check.h"

namespace snapllm {
namespace {

TEST(stop_matcher, without_stops_text_passes_at_once) {
  StopMatcher matcher({"", ""});
  CHECK_EQ(matcher.push("abc"), "abc");
  CHECK_EQ(matcher.finish(), "");
  CHECK(!matcher.matched());
}

TEST(stop_matcher, possible_beginning_is_held_back_until_decided) {
  StopMatcher matcher({"END"});
  CHECK_EQ(matcher.push("xE"), "x");
  CHECK_EQ(matcher.push("N"), "");
  CHECK_EQ(matcher.push("T"), "ENT");
  CHECK(!matcher.matched());
}

TEST(stop_matcher, match_over_several_pieces_is_cut) {
  StopMatcher matcher({"END"});
  CHECK_EQ(matcher.push("xE"), "x");
  CHECK_EQ(matcher.push("N"), "");
  CHECK_EQ(matcher.push("Dy"), "");
  CHECK_EQ(matcher.match(), "END");
  CHECK_EQ(matcher.push("more"), "");
  CHECK_EQ(matcher.finish(), "");
}

TEST(stop_matcher, earliest_match_wins_over_list_order) {
  StopMatcher matcher({"later", "now"});
  CHECK_EQ(matcher.push("a now later"), "a ");
  CHECK_EQ(matcher.match(), "now");
}

TEST(stop_matcher, held_back_text_comes_at_the_end) {
  StopMatcher matcher({"END"});
  CHECK_EQ(matcher.push("xEN"), "x");
  CHECK_EQ(matcher.finish(), "EN");
  CHECK(!matcher.matched());
}

TEST(stop_matcher, longest_possible_beginning_of_any_stop_is_held_back) {
  StopMatcher matcher({"bcX", "abcY"});
  CHECK_EQ(matcher.push("zabc"), "z");
  CHECK_EQ(matcher.push("X"), "a");
  CHECK_EQ(matcher.match(), "bcX");
}

TEST(stop_matcher, self_overlapping_stop_is_found_bytewise) {
  StopMatcher matcher({"aab"});
  std::string passed;
  for (const char c : std::string("aaaab")) passed += matcher.push(std::string(1, c));
  CHECK_EQ(passed, "aa");
  CHECK(matcher.matched());
}

}  // namespace
}  // namespace snapllm
