#include "chat/llama_chat_format.h"

#include <utility>

#include "backend/llama_projector.h"
#include "backend/llama_runtime.h"
#include "chat/json_depth.h"
#include "chat/llama_chat_parser.h"
#include "common.h"
#include "llama.h"

namespace snapllm {
namespace {

// Readers of JSON and of schemas in llama.cpp recurse; far deeper inputs than any
// real schema overflow the stack.
constexpr int kMaxJsonDepth = 100;

Status too_deep(const std::string& field) {
  return {StatusCode::kInvalidRequest, field + " is nested too deeply (at most " +
                                           std::to_string(kMaxJsonDepth) + " levels)"};
}

Status check_depths(const ChatFormatRequest& request) {
  if (json_depth(request.messages_json) > kMaxJsonDepth) return too_deep("messages");
  if (json_depth(request.tools_json) > kMaxJsonDepth) return too_deep("tools");
  if (json_depth(request.json_schema) > kMaxJsonDepth) return too_deep("json_schema");
  if (grammar_depth(request.grammar) > kMaxJsonDepth) return too_deep("grammar");
  for (const auto& [name, value] : request.template_kwargs) {
    if (json_depth(value) > kMaxJsonDepth) return too_deep("template_kwargs." + name);
  }
  return {};
}

common_chat_tool_choice to_common(ToolChoice choice) {
  switch (choice) {
    case ToolChoice::kAuto: return COMMON_CHAT_TOOL_CHOICE_AUTO;
    case ToolChoice::kRequired: return COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    case ToolChoice::kNone: return COMMON_CHAT_TOOL_CHOICE_NONE;
  }
  return COMMON_CHAT_TOOL_CHOICE_AUTO;
}

common_chat_templates_inputs to_inputs(const ChatFormatRequest& request) {
  common_chat_templates_inputs inputs;
  inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(request.messages_json));
  if (!request.tools_json.empty()) {
    inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(request.tools_json));
  }
  inputs.tool_choice = to_common(request.tool_choice);
  inputs.parallel_tool_calls = request.parallel_tool_calls;
  inputs.json_schema = request.json_schema;
  inputs.grammar = request.grammar;
  inputs.add_generation_prompt = request.add_generation_prompt;
  inputs.enable_thinking = request.enable_thinking;
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  for (const auto& [name, value] : request.template_kwargs) {
    inputs.chat_template_kwargs[name] = value;
  }
  return inputs;
}

}  // namespace

LlamaChatPrompt::LlamaChatPrompt(common_chat_params params, int32_t thinking_budget_tokens,
                                 const llama_vocab* vocab, MediaPrompt prompt)
    : params_(std::move(params)),
      thinking_budget_tokens_(thinking_budget_tokens),
      tokens_(std::move(prompt.tokens)),
      media_(std::move(prompt.spans)),
      parser_params_(params_) {
  for (const std::string& text : params_.preserved_tokens) {
    const auto ids = common_tokenize(vocab, text, false, true);
    if (ids.size() == 1) preserved_.insert(ids[0]);
  }
  parser_params_.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  if (!params_.parser.empty()) parser_params_.parser.load(params_.parser);
}

std::unique_ptr<ChatStreamParser> LlamaChatPrompt::create_parser() const {
  return std::make_unique<LlamaChatParser>(parser_params_);
}

void LlamaChatPrompt::constrain(common_params_sampling& sampling, const llama_vocab* vocab) const {
  sampling.preserved_tokens = preserved_;
  sampling.generation_prompt = params_.generation_prompt;
  if (!params_.grammar.empty()) {
    sampling.grammar = {COMMON_GRAMMAR_TYPE_TOOL_CALLS, params_.grammar};
    sampling.grammar_lazy = params_.grammar_lazy;
    for (common_grammar_trigger trigger : params_.grammar_triggers) {
      if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
        // A word that is one token triggers by its id: its text is never sampled
        // in pieces.
        const auto ids = common_tokenize(vocab, trigger.value, false, true);
        if (ids.size() == 1 && preserved_.count(ids[0]) > 0) {
          trigger.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
          trigger.token = ids[0];
        }
      }
      sampling.grammar_triggers.push_back(std::move(trigger));
    }
  }
  if (params_.thinking_end_tags.empty()) return;
  sampling.reasoning_budget_tokens = thinking_budget_tokens_;
  sampling.reasoning_budget_start = common_tokenize(vocab, params_.thinking_start_tag, false, true);
  for (const std::string& tag : params_.thinking_end_tags) {
    if (!tag.empty()) sampling.reasoning_budget_end.push_back(common_tokenize(vocab, tag, false, true));
  }
  if (!sampling.reasoning_budget_end.empty()) {
    sampling.reasoning_budget_forced = sampling.reasoning_budget_end.front();
  }
}

LlamaChatFormat::LlamaChatFormat(const llama_model* model, common_chat_templates_ptr templates,
                                 std::shared_ptr<const LlamaProjector> projector)
    : vocab_(llama_model_get_vocab(model)),
      projector_(std::move(projector)),
      templates_(std::move(templates)) {
  has_template_ = common_chat_templates_was_explicit(templates_.get());
  supports_thinking_ = common_chat_templates_support_enable_thinking(templates_.get());
  const auto caps = common_chat_templates_get_caps(templates_.get());
  const auto tools = caps.find("supports_tools");
  supports_tools_ = tools != caps.end() && tools->second;
}

Result<std::unique_ptr<LlamaChatFormat>> LlamaChatFormat::create(
    const llama_model* model, const std::string& template_override,
    std::shared_ptr<const LlamaProjector> projector) {
  using Format = std::unique_ptr<LlamaChatFormat>;
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<Format> {
    auto templates = common_chat_templates_init(model, template_override);
    if (!templates) return Status(StatusCode::kInvalidRequest, "chat template cannot be read");
    return Format(new LlamaChatFormat(model, std::move(templates), std::move(projector)));
  });
}

Result<MediaPrompt> LlamaChatFormat::tokenize(const std::string& text,
                                              const ChatFormatRequest& request) const {
  if (!request.media.empty()) {
    return projector_->tokenize(text, request.media_marker, request.media);
  }
  return MediaPrompt{common_tokenize(vocab_, text, /*add_special=*/true, /*parse_special=*/true),
                     {}};
}

Result<std::shared_ptr<const ChatPrompt>> LlamaChatFormat::format(const ChatFormatRequest& request,
                                                                  size_t max_bytes) const {
  using Prompt = std::shared_ptr<const ChatPrompt>;
  if (Status status = check_depths(request); !status.ok()) return status;
  if (!request.media.empty() && projector_ == nullptr) {
    return Status(StatusCode::kInvalidRequest, "this model takes text only: no images or audio");
  }
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<Prompt> {
    common_chat_params params =
        common_chat_templates_apply(templates_.get(), to_inputs(request));
    if (params.prompt.size() > max_bytes) {
      return Status(StatusCode::kContextLengthExceeded,
                    "the prompt of " + std::to_string(params.prompt.size()) +
                        " bytes is longer than the model's context");
    }
    auto prompt = tokenize(params.prompt, request);
    if (!prompt.ok()) return prompt.status();
    return Prompt(std::make_shared<LlamaChatPrompt>(
        std::move(params), request.thinking_budget_tokens, vocab_, std::move(prompt).value()));
  });
}

}  // namespace snapllm
