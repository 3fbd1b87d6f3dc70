#include "chat/call_grammar.h"

#include <algorithm>
#include <regex>
#include <string_view>

namespace snapllm {
namespace {

// Where what is no rule's name ends, if it begins at `begin`: a literal, a set of characters, a
// token, a number of repetitions or a comment; else `begin`.
size_t end_of_other(const std::string& grammar, size_t begin) {
  constexpr std::string_view kOpening = "\"[<{#";
  constexpr std::string_view kClosing = "\"]>}\n";
  const size_t kind = kOpening.find(grammar[begin]);
  if (kind == std::string_view::npos) return begin;
  for (size_t i = begin + 1; i < grammar.size(); ++i) {
    if (grammar[i] == kClosing[kind]) return i + 1;
    if (grammar[i] == '\\' && (kind == 0 || kind == 1)) ++i;
  }
  return grammar.size();
}

// The grammar with `prefix` before every rule's name.
std::string with_prefix(const std::string& grammar, std::string_view prefix) {
  const auto is_named_with = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  };
  std::string result;
  for (size_t i = 0; i < grammar.size();) {
    size_t end = end_of_other(grammar, i);
    if (end == i && is_named_with(grammar[i])) {
      result += prefix;
      while (end < grammar.size() && is_named_with(grammar[end])) ++end;
    }
    end = std::max(end, i + 1);
    result.append(grammar, i, end - i);
    i = end;
  }
  return result;
}

}  // namespace

std::string without_text_before_call(std::string grammar) {
  const std::string head = "root ::= ";
  size_t begin = grammar.rfind("\n" + head);
  begin = begin == std::string::npos ? (grammar.starts_with(head) ? 0 : grammar.size()) : begin + 1;
  const size_t end = std::min(grammar.find('\n', begin), grammar.size());
  // `until-12? tool-calls`: any text up to what the call begins with, then the call.
  static const std::regex text_before_call(R"((^|[ (])until-\d+\?? (?=(space )?\(?tool-call))");
  const std::string root = grammar.substr(begin, end - begin);
  grammar.replace(begin, end - begin, std::regex_replace(root, text_before_call, "$1"));
  return grammar;
}

std::string with_one_call(std::string grammar) {
  // `tool-calls ::= (tool-call space)+`: with brackets around all that is repeated.
  static const std::regex calls(R"((^|\n)(tool-calls ::= \([^\n]*\))\+(?=\n|$))");
  return std::regex_replace(grammar, calls, "$1$2", std::regex_constants::format_first_only);
}

std::string without_fence(const std::string& grammar) {
  static const std::regex fence_or_not(R"("```json" space response-format space "```" \| )");
  static const std::regex fence(R"("```json" space (response-format(?:-schema)?) space "```")");
  return std::regex_replace(std::regex_replace(grammar, fence_or_not, ""), fence, "$1");
}

std::string after_literal(const std::string& literal, const std::string& grammar) {
  return "root ::= " + literal + " a-root\n" + with_prefix(grammar, "a-");
}

std::string either(const std::string& first, const std::string& second) {
  if (first.empty()) return second;
  if (second.empty()) return first;
  return "root ::= a-root | b-root\n" + with_prefix(first, "a-") + "\n" + with_prefix(second, "b-");
}

}  // namespace snapllm
