// What a GBNF text must not hold when llama.cpp's parser reads it, which recurses over
// parentheses and writes every repetition out.
#pragma once

#include <string>
#include <string_view>

namespace snapllm {

// Why the text must not be parsed: it is too long or nested too deeply, or what its repetitions
// write out is too much or without end. Empty = it may be parsed.
std::string gbnf_text_fault(std::string_view grammar);

}  // namespace snapllm
