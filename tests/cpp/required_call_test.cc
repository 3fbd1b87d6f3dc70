#include "chat/required_call.h"

#include "check.h"

namespace snapllm {
namespace {

TEST(required_call, text_before_the_call_goes_and_thinking_stays) {
  const std::string rules = "space ::= \" \"\ntool-calls ::= \"x\"\nuntil-191 ::= [^<]*\n";
  CHECK_EQ(without_text_before_call(
               "root ::= \"a\" (\"<think>\" until-13 \"</think>\")? until-191? tool-calls\n" + rules),
           "root ::= \"a\" (\"<think>\" until-13 \"</think>\")? tool-calls\n" + rules);
}

TEST(required_call, the_root_is_found_wherever_it_stands) {
  CHECK_EQ(without_text_before_call("a ::= b\nroot ::= until-7? tool-call\nz ::= until-7? tool-call"),
           "a ::= b\nroot ::= tool-call\nz ::= until-7? tool-call");
}

TEST(required_call, other_grammars_stay_as_they_are) {
  for (const std::string grammar :
       {"", "root ::= object\nobject ::= \"{}\"", "root ::= until-1? other tool-call", "x"}) {
    CHECK_EQ(without_text_before_call(grammar), grammar);
  }
}

}  // namespace
}  // namespace snapllm
