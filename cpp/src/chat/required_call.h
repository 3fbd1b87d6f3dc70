// Makes an answer that must be a tool call begin with it.
#pragma once

#include <string>

namespace snapllm {

// llama.cpp's grammars for `tool_choice` "required" let any text come before the call, and
// a model that has no use for the tool never ends it. Takes that text out of the grammar's
// root (GBNF); thinking before the call stays. A grammar of another form comes back as it is.
std::string without_text_before_call(std::string grammar);

}  // namespace snapllm
