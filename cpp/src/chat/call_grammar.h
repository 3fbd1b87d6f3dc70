// What llama.cpp's grammars of tool calls leave open and a request does not.
#pragma once

#include <string>

namespace snapllm {

// For a required tool call: the GBNF `grammar` without the text that may come before the
// call, which a model that has no use for the tool never ends. Thinking before it stays, and
// so does a grammar of any other form.
std::string without_text_before_call(std::string grammar);

// For one call at most: the grammar without the repetition of its calls.
std::string with_one_call(std::string grammar);

}  // namespace snapllm
