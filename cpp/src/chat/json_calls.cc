#include "chat/json_calls.h"

#include "chat-peg-parser.h"
#include "common.h"
#include "json-schema-to-grammar.h"

namespace snapllm {
namespace {

// As llama.cpp has it where a template tells of reasoning.
common_peg_parser reasoning_of(common_chat_peg_builder& builder, const common_chat_params& params) {
  if (params.thinking_end_tags.empty() || params.thinking_start_tag.empty()) return builder.eps();
  const std::string& end = params.thinking_end_tags.front();
  return builder.optional(builder.literal(params.thinking_start_tag) +
                          builder.reasoning(builder.until(end)) + builder.literal(end) +
                          builder.space());
}

}  // namespace

void require_json_call(common_chat_params& params, const common_chat_templates_inputs& inputs) {
  const common_json tools = common_chat_tools_to_json_oaicompat(inputs.tools);
  const common_peg_arena parser = build_chat_peg_parser([&](common_chat_peg_builder& builder) {
    const auto call = builder.standard_json_tools(
        /*section_start=*/"", /*section_end=*/"", tools, inputs.parallel_tool_calls,
        /*force_tool_calls=*/true);
    return builder.prefix(params.generation_prompt, params.thinking_start_tag)
           << reasoning_of(builder, params) + call + builder.end();
  });
  params.parser = parser.save();
  params.grammar_lazy = false;
  params.grammar =
      build_grammar([&](const common_grammar_builder& builder) { parser.build_grammar(builder); });
}

}  // namespace snapllm
