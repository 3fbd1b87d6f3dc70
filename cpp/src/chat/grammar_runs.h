// How ambiguous a grammar is: llama.cpp follows every way in which a token's letters can be read.
#pragma once

#include <string>

#include "chat/grammar_rules.h"

namespace snapllm {

// Why sampling under the grammar would take too long, whatever the answer; empty = it would not.
// The rules must have no left recursion.
std::string ambiguity_fault(const GrammarRules& rules);

}  // namespace snapllm
