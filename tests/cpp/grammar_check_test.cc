#include "chat/grammar_check.h"

#include <string>

#include "check.h"

namespace snapllm {
namespace {

std::string fault(const std::string& grammar) { return grammar_fault(nullptr, grammar); }

bool says(const std::string& grammar, const std::string& what) {
  const std::string found = fault(grammar);
  if (found.find(what) != std::string::npos) return true;
  std::cerr << grammar.substr(0, 80) << ": " << found << '\n';
  return false;
}

TEST(grammar_check, what_is_ordinary_is_used) {
  const std::string json =
      "root ::= object\nvalue ::= object | array | string | number\n"
      "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
      "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
      "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" "
      "[0-9a-fA-F]{4}))* \"\\\"\" ws\n"
      "number ::= \"-\"? [0-9]+ (\".\" [0-9]+)? ([eE] [-+]? [0-9]+)? ws\nws ::= [ \\t\\n]*\n";
  for (const std::string& grammar :
       {json, std::string("root ::= [^\\n]* (\"\\n\" [^\\n]*)*"),
        std::string("root ::= word*\nword ::= letters\nletters ::= [a-z]*"),
        std::string("# c\n\nroot ::= (\"yes\" | \"no\" | \"yesterday\") [a-z]{0,2000}"),
        std::string("root ::= .* \"\xC3\xA9\"")}) {
    CHECK_EQ(fault(grammar), "");
  }
}

TEST(grammar_check, a_thousand_values_are_used) {
  std::string grammar = "root ::= \"v\"";
  for (int i = 0; i < 1000; ++i) grammar += " | \"value-" + std::to_string(i) + "\"";
  CHECK_EQ(fault(grammar), "");
}

// What a value of the list may be followed by is counted for each.
TEST(grammar_check, a_list_of_short_values_is_used) {
  std::string code;
  for (int i = 0; i < 250; ++i) {
    code += code.empty() ? "code ::= " : " | ";
    code += '"';
    code += static_cast<char>('A' + i / 26);
    code += static_cast<char>('A' + i % 26);
    code += '"';
  }
  CHECK_EQ(fault("root ::= \"[\" code (\",\" code)* \"]\"\n" + code), "");
}

// Four alternatives for each letter would be refused if they seemed to meet.
TEST(grammar_check, letters_outside_ascii_that_exclude_each_other_are_used) {
  for (const std::string grammar :
       {"root ::= ([ぁ-ん] | [ァ-ヴ] | [一-龠] | \"ー\")+",
        "root ::= (hangul | latin | [^가-힣a-z] | \"-\")+\nhangul ::= [가-힣]\nlatin ::= [a-z]",
        "root ::= ([а-я] | [А-Я] | \"ё\" | \"Ё\" | \"\\U0010FFFF\" | \"\\UFFFFFFFF\")+"}) {
    CHECK_EQ(fault(grammar), "");
  }
}

TEST(grammar_check, scripts_are_told_apart_beside_a_long_list_of_words) {
  std::string grammar = "root ::= ([ぁ-ん] | [ァ-ヴ] | [一-龠] | [、-〾])+ word\nword ::= \"亜\"";
  for (const std::string from : {"あいうえおかきくけこさしすせそ", "アイウエオカキクケコサシスセソ",
                                 "京人仁今介他令仲件任休会伝住体"}) {
    for (size_t i = 0; i < from.size(); i += 3) grammar += " | \"" + from.substr(i, 3) + "\"";
  }
  CHECK_EQ(fault(grammar), "");
}

TEST(grammar_check, ambiguity_outside_ascii_is_bounded) {
  CHECK(says("root ::= (\"あ\" | \"あ\" | [ぁ-う] | [^い])*", "too many ways"));
  std::string many = "root ::= (\"丁\" | \"丁\" | [一-龠] | [^い])* (\"ー\"";
  for (int i = 0; i < 64; ++i) {
    many += " | \"\xE4\xB8" + std::string(1, static_cast<char>(0x80 + i)) + "\"";
  }
  CHECK(says(many + ")", "too many ways"));
}

TEST(grammar_check, the_reason_is_told_and_short) {
  CHECK(says("root ::= foo", "it has no rule foo"));
  CHECK(says("foo ::= \"a\"", "it has no rule root"));
  CHECK(says("", "it has no rule root"));
  CHECK(says("root ::= \"a", "unexpected end"));
  CHECK(says("root := x" + std::string(100'000, 'x'), "expecting ::= at := xxx"));
  CHECK(fault("root := x" + std::string(100'000, 'x')).size() < 200);
}

TEST(grammar_check, a_rule_that_begins_with_itself_is_refused) {
  CHECK(says("root ::= root \"a\" | \"b\"", "left recursion"));
  CHECK(says("root ::= a \"x\" | \"b\"\na ::= root \"y\"", "left recursion"));
  // llama.cpp does not see that e may be empty, and its stack grows without end.
  CHECK(says("root ::= e root \"b\" | \"a\"\ne ::= f\nf ::= \"x\"?", "left recursion"));
}

TEST(grammar_check, chains_of_rules_are_bounded) {
  const auto name = [](int i) {
    std::string text("r");
    text += std::to_string(i);
    return text;
  };
  const auto chain = [&](int length, const std::string& step) {
    std::string grammar = "root ::= r0\n";
    for (int i = 0; i < length; ++i) {
      const std::string next = name(i + 1);
      grammar += name(i) + " ::= " + next + (step.empty() ? "" : step + next) + "\n";
    }
    return grammar + name(length) + " ::= \"a\"\n";
  };
  CHECK_EQ(fault(chain(1000, "")), "");
  CHECK(says(chain(50'000, ""), "too deeply"));
  CHECK(says(chain(40, " | "), "in too many ways"));
}

TEST(grammar_check, ambiguity_is_bounded) {
  for (const std::string grammar :
       {"root ::= x{60}\nx ::= (\"a\"?){60}", "root ::= x{200}\nx ::= \"a\"? \"b\"? \"c\"? \"d\"?",
        "root ::= x{10}\nx ::= y{10}\ny ::= z{10}\nz ::= \"a\"?",
        "root ::= (\"-\" | \"-\" | \"-\" | \"-\")*"}) {
    CHECK(says(grammar, "too many ways"));
  }
  std::string open = "root ::= \"a\"";
  for (int i = 0; i < 20'000; ++i) open += " | [" + std::string(1, static_cast<char>('a' + i % 26)) + "]";
  CHECK(fault(open) != "");
}

}  // namespace
}  // namespace snapllm
