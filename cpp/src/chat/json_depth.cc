#include "chat/json_depth.h"

#include <algorithm>

namespace snapllm {
namespace {

int nesting_depth(std::string_view text, std::string_view openers, std::string_view closers) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      else if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (openers.find(c) != std::string_view::npos) {
      deepest = std::max(deepest, ++depth);
    } else if (closers.find(c) != std::string_view::npos) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

int json_depth(std::string_view json) { return nesting_depth(json, "[{", "]}"); }

int grammar_depth(std::string_view grammar) { return nesting_depth(grammar, "(", ")"); }

}  // namespace snapllm
