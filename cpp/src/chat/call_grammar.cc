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

constexpr size_t kMaxRootBytes = 1000;

struct Span {
  size_t begin = 0;
  size_t size = 0;
};

// The line of the rule of that name; the grammar's end where there is none.
Span rule_of(const std::string& grammar, std::string_view name) {
  const std::string head = std::string(name) + " ::= ";
  size_t begin = grammar.rfind("\n" + head);
  begin = begin == std::string::npos ? (grammar.starts_with(head) ? 0 : grammar.size()) : begin + 1;
  return {begin, std::min(grammar.find('\n', begin), grammar.size()) - begin};
}

Span root_of(const std::string& grammar) { return rule_of(grammar, "root"); }

}  // namespace

std::string without_text_around_call(std::string grammar, const std::string& reasoning_start) {
  // `until-12? tool-calls`: any text up to what the call begins with, then the call. Some formats put
  // it between markers of theirs, as they do with reasoning.
  static const std::regex before(R"re((^|[ (])(?:"[^"\\]*"\? until-\d+ "[^"\\]*"\? |until-\d+\?? ))re"
                                 R"re((?=(space )?\(?(?:[a-z0-9]+-)*tool-call))re");
  static const std::regex between(R"re(\("([^"\\]*)" until-\d+ "[^"\\]*"\)\? (?=tool-calls?$))re");
  const auto [begin, size] = root_of(grammar);
  std::string root = std::regex_replace(grammar.substr(begin, size), before, "$1");
  std::smatch found;
  if (std::regex_search(root, found, between) &&
      (reasoning_start.empty() || found[1].str().find(reasoning_start) == std::string::npos)) {
    root.erase(static_cast<size_t>(found.position()), static_cast<size_t>(found.length()));
  }
  // `("all\n" until-0 (tool-a | tool-b) | tools)`, where `tools` are several
  constexpr std::string_view kOrWithout = " | tools)";
  const size_t either = root.find(R"(("all\n" until-)");
  if (either != std::string::npos && root.ends_with(kOrWithout)) {
    root.erase(root.size() - kOrWithout.size());
    root.erase(either, root.find(' ', root.find("until-", either)) + 1 - either);
  }
  grammar.replace(begin, size, root);
  // `(start any)* start tool-call`: turns before it
  constexpr std::string_view kAny = "any ::= preamble | analysis";
  const auto [any, any_size] = rule_of(grammar, "any");
  if (grammar.compare(any, any_size, kAny) == 0) grammar.replace(any, any_size, "any ::= analysis");
  // `tool-call until-20? "<end>"?`: the same behind it.
  for (const std::string_view name : {"root", "ling3-tool-call"}) {
    const auto [line, length] = rule_of(grammar, name);
    const std::string_view rule = std::string_view(grammar).substr(line, length);
    const size_t end = rule.ends_with("\"?") ? rule.rfind(' ') : std::string_view::npos;
    if (end == std::string_view::npos || end == 0) continue;
    const size_t text = rule.rfind(' ', end - 1);
    const std::string_view symbol = rule.substr(text + 1, end - text - 1);
    if (symbol.starts_with("until-") && symbol.ends_with('?')) grammar.erase(line + text, end - text);
  }
  return grammar;
}

std::string without_blanks_around(std::string grammar, bool after_reasoning) {
  const auto [begin, size] = root_of(grammar);
  // It names tools, in a form of its own; and std::regex recurses over what it reads.
  if (size > kMaxRootBytes) return grammar;
  std::string root = grammar.substr(begin, size);
  // In a fence there is room for blanks, too. The reader takes both forms.
  static const std::regex fence_or_not(
      R"(\("```json" space response-format space "```" \| space response-format space\)$)");
  root = std::regex_replace(root, fence_or_not, "response-format");
  // `space ("<think>" until-4 "</think>")? space response-format`
  static const std::regex before(
      R"( space (?:(\([^()]*\))\? )?(space )?(?=(?:response-format|tool-calls?)$))");
  std::smatch found;
  if (std::regex_search(root, found, before)) {
    std::string kept = " ";
    if (found[1].matched) {
      const bool has_blanks = found[2].matched && !after_reasoning;
      kept += has_blanks ? "(" + found[1].str() + " space)? " : found[1].str() + "? ";
    }
    root.replace(found.position(), found.length(), kept);
  }
  return grammar.replace(begin, size, root);
}

std::string without_blanks_alone(std::string grammar) {
  const auto [begin, size] = rule_of(grammar, "tool-calls");
  if (grammar.compare(begin, size, "tool-calls ::= (tool-call? space)+") != 0) return grammar;
  return grammar.replace(begin, size, "tool-calls ::= (tool-call space)+");
}

std::string with_one_call(std::string grammar) {
  // `tool-calls ::= (tool-call space)+`: with brackets around all that is repeated.
  static const std::regex calls(R"((^|\n)(tool-calls ::= \([^\n]*\))\+(?=\n|$))");
  grammar = std::regex_replace(grammar, calls, "$1$2", std::regex_constants::format_first_only);
  for (const std::string_view name : {"tool-call", "tool-calls"}) {
    // Blanks after the call are there for the next one.
    const auto [begin, size] = rule_of(grammar, name);
    const std::string_view rule = std::string_view(grammar).substr(begin, size);
    constexpr std::string_view kBlanks = " space";
    const bool in_brackets = rule.ends_with(')');
    if (!rule.substr(0, size - in_brackets).ends_with(kBlanks)) continue;
    grammar.erase(begin + size - in_brackets - kBlanks.size(), kBlanks.size());
  }
  return grammar;
}

std::string without_fence(const std::string& grammar) {
  static const std::regex fence_or_not(R"("```json" space response-format space "```" \| )");
  static const std::regex fence(R"("```json" space (response-format(?:-schema)?) space "```")");
  return std::regex_replace(std::regex_replace(grammar, fence_or_not, ""), fence, "$1");
}

std::string with_json_keys(std::string grammar) {
  // `x-additional-k ::= ["] ( [a] char+ | [^"a] char* )? ["]`, with a number where a name comes again
  constexpr std::string_view kName = "additional-k";
  constexpr std::string_view kRule = " ::= [\"] ( ";
  constexpr std::string_view kOthers = "[^\"";
  // The quote stays the last one: a property that begins with a - makes a range of it.
  constexpr std::string_view kJsonOthers = R"([^\\\x00-\x1F\x7F")";
  for (size_t begin = grammar.find(kRule); begin != std::string::npos;
       begin = grammar.find(kRule, begin + 1)) {
    size_t end_of_name = begin;
    while (end_of_name > 0 && grammar[end_of_name - 1] >= '0' && grammar[end_of_name - 1] <= '9') {
      --end_of_name;
    }
    if (!std::string_view(grammar).substr(0, end_of_name).ends_with(kName)) continue;
    const size_t end = std::min(grammar.find('\n', begin), grammar.size());
    std::string rule = grammar.substr(begin, end - begin);
    for (size_t at = rule.find(kOthers); at != std::string::npos;
         at = rule.find(kOthers, at + kJsonOthers.size())) {
      rule.replace(at, kOthers.size(), kJsonOthers);
    }
    grammar.replace(begin, end - begin, rule);
  }
  return grammar;
}

std::string after_literal(const std::string& literal, const std::string& grammar) {
  return "root ::= " + literal + " a-root\n" + with_prefix(grammar, "a-");
}

std::string without_beginning(std::string grammar, const std::string& literal) {
  const std::string beginning = literal.substr(0, literal.size() - 1);  // the literal goes on
  const std::string root = "root ::= " + beginning;
  const size_t line = grammar.starts_with(root) ? 0 : grammar.find("\n" + root);
  if (line == std::string::npos) return grammar;
  return grammar.erase(grammar.find('"', line) + 1, beginning.size() - 1);
}

std::string either(const std::string& first, const std::string& second) {
  if (first.empty()) return second;
  if (second.empty()) return first;
  return "root ::= a-root | b-root\n" + with_prefix(first, "a-") + "\n" + with_prefix(second, "b-");
}

}  // namespace snapllm
