#include "chat/call_grammar.h"

#include <algorithm>
#include <regex>

namespace snapllm {

std::string without_text_before_call(std::string grammar) {
  const std::string head = "root ::= ";
  size_t begin = grammar.rfind("\n" + head);
  begin = begin == std::string::npos ? (grammar.starts_with(head) ? 0 : grammar.size()) : begin + 1;
  const size_t end = std::min(grammar.find('\n', begin), grammar.size());
  // `until-12? tool-calls`: any text up to what the call begins with, then the call.
  static const std::regex text_before_call(R"((^|[ (])until-\d+\? (?=\(?tool-call))");
  const std::string root = grammar.substr(begin, end - begin);
  grammar.replace(begin, end - begin, std::regex_replace(root, text_before_call, "$1"));
  return grammar;
}

std::string with_one_call(std::string grammar) {
  // `tool-calls ::= (tool-call space)+`: with brackets around all that is repeated.
  static const std::regex calls(R"((^|\n)(tool-calls ::= \([^\n]*\))\+(?=\n|$))");
  return std::regex_replace(grammar, calls, "$1$2", std::regex_constants::format_first_only);
}

}  // namespace snapllm
