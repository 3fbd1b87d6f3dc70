// A bound on nesting, checked before a recursive reader sees the text.
#pragma once

#include <string_view>

namespace snapllm {

// Deepest nesting of brackets and braces outside string literals.
int json_depth(std::string_view json);

}  // namespace snapllm
