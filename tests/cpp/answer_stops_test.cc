#include "scheduler/answer_stops.h"

#include "check.h"

namespace snapllm {
namespace {

AnswerMarkup markup() {
  AnswerMarkup markup;
  markup.reasoning_start = "<think>";
  markup.reasoning_ends = {"</think>"};
  markup.call_starts = {"<tool_call>"};
  return markup;
}

// What passes of a text in pieces of `size` bytes.
std::string pass(AnswerStops& stops, const std::string& text, size_t size) {
  std::string passed;
  for (size_t at = 0; at < text.size(); at += size) passed += stops.push(text.substr(at, size));
  return passed + stops.finish();
}

void check(const std::vector<std::string>& stops, const AnswerMarkup& markup,
           const std::string& text, const std::string& expected, const std::string& match) {
  for (const size_t size : {size_t{1}, size_t{2}, size_t{5}, text.size()}) {
    AnswerStops answer(stops, markup);
    CHECK_EQ(pass(answer, text, size), expected);
    CHECK_EQ(answer.match(), match);
  }
}

TEST(answer_stops, plain_text_is_cut_at_the_first_stop) {
  check({"END", "later"}, {}, "one END two later", "one ", "END");
  check({"END"}, {}, "one EN", "one EN", "");
  check({""}, {}, "one", "one", "");
}

TEST(answer_stops, reasoning_and_the_gap_after_it_are_not_searched) {
  check({"\n\n"}, markup(), "<think>a\n\nb</think>\n\nSaid.\n\nMore", "<think>a\n\nb</think>\n\nSaid.",
        "\n\n");
  AnswerMarkup begun = markup();
  begun.begins_in_reasoning = true;
  check({"b", "<"}, begun, "a b</think>\n\na <x", "a b</think>\n\na ", "<");
  check({"a"}, begun, "a b", "a b", "");
}

TEST(answer_stops, calls_are_not_searched_however_they_begin) {
  const std::string call = "<tool_call>\n{\"name\": \"a\"}\n</tool_call>";
  for (const std::string stop : {"\n", "<", "<tool", "a", " "}) {
    check({stop}, markup(), call, call, "");
  }
  check({"x"}, markup(), "say" + call + "x", "say" + call + "x", "");
  check({"x"}, markup(), "sxy" + call, "s", "x");
}

TEST(answer_stops, what_only_begins_like_a_call_is_searched) {
  check({"<"}, markup(), "a <tool", "a ", "<");
  check({"<"}, markup(), "a <toolbox", "a ", "<");
  check({"ol"}, markup(), "a <tools", "a <to", "ol");
}

TEST(answer_stops, a_tag_of_reasoning_after_text_is_text) {
  check({"b"}, markup(), "a <think> b </think>", "a <think> ", "b");
  check({"b"}, markup(), "\n<think> b </think> b", "\n<think> b </think> ", "b");
}

TEST(answer_stops, an_answer_that_is_a_call_is_not_searched) {
  AnswerMarkup forced = markup();
  forced.is_call = true;
  check({"a", "<"}, forced, "<tool_call>a", "<tool_call>a", "");
}

}  // namespace
}  // namespace snapllm
