#include "chat/schema_grammar.h"

#include "backend/llama_runtime.h"
#include "chat/call_grammar.h"
#include "chat/json_depth.h"
#include "json-schema-to-grammar.h"
#include "json.h"

namespace snapllm {

Result<std::string> schema_grammar(const std::string& json_schema) {
  if (Status status = check_json_depth(json_schema, "json_schema"); !status.ok()) return status;
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<std::string> {
    return with_json_keys(json_schema_to_grammar(common_json::parse(json_schema)));
  });
}

}  // namespace snapllm
