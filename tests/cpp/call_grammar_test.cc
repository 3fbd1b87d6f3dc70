#include "chat/call_grammar.h"

#include "check.h"

namespace snapllm {
namespace {

TEST(call_grammar, text_before_the_call_goes_and_thinking_stays) {
  const std::string rules = "space ::= \" \"\ntool-calls ::= \"x\"\nuntil-191 ::= [^<]*\n";
  CHECK_EQ(without_text_around_call(
               "root ::= \"a\" (\"<think>\" until-13 \"</think>\")? until-191? tool-calls\n" + rules,
               "<think>"),
           "root ::= \"a\" (\"<think>\" until-13 \"</think>\")? tool-calls\n" + rules);
}

TEST(call_grammar, the_root_is_found_wherever_it_stands) {
  CHECK_EQ(without_text_around_call("a ::= b\nroot ::= until-7? tool-call\nz ::= until-7? tool-call"),
           "a ::= b\nroot ::= tool-call\nz ::= until-7? tool-call");
}

TEST(call_grammar, other_grammars_stay_as_they_are) {
  for (const std::string grammar :
       {"", "root ::= object\nobject ::= \"{}\"", "root ::= until-1? other tool-call", "x"}) {
    CHECK_EQ(without_text_around_call(grammar), grammar);
  }
}

TEST(call_grammar, calls_after_the_first_go) {
  const std::string other = "a ::= (b)+\n";
  CHECK_EQ(with_one_call(other + "tool-calls ::= (tool-call? space)+\nz ::= (c)+"),
           other + "tool-calls ::= (tool-call?)\nz ::= (c)+");
  CHECK_EQ(with_one_call("tool-calls ::= (tool-call space)+"), "tool-calls ::= (tool-call)");
  for (const std::string grammar : {"", "tool-calls ::= tool-call", "root ::= (tool-call)+"}) {
    CHECK_EQ(with_one_call(grammar), grammar);
  }
}

TEST(call_grammar, no_blanks_are_repeated_where_no_call_comes) {
  CHECK_EQ(without_blanks_alone("a ::= b\ntool-calls ::= (tool-call? space)+\nz ::= (c? space)+"),
           "a ::= b\ntool-calls ::= (tool-call space)+\nz ::= (c? space)+");
  for (const std::string grammar : {"", "tool-calls ::= (tool-call space)+", "root ::= \"x\""}) {
    CHECK_EQ(without_blanks_alone(grammar), grammar);
  }
}

TEST(call_grammar, blanks_after_the_only_call_go) {
  CHECK_EQ(with_one_call("a ::= b space\ntool-call ::= \"(\" space x space \")\" space\nz ::= c space"),
           "a ::= b space\ntool-call ::= \"(\" space x space \")\"\nz ::= c space");
  CHECK_EQ(with_one_call("tool-call ::= ((x) space)"), "tool-call ::= ((x))");
}

TEST(call_grammar, blanks_around_json_go) {
  const std::string json =
      "(\"```json\" space response-format space \"```\" | space response-format space)";
  for (const bool after_reasoning : {false, true}) {
    const auto tight = [&](const std::string& grammar) {
      return without_blanks_around(grammar, after_reasoning);
    };
    CHECK_EQ(tight("root ::= \"a\" space space " + json), "root ::= \"a\" response-format");
    CHECK_EQ(tight("root ::= space space " + json + "\nz ::= x"),
             "root ::= response-format\nz ::= x");
    CHECK_EQ(tight("root ::= \"a\" space response-format"), "root ::= \"a\" response-format");
  }
}

TEST(call_grammar, blanks_before_a_call_go) {
  CHECK_EQ(without_blanks_around("root ::= \"a\" space tool-calls", false),
           "root ::= \"a\" tool-calls");
  for (const std::string grammar : {"root ::= a space b", "root ::= \"a\" response-format", ""}) {
    CHECK_EQ(without_blanks_around(grammar, true), grammar);
  }
}

TEST(call_grammar, blanks_after_reasoning_go_where_there_is_none_to_come) {
  const std::string begin = "root ::= \"a\" space (\"<t>\" until-4 \"</t>\")? ";
  CHECK_EQ(without_blanks_around(begin + "space response-format", false),
           "root ::= \"a\" ((\"<t>\" until-4 \"</t>\") space)? response-format");
  CHECK_EQ(without_blanks_around(begin + "space response-format", true),
           "root ::= \"a\" (\"<t>\" until-4 \"</t>\")? response-format");
  for (const bool after_reasoning : {false, true}) {
    CHECK_EQ(without_blanks_around(begin + "tool-call", after_reasoning),
             "root ::= \"a\" (\"<t>\" until-4 \"</t>\")? tool-call");
  }
}

TEST(call_grammar, what_is_not_read_of_a_literal_goes) {
  CHECK_EQ(without_beginning("root ::= \"<|a|>\\n\" b\nb ::= \"<\"", "\"<\""),
           "root ::= \"|a|>\\n\" b\nb ::= \"<\"");
  CHECK_EQ(without_beginning("b ::= \"<\"\nroot ::= \"<\" b", "\"<\""),
           "b ::= \"<\"\nroot ::= \"\" b");
  for (const std::string grammar : {"", "root ::= b\nb ::= \"<\"", "root ::= \"x\""}) {
    CHECK_EQ(without_beginning(grammar, "\"<\""), grammar);
  }
  CHECK_EQ(without_beginning("root ::= \"x\"", "\"\""), "root ::= \"x\"");
}

TEST(call_grammar, text_that_may_be_empty_goes_too) {
  CHECK_EQ(without_text_around_call("root ::= \"a\" until-8 tool-calls"), "root ::= \"a\" tool-calls");
  CHECK_EQ(without_text_around_call("root ::= \"a\" until-8 space tool-call"),
           "root ::= \"a\" space tool-call");
}

TEST(call_grammar, text_between_markers_before_the_call_goes) {
  const std::string reasoning = "root ::= \"a\" (\"<think>\" until-4 \"</think>\")? ";
  const std::string said = "(\"<said>\" until-5 \"</said>\")? ";
  CHECK_EQ(without_text_around_call(reasoning + said + "tool-call", "<think>"),
           reasoning + "tool-call");
  CHECK_EQ(without_text_around_call(reasoning + "tool-call", "<think>"), reasoning + "tool-call");
  CHECK_EQ(without_text_around_call("root ::= space " + said + "tool-call"),
           "root ::= space tool-call");
  CHECK_EQ(without_text_around_call("root ::= \"<a>\"? until-14 \"</a>\"? kimi-k3-tool-call \"x\"?"),
           "root ::= kimi-k3-tool-call \"x\"?");
  CHECK_EQ(without_text_around_call("root ::= \"a\\n\" (\"all\\n\" until-0 tools | tools)"),
           "root ::= \"a\\n\" tools");
  CHECK_EQ(without_text_around_call("root ::= \"a\" (\"all\\n\" until-0 (b | c) | tools)\nz ::= a"),
           "root ::= \"a\" (b | c)\nz ::= a");
}

TEST(call_grammar, a_turn_of_text_before_the_call_goes) {
  const std::string root = "root ::= (start any)* start tool-call\n";
  CHECK_EQ(without_text_around_call("any ::= preamble | analysis\n" + root),
           "any ::= analysis\n" + root);
  CHECK_EQ(without_text_around_call("any ::= a | b\n" + root), "any ::= a | b\n" + root);
}

TEST(call_grammar, text_behind_a_required_call_goes) {
  CHECK_EQ(without_text_around_call("ling3-tool-call ::= (x) space until-214? \"<end>\"?\n"
                                    "root ::= until-15? ling3-tool-call until-20? \"<end>\"?\nz ::= a"),
           "ling3-tool-call ::= (x) space \"<end>\"?\n"
           "root ::= ling3-tool-call \"<end>\"?\nz ::= a");
}

TEST(call_grammar, the_fence_around_json_goes) {
  CHECK_EQ(without_fence("root ::= \"a\" (\"```json\" space response-format space \"```\" | space "
                         "response-format space)"),
           "root ::= \"a\" (space response-format space)");
  CHECK_EQ(without_fence("response-format ::= \"```json\" space response-format-schema space \"```\""),
           "response-format ::= response-format-schema");
}

TEST(call_grammar, keys_of_further_properties_are_json) {
  CHECK_EQ(with_json_keys("additional-k ::= [\"] ( [a] ([b] char+ | [^\"b] char*) | [^\"a] char* )? "
                          "[\"]\nchar ::= [^\"\\\\\\x7F\\x00-\\x1F]\n"
                          "tool-f-schema-additional-k1 ::= [\"] ( [^\"-] char* )? [\"]"),
           "additional-k ::= [\"] ( [a] ([b] char+ | [^\\\\\\x00-\\x1F\\x7F\"b] char*) | "
           "[^\\\\\\x00-\\x1F\\x7F\"a] char* )? [\"]\nchar ::= [^\"\\\\\\x7F\\x00-\\x1F]\n"
           "tool-f-schema-additional-k1 ::= [\"] ( [^\\\\\\x00-\\x1F\\x7F\"-] char* )? [\"]");
  for (const std::string grammar :
       {"", "root ::= [\"] ( [^\"a] char* )? [\"]", "additional-k ::= \"[^\""}) {
    CHECK_EQ(with_json_keys(grammar), grammar);
  }
}

TEST(call_grammar, a_literal_before_the_answer) {
  CHECK_EQ(after_literal("\"<a>\"", "root ::= x\nx ::= \"y\""),
           "root ::= \"<a>\" a-root\na-root ::= a-x\na-x ::= \"y\"");
}

TEST(call_grammar, either_keeps_the_rules_of_both_apart) {
  CHECK_EQ(either("root ::= space call\nspace ::= [ \\]a-b] | \"call \\\" x\"{0,20}",
                  "root ::= space <[123]> # space\nspace ::= \"\" "),
           "root ::= a-root | b-root\n"
           "a-root ::= a-space a-call\na-space ::= [ \\]a-b] | \"call \\\" x\"{0,20}\n"
           "b-root ::= b-space <[123]> # space\nb-space ::= \"\" ");
  CHECK_EQ(either("", "root ::= x"), "root ::= x");
  CHECK_EQ(either("root ::= x", ""), "root ::= x");
}

}  // namespace
}  // namespace snapllm
