// A parsed grammar, rewritten so that its ambiguity can be counted closely.
#pragma once

#include "chat/grammar_rules.h"
#include "llama-grammar.h"

namespace snapllm {

// The rules that can be reached from `root`, which becomes rule 0. Each use of a small rule has a
// copy of its own, as a count that looks at rules, not at stacks, would mix up what follows them;
// and what is repeated some times at most is repeated without end, in one rule instead of one for
// each time. Neither makes it less ambiguous.
// What is repeated must not be empty for that; `read` knows.
llama_grammar_rules with_own_copies(const llama_grammar_rules& rules, const GrammarRules& read,
                                    uint32_t root);

}  // namespace snapllm
