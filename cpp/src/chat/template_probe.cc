#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>

#include "backend/gguf_file.h"
#include "chat.h"
#include "log.h"
#include "snapllm/probe.h"

namespace snapllm {
namespace {

constexpr const char* kMessages[] = {
    R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])",
    R"([{"role": "user", "content": "Hello"},
        {"role": "assistant", "reasoning_content": "A greeting.", "content": "Hello!"},
        {"role": "user", "content": "And now?"}])",
    R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How warm is it?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", "type": "function",
         "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
        {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "{\"warm\": true}"}])",
};

constexpr const char* kTools = R"([{"type": "function", "function": {
    "name": "weather", "description": "Tells the weather.", "parameters": {"type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}])";

// What a template refuses by itself it refuses of a request, too.
template <typename Function>
void try_to(Function&& function) {
  try {
    function();
  } catch (const std::exception&) {
  }
}

void apply(const common_chat_templates* templates) {
  (void)common_chat_templates_get_caps(templates);
  try_to([&] { (void)common_chat_templates_support_enable_thinking(templates); });
  const auto tools = common_chat_tools_parse_oaicompat(common_json::parse(kTools));
  for (const char* messages : kMessages) {
    const bool is_first = messages == kMessages[0];
    for (const bool has_tools : {false, true}) {
      for (const bool thinks : {false, true}) {
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(messages));
        if (has_tools) inputs.tools = tools;
        inputs.enable_thinking = thinks;
        inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
        // How answers are read takes long to work out, and follows from the template for the most part.
        inputs.force_pure_content = !(thinks && (is_first || has_tools));
        try_to([&] { (void)common_chat_templates_apply(templates, inputs); });
      }
    }
  }
}

}  // namespace

Result<std::vector<std::string>> chat_templates(const std::string& model_path) {
  const auto file = GgufFile::open(model_path);
  if (!file.ok()) return file.status();
  std::vector<std::string> templates;
  for (const char* key : {"tokenizer.chat_template", "tokenizer.chat_template.tool_use"}) {
    std::string text = file.value().raw_string(key);
    if (!text.empty()) templates.push_back(std::move(text));
  }
  return templates;
}

void probe_chat_template(const std::string& text) {
  // Upstream would go on after the exception, which the real process has too much memory for.
  std::set_new_handler([] {
    constexpr std::string_view kReason = "it takes too much memory\n";
    (void)!write(STDERR_FILENO, kReason.data(), kReason.size());
    std::abort();
  });
  setenv("GGML_NO_BACKTRACE", "1", 0);  // by a debugger
  common_log_set_verbosity_thold(-1);
  try_to([&] {
    const auto templates = common_chat_templates_init(nullptr, text, "<s>", "</s>");
    apply(templates.get());
  });
}

}  // namespace snapllm
