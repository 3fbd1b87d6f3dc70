// What a file's mixture of weight types is called.
#pragma once

#include <string>

#include "llama.h"

namespace snapllm {

// As files and hubs name it: Q5_K_M, IQ4_XS, F16; llama.cpp writes "Q5_K - Medium" and
// "IQ4_XS - 4.25 bpw". Where a file does not say, llama.cpp's guess counts.
std::string quantization_name(llama_ftype type);

}  // namespace snapllm
