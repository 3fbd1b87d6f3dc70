#include "chat/prompt_renderer.h"

#include <algorithm>
#include <ctime>
#include <iomanip>
#include <sstream>
#include <utility>

#include "common.h"
#include "llama.h"

namespace snapllm {
namespace {

std::string text_of(const llama_vocab* vocab, llama_token token) {
  return token == LLAMA_TOKEN_NULL ? "" : common_token_to_piece(vocab, token, /*special=*/true);
}

// In the words of C++'s locale, as llama.cpp has it: strftime would take those of C's, which Python sets.
std::string today(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  std::ostringstream text;
  text << std::put_time(&parts, format);
  return text.str();
}

// What templates may know beside the chat. The names are llama.cpp's.
common_json context_of(const common_chat_templates_inputs& inputs) {
  common_json context = common_json::object();
  context["datetime"] = today("%b %d %Y");
  context["date_string"] = today("%d %b %Y");
  for (const auto& [name, value] : inputs.chat_template_kwargs) {
    context[name] = common_json::parse(value);
  }
  return context;
}

// Arguments of calls as objects; false where some are no JSON.
bool parse_arguments(common_json& message) {
  if (!message.contains("tool_calls")) return true;
  for (auto& call : message["tool_calls"]) {
    common_json& arguments = call["function"]["arguments"];
    try {
      arguments = common_json::parse(arguments.get<std::string>());
    } catch (const common_json_error&) {
      return false;
    }
  }
  return true;
}

// What `longer` has after all that it begins with as `shorter` does.
std::string rest_of(const std::string& longer, const std::string& shorter) {
  const auto [rest, _] = std::ranges::mismatch(longer, shorter);
  return {rest, longer.end()};
}

}  // namespace

// The source is one that was compiled before, which lost the line feed at its end, and would lose another.
PromptRenderer::Template::Template(const std::string& source, const std::string& bos,
                                   const std::string& eos)
    : compiled(source + '\n', bos, eos),
      trims_text(source.find("You have access to the following functions in JSONSchema format") !=
                 std::string::npos) {
  autoparser::generation_params params;
  params.messages = common_json::parse(R"([{"role": "user", "content": "x"}])");
  params.add_generation_prompt = true;
  is_generic = !common_chat_try_specialized_template(compiled, source, params).has_value();
}

PromptRenderer::PromptRenderer(const llama_vocab* vocab, const common_chat_templates* templates)
    : templates_(templates),
      adds_bos_(llama_vocab_get_add_bos(vocab)),
      adds_eos_(llama_vocab_get_add_eos(vocab)) {
  const std::string bos = text_of(vocab, llama_vocab_bos(vocab));
  const std::string eos = text_of(vocab, llama_vocab_eos(vocab));
  const std::string tool_use = common_chat_templates_source(templates, "tool_use");
  try {
    if (!tool_use.empty()) tool_use_ = std::make_unique<const Template>(tool_use, bos, eos);
    default_ = std::make_unique<const Template>(common_chat_templates_source(templates), bos, eos);
  } catch (const std::exception&) {
    // One that does not render so little; is_generic() tells.
  }
}

bool PromptRenderer::is_generic() const {
  return default_ != nullptr && default_->is_generic &&
         (tool_use_ == nullptr || tool_use_->is_generic);
}

Rendering PromptRenderer::render(common_chat_templates_inputs inputs) const {
  const Template& chosen =
      !inputs.tools.empty() && tool_use_ != nullptr ? *tool_use_ : *default_;
  auto params = prepare(inputs, chosen);
  if (!params) {
    inputs.force_pure_content = true;  // no rules
    common_chat_params done = common_chat_templates_apply(templates_, inputs);
    return {std::move(done.prompt),
            [begun = std::move(done.generation_prompt)] { return begun; }};
  }
  std::string prompt = common_chat_template_direct_apply(chosen.compiled, *params);
  auto generation_prompt = [&chosen, prompt, params = std::move(*params)]() mutable {
    params.add_generation_prompt = false;
    return rest_of(prompt, common_chat_template_direct_apply(chosen.compiled, params));
  };
  return {std::move(prompt), std::move(generation_prompt)};
}

std::optional<autoparser::generation_params> PromptRenderer::prepare(
    const common_chat_templates_inputs& inputs, const Template& chosen) const {
  const auto& caps = chosen.compiled.caps;
  if (!inputs.add_generation_prompt || !caps.supports_system_role || chosen.trims_text) return {};
  autoparser::generation_params params;
  params.messages = common_json::array();
  for (const common_chat_msg& message : inputs.messages) {
    common_json shown = message.to_json_oaicompat();
    if (message.role == "developer") shown["role"] = "system";
    if (caps.supports_object_arguments && !parse_arguments(shown)) return {};
    params.messages.push_back(std::move(shown));
  }
  params.tools = common_chat_tools_to_json_oaicompat(inputs.tools);
  params.enable_thinking = inputs.enable_thinking;
  params.extra_context = context_of(inputs);
  params.add_generation_prompt = true;
  params.add_bos = adds_bos_;
  params.add_eos = adds_eos_;
  return params;
}

}  // namespace snapllm
