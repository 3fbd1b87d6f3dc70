#include "chat/llama_chat_format.h"

#include <filesystem>

#include "check.h"
#include "common.h"
#include "sampling.h"
#include "vocabulary.h"

namespace snapllm {
namespace {

constexpr const char* kTemplate = R"({%- for tool in tools %}{{ tool | tojson }}{% endfor -%}
{%- for message in messages -%}
[{{ message.role }}] {{ message.content or '' }}
{%- for call in message.tool_calls -%}
<call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</call>
{%- endfor %}[end]
{% endfor -%}
{%- if add_generation_prompt %}[assistant]{% endif %})";

constexpr const char* kTools = R"([{"type": "function", "function": {"name": "count",
    "parameters": {"type": "object", "properties": {}}}}])";

TEST(chat_format, json_begins_at_once_whatever_the_vocabulary_puts_before_a_text) {
  for (const char* name : {"llama-spm", "llama-bpe"}) {
    const std::filesystem::path path =
        std::string(SNAPLLM_VOCABULARIES) + "/ggml-vocab-" + name + ".gguf";
    if (!std::filesystem::exists(path)) continue;  // a checkout without llama.cpp's sources
    const Vocabulary vocabulary(path);
    const auto format = LlamaChatFormat::create(vocabulary.model, kTemplate);
    CHECK(format.ok());
    for (const bool must_call : {false, true}) {
      ChatFormatRequest request;
      request.messages_json = R"([{"role": "user", "content": "How many?"}])";
      if (must_call) {
        request.tools_json = kTools;
        request.tool_choice = ToolChoice::kRequired;
      } else {
        request.json_schema = R"({"type": "integer"})";
      }
      const auto prompt = format.value()->format(request, PromptLimit{.context_size = 1000});
      CHECK(prompt.ok());
      common_params_sampling sampling;
      const auto& chat = dynamic_cast<const LlamaChatPrompt&>(*prompt.value());
      chat.constrain(sampling, llama_model_get_vocab(vocabulary.model));
      // It throws where the grammar does not allow what the prompt begins the answer with.
      CHECK(common_sampler_ptr(common_sampler_init(vocabulary.model, sampling)) != nullptr);
      const std::string grammar = common_grammar_value(sampling.grammar);
      const size_t root = grammar.find("root ::=");
      CHECK(grammar.substr(root, grammar.find('\n', root) - root).find("space") ==
            std::string::npos);
    }
  }
}

}  // namespace
}  // namespace snapllm
