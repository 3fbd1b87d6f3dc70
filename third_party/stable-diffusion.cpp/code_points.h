// For stable-diffusion.cpp's tokenizer, which asks isspace of code points: the C library's reads
// beyond its table where they are no bytes, and which characters are spaces then depends on what
// lies there. An exact match of the argument's type, this one is called instead.
#pragma once

#include <cctype>

inline int isspace(char32_t code_point) {
  return code_point < 128 ? std::isspace(static_cast<int>(code_point)) : 0;
}
