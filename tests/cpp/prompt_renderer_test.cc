#include "chat/prompt_renderer.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "check.h"
#include "vocabulary.h"

namespace snapllm {
namespace {

constexpr const char* kChats[] = {
    R"([{"role": "user", "content": "x"}])",
    R"([{"role": "system", "content": "s"}, {"role": "user", "content": " x\n"}])",
    R"([{"role": "developer", "content": "d"}, {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}])",
    R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])",
    R"([{"role": "user", "content": [{"type": "text", "text": "a"},
                                     {"type": "media_marker", "text": "<m>"}]}])",
    R"([{"role": "user", "content": "x"},
        {"role": "assistant", "reasoning_content": "r", "content": null, "tool_calls": [
          {"id": "abcdefghi", "type": "function",
           "function": {"name": "weather", "arguments": "{\"city\": \"Rome\", \"days\": [1, 2.5]}"}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "weather", "content": "Sunny"}])",
    R"([{"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [
          {"id": "abcdefghi", "type": "function",
           "function": {"name": "weather", "arguments": "no json"}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "?"}])",
    R"([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])",
    R"([{"role": "assistant", "content": "y"}])",
    R"([])",
};

struct Rendered {
  std::string prompt;
  std::string generation_prompt;
  bool operator==(const Rendered&) const = default;
};

template <typename Render>
std::optional<Rendered> rendered(Render render) {
  try {
    return render();
  } catch (const std::exception&) {
    return {};
  }
}

std::string read_text(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Upstream's, and what none of them has: lines that are empty at the end.
std::vector<std::string> sources() {
  std::vector<std::string> found{
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:\n\n",
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant:{% endif %}\r\n\r\n\r"};
  for (const auto& entry : std::filesystem::directory_iterator(SNAPLLM_TEMPLATES)) {
    if (entry.path().extension() == ".jinja") found.push_back(read_text(entry.path()));
  }
  return found;
}

TEST(prompt_renderer, gives_what_llama_cpp_gives_with_each_template_it_knows) {
  const auto vocabulary_path =
      std::filesystem::path(SNAPLLM_VOCABULARIES) / "ggml-vocab-llama-bpe.gguf";
  if (!std::filesystem::exists(SNAPLLM_TEMPLATES) || !std::filesystem::exists(vocabulary_path)) {
    SKIP("this checkout has no upstream sources");
  }
  const Vocabulary vocabulary(vocabulary_path);
  size_t num_generic = 0, num_equal = 0;
  for (const std::string& source : sources()) {
    const auto templates = common_chat_templates_init(vocabulary.model, source);
    const PromptRenderer renderer(llama_model_get_vocab(vocabulary.model), templates.get());
    if (!renderer.is_generic()) continue;
    ++num_generic;
    for (const char* chat : kChats) {
      for (const int variant : {0, 1, 2, 3}) {
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(chat));
        if (variant % 2 == 1) {
          inputs.tools.push_back({"weather", "x", R"({"type": "object", "properties": {
                                 "city": {"type": "string"}}, "required": ["city"]})"});
        }
        inputs.enable_thinking = variant < 2;
        if (variant == 2) inputs.chat_template_kwargs["date_string"] = R"("1 Jan 2025")";
        const auto ours = rendered([&]() -> Rendered {
          const Rendering rendering = renderer.render(inputs);
          return {rendering.prompt, rendering.generation_prompt()};
        });
        inputs.force_pure_content = true;
        const auto upstreams = rendered([&]() -> Rendered {
          const auto params = common_chat_templates_apply(templates.get(), inputs);
          return {params.prompt, params.generation_prompt};
        });
        CHECK(ours == upstreams);
        num_equal += ours.has_value();
      }
    }
  }
  CHECK(num_generic > 10);
  CHECK(num_equal > 20 * num_generic);
}

}  // namespace
}  // namespace snapllm
