#include "chat/gbnf_text.h"

#include <string>

#include "check.h"

namespace snapllm {
namespace {

const std::string kDeep(300, '(');

bool is_too_deep(const std::string& grammar) {
  return gbnf_text_fault(grammar).find("nested") != std::string::npos;
}

TEST(gbnf_text, what_is_ordinary_is_read) {
  for (const std::string grammar :
       {"", R"(root ::= ("a" | ("b" ("c")))+)", R"(root ::= "x"{2,3} [0-9]{0,15} "y"{4} "z"{5,})",
        "root ::= \"a\" # {5,2}\n", R"(root ::= "{5,2}" [{5,2}] <{5,2}>)"}) {
    CHECK_EQ(gbnf_text_fault(grammar), "");
  }
}

TEST(gbnf_text, parentheses_count_outside_literals) {
  CHECK(is_too_deep("root ::= " + kDeep));
  CHECK(!is_too_deep("root ::= \"" + kDeep + "\" | \"\\\"" + kDeep + "\" (\"x\")"));
  CHECK(!is_too_deep("root ::= [" + kDeep + "] | [\\]" + kDeep + "]"));
}

// Each of these once hid the parentheses after it from the bound.
TEST(gbnf_text, a_quote_in_a_character_class_hides_nothing) {
  CHECK(is_too_deep("root ::= [^\"] " + kDeep));
  CHECK(is_too_deep("root ::= [^\\]\"] " + kDeep));
}

TEST(gbnf_text, a_comment_hides_nothing) {
  CHECK(is_too_deep("root ::= x # \"\n| " + kDeep));
  CHECK(is_too_deep("root ::= x # [\r| " + kDeep));
  CHECK(is_too_deep("root ::= x # \\\n| " + kDeep));
  CHECK(!is_too_deep("root ::= x # " + kDeep + "\n"));
}

TEST(gbnf_text, a_token_name_hides_nothing) {
  CHECK(is_too_deep("root ::= <\"> " + kDeep));
  CHECK(is_too_deep("root ::= <[12]> !<(\\> " + kDeep));
}

TEST(gbnf_text, closers_in_a_character_class_offset_nothing) {
  CHECK(is_too_deep("root ::= [))))))))] " + kDeep));
}

// llama.cpp's parser takes memory without end for these.
TEST(gbnf_text, a_repetition_has_its_numbers_in_order) {
  for (const std::string grammar :
       {"root ::= \"a\"{5,2}", "root ::= (\"a\"\n{ 5 # x\n , 2 })", "root ::= [a]{1,0}",
        "root ::= \"a\" # \"\n{5,2}"}) {
    CHECK(gbnf_text_fault(grammar).find("is out of order") != std::string::npos);
  }
}

TEST(gbnf_text, what_repetitions_write_out_is_bounded) {
  CHECK(gbnf_text_fault("root ::= \"a\"{2001}") != "");
  CHECK(gbnf_text_fault("root ::= \"" + std::string(100'000, 'a') + "\"{2000}") != "");
  CHECK(gbnf_text_fault("root ::= \"" + std::string(100'000, 'a') + "\"{0,2000}") != "");
  CHECK(gbnf_text_fault(std::string(100'000, 'r') + " ::= \"a\"{0,2000}") != "");
  CHECK(gbnf_text_fault("root ::= \"" + std::string(100'000, 'a') + "\"" +
                        std::string(100'000, '+')) != "");
  CHECK_EQ(gbnf_text_fault("root ::= [a-z]{0,2000} \"abc\"{2000}"), "");
}

}  // namespace
}  // namespace snapllm
