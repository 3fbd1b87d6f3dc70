// What becomes a grammar of llama.cpp's is bounded here, wherever it came from: its size, its
// depth, and how ambiguous it is. llama.cpp's parser and sampler bound none of them.
#pragma once

#include <string>

struct llama_vocab;

namespace snapllm {

// Why no answer can be held to the GBNF `grammar`, for the client; empty when one can. Nothing of
// the grammar goes to the log.
std::string grammar_fault(const llama_vocab* vocab, const std::string& grammar);

}  // namespace snapllm
