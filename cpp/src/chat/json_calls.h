// Calls for templates that have no form for them.
#pragma once

#include "chat.h"

namespace snapllm {

// Lets the answer be a call of one of the tools and nothing else, as a JSON object of its name and
// arguments, with `params` as llama.cpp gives them for a template that it knows no calls of.
// Throws what refuses the schemas of the tools.
void require_json_call(common_chat_params& params, const common_chat_templates_inputs& inputs);

}  // namespace snapllm
