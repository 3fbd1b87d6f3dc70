#include "chat/json_depth.h"

#include <string>

#include "check.h"

namespace snapllm {
namespace {

const std::string kDeep(300, '(');

TEST(json_depth, counts_the_deepest_nesting) {
  CHECK_EQ(json_depth(""), 0);
  CHECK_EQ(json_depth("1"), 0);
  CHECK_EQ(json_depth("[]"), 1);
  CHECK_EQ(json_depth(R"([{"a":[1]},{}])"), 3);
  CHECK_EQ(json_depth("[[][][]]"), 2);
}

TEST(json_depth, counts_text_that_is_never_closed) {
  CHECK_EQ(json_depth(std::string(100'000, '[')), 100'000);
}

TEST(json_depth, brackets_in_strings_do_not_count) {
  CHECK_EQ(json_depth(R"(["[[[{{{"])"), 1);
  CHECK_EQ(json_depth(R"(["\"[[", [[]]])"), 3);
  CHECK_EQ(json_depth(R"(["\\", [[]]])"), 3);
}

TEST(json_depth, grammar_counts_parentheses_outside_literals) {
  CHECK_EQ(grammar_depth(R"(root ::= ("a" | ("b" ("c")))+)"), 3);
  CHECK_EQ(grammar_depth(R"(root ::= "(((" | "\"(((" ("x"))"), 1);
  CHECK_EQ(grammar_depth("root ::= [(((] | [\\](((]"), 0);
}

// Each of these once hid the parentheses after it from the bound.
TEST(json_depth, grammar_quote_in_a_character_class_hides_nothing) {
  CHECK_EQ(grammar_depth("root ::= [^\"] " + kDeep), 300);
  CHECK_EQ(grammar_depth("root ::= [^\\]\"] " + kDeep), 300);
}

TEST(json_depth, grammar_comment_hides_nothing) {
  CHECK_EQ(grammar_depth("root ::= x # \"\n| " + kDeep), 300);
  CHECK_EQ(grammar_depth("root ::= x # [\r| " + kDeep), 300);
  CHECK_EQ(grammar_depth("root ::= x # \\\n| " + kDeep), 300);
  CHECK_EQ(grammar_depth("root ::= x # ((((\n"), 0);
}

TEST(json_depth, grammar_token_name_hides_nothing) {
  CHECK_EQ(grammar_depth("root ::= <\"> " + kDeep), 300);
  CHECK_EQ(grammar_depth("root ::= <[12]> !<(\\> " + kDeep), 300);
}

TEST(json_depth, grammar_closers_in_a_character_class_offset_nothing) {
  CHECK_EQ(grammar_depth("root ::= [))))))))] " + kDeep), 300);
}

}  // namespace
}  // namespace snapllm
