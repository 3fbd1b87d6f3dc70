// A bound on nesting, checked before a recursive reader sees the text.
#pragma once

#include <string_view>

namespace snapllm {

// Deepest nesting of brackets and braces outside string literals.
int json_depth(std::string_view json);

// Deepest nesting of parentheses of a GBNF grammar outside literals.
int grammar_depth(std::string_view grammar);

}  // namespace snapllm
