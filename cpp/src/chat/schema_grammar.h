// The grammar of what a JSON schema allows, for a prompt without a chat format to write one.
#pragma once

#include <string>

#include "snapllm/status.h"

namespace snapllm {

// In GBNF. Errors: kInvalidRequest.
Result<std::string> schema_grammar(const std::string& json_schema);

}  // namespace snapllm
