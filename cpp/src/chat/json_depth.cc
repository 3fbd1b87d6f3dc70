#include "chat/json_depth.h"

#include <algorithm>

namespace snapllm {

int json_depth(std::string_view json) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// Literals, character classes, token names and comments end in the same places as
// in llama.cpp's reader: one that seemed longer would hide what follows it.
int grammar_depth(std::string_view grammar) {
  int depth = 0;
  int deepest = 0;
  std::string_view closers;  // of what we are inside of; empty = of nothing
  bool has_escapes = false;
  const auto enter = [&](std::string_view ends, bool escapes) {
    closers = ends;
    has_escapes = escapes;
  };
  for (size_t i = 0; i < grammar.size(); ++i) {
    const char c = grammar[i];
    if (!closers.empty()) {
      if (has_escapes && c == '\\') ++i;
      else if (closers.find(c) != std::string_view::npos) closers = {};
      continue;
    }
    switch (c) {
      case '"': enter("\"", true); break;
      case '[': enter("]", true); break;
      case '<': enter(">", false); break;
      case '#': enter("\r\n", false); break;
      case '(': deepest = std::max(deepest, ++depth); break;
      case ')': --depth; break;
      default: break;
    }
  }
  return deepest;
}

}  // namespace snapllm
