#include "chat/llama_chat_format.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "backend/llama_projector.h"
#include "backend/llama_runtime.h"
#include "base/utf8.h"
#include "chat/grammar_check.h"
#include "chat/json_calls.h"
#include "chat/json_depth.h"
#include "chat/llama_chat_parser.h"
#include "chat/call_grammar.h"
#include "chat-auto-parser.h"
#include "common.h"
#include "json-schema-to-grammar.h"
#include "llama-cpp.h"
#include "llama.h"

namespace snapllm {
namespace {

Status check_depths(const ChatFormatRequest& request) {
  Status status = check_json_depth(request.messages_json, "messages");
  if (status.ok()) status = check_json_depth(request.tools_json, "tools");
  if (status.ok()) status = check_json_depth(request.json_schema, "json_schema");
  for (const auto& [name, value] : request.template_kwargs) {
    if (status.ok()) status = check_json_depth(value, "template_kwargs." + name);
  }
  return status;
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
  // A schema binds what is said. A call that must be made says nothing.
  const bool must_call = !inputs.tools.empty() && request.tool_choice == ToolChoice::kRequired;
  if (!must_call) inputs.json_schema = request.json_schema;
  inputs.grammar = request.grammar;
  inputs.add_generation_prompt = !request.continue_final_message;
  if (request.continue_final_message) {
    inputs.continue_final_message = COMMON_CHAT_CONTINUATION_CONTENT;
  }
  inputs.enable_thinking = request.enable_thinking;
  inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  for (const auto& [name, value] : request.template_kwargs) {
    inputs.chat_template_kwargs[name] = value;
  }
  return inputs;
}

// The refusal of what the answer's rules come from. The template has rendered the messages
// before: they are not at fault.
std::invalid_argument uncompilable(const common_chat_templates_inputs& inputs,
                                   const std::string& reason) {
  const std::string rest = " that can be compiled: " + reason;
  if (!inputs.json_schema.empty()) return std::invalid_argument("json_schema must be one" + rest);
  if (!inputs.tools.empty()) return std::invalid_argument("tools must have schemas" + rest);
  return std::invalid_argument("grammar must be one" + rest);
}

// The template knows no calls: what is required then is one as JSON.
void require_call_as_json(common_chat_params& params, const common_chat_templates_inputs& inputs) {
  try {
    require_json_call(params, inputs);
    params.grammar = with_json_keys(std::move(params.grammar));
  } catch (const std::exception& e) {
    throw uncompilable(inputs, e.what());
  }
}

bool begins_with_blank(std::string_view text) {
  return !text.empty() && std::isspace(static_cast<unsigned char>(text[0])) != 0;
}

// What llama.cpp's sampler reads of the text that the prompt begins the answer with. It skips a
// first token with the blank that some vocabularies put before a text, and of the text what is in
// that token, too.
struct Prefill {
  Prefill(const llama_vocab* vocab, const std::string& text)
      : tokens(common_tokenize(vocab, text, false, true)) {
    if (tokens.empty() || begins_with_blank(text)) return;
    const std::string piece = common_token_to_piece(vocab, tokens[0]);
    if (!begins_with_blank(piece)) return;
    skipped = piece.substr(1);
    tokens.erase(tokens.begin());
  }

  std::vector<llama_token> tokens;
  std::string skipped;
};

// What the template puts between an earlier answer's reasoning and what it said; empty where it leaves
// the reasoning out, or takes no such chat.
std::string text_after_reasoning(const common_chat_templates* templates) {
  common_chat_templates_inputs inputs;
  inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(
      R"([{"role": "user", "content": "x"},
          {"role": "assistant", "reasoning_content": "<-thought->", "content": "<-said->"}])"));
  inputs.add_generation_prompt = false;
  inputs.force_pure_content = true;
  try {
    const std::string text = common_chat_templates_apply(templates, inputs).prompt;
    const size_t begin = text.find("<-thought->");
    const size_t end = text.find("<-said->");
    if (begin == std::string::npos || end == std::string::npos || end < begin) return {};
    const size_t after = begin + std::string_view("<-thought->").size();
    return text.substr(after, end - after);
  } catch (const std::exception&) {
    return {};
  }
}

// What cacheable rules follow from beside what the prompt begins the answer with.
std::string rules_key(const ChatFormatRequest& request) {
  std::string key;
  const auto add = [&key](std::string_view part) {
    key += std::to_string(part.size());
    key += ':';
    key += part;
  };
  add(std::to_string(static_cast<int>(request.tool_choice)));
  key += request.parallel_tool_calls ? 'p' : '-';
  key += request.enable_thinking ? 't' : '-';
  add(request.tools_json);
  add(request.json_schema);
  add(request.grammar);
  for (const auto& [name, value] : request.template_kwargs) {
    add(name);
    add(value);
  }
  return key;
}

}  // namespace

LlamaChatPrompt::LlamaChatPrompt(std::string text, std::shared_ptr<const AnswerRules> rules,
                                 int32_t thinking_budget_tokens, MediaPrompt prompt)
    : text_(std::move(text)),
      rules_(std::move(rules)),
      thinking_budget_tokens_(thinking_budget_tokens),
      tokens_(std::move(prompt.tokens)),
      media_(std::move(prompt.spans)) {}

std::unique_ptr<ChatStreamParser> LlamaChatPrompt::create_parser() const {
  return std::make_unique<LlamaChatParser>(rules_);
}

AnswerMarkup LlamaChatPrompt::markup() const {
  const common_chat_params& params = rules_->params;
  AnswerMarkup markup;
  markup.is_call = rules_->must_call;
  markup.reasoning_start = string_strip(params.thinking_start_tag);
  for (const std::string& tag : params.thinking_end_tags) {
    markup.reasoning_ends.push_back(string_strip(tag));
  }
  markup.begins_in_reasoning =
      !markup.reasoning_start.empty() &&
      string_ends_with(string_strip(params.generation_prompt), markup.reasoning_start);
  for (const common_grammar_trigger& trigger : params.grammar_triggers) {
    if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
      markup.call_starts.push_back(string_strip(trigger.value));
    }
  }
  return markup;
}

void LlamaChatPrompt::constrain(common_params_sampling& sampling, const llama_vocab* vocab) const {
  const common_chat_params& params = rules_->params;
  for (const llama_token token : rules_->banned) sampling.logit_bias.push_back({token, -INFINITY});
  sampling.preserved_tokens = rules_->preserved;
  sampling.generation_prompt = params.generation_prompt;
  if (!params.grammar.empty()) {
    sampling.grammar = {COMMON_GRAMMAR_TYPE_TOOL_CALLS, params.grammar};
    sampling.grammar_lazy = params.grammar_lazy;
    for (common_grammar_trigger trigger : params.grammar_triggers) {
      if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
        // A word that is one token triggers by its id: its text is never sampled
        // in pieces.
        const auto ids = common_tokenize(vocab, trigger.value, false, true);
        if (ids.size() == 1 && rules_->preserved.count(ids[0]) > 0) {
          trigger.type = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
          trigger.token = ids[0];
        }
      }
      sampling.grammar_triggers.push_back(std::move(trigger));
    }
  }
  if (params.thinking_end_tags.empty()) return;
  sampling.reasoning_budget_tokens = thinking_budget_tokens_;
  sampling.reasoning_budget_start = common_tokenize(vocab, params.thinking_start_tag, false, true);
  for (const std::string& tag : params.thinking_end_tags) {
    if (!tag.empty()) sampling.reasoning_budget_end.push_back(common_tokenize(vocab, tag, false, true));
  }
  if (!sampling.reasoning_budget_end.empty()) {
    sampling.reasoning_budget_forced = common_tokenize(vocab, rules_->forced_end, false, true);
    // Some vocabularies put a blank of their own before a text.
    const auto& forced = sampling.reasoning_budget_forced;
    if (common_detokenize(vocab, forced, /*special=*/true) != rules_->forced_end) {
      sampling.reasoning_budget_forced = sampling.reasoning_budget_end.front();
    }
  }
}

LlamaChatFormat::LlamaChatFormat(const llama_model* model, common_chat_templates_ptr templates,
                                 std::shared_ptr<const LlamaProjector> projector)
    : vocab_(llama_model_get_vocab(model)),
      projector_(std::move(projector)),
      templates_(std::move(templates)),
      tokenizer_(make_prompt_tokenizer(model)),
      control_text_(ControlText::of(vocab_)),
      renderer_(vocab_, templates_.get()),
      has_cacheable_rules_(renderer_.is_generic()) {
  has_template_ = common_chat_templates_was_explicit(templates_.get());
  supports_thinking_ = common_chat_templates_support_enable_thinking(templates_.get());
  const auto caps = common_chat_templates_get_caps(templates_.get());
  const auto tools = caps.find("supports_tools");
  supports_tools_ = tools != caps.end() && tools->second;
  if (supports_thinking_) after_reasoning_ = text_after_reasoning(templates_.get());
}

namespace {

// A rendered prompt as the model is shown it.
std::string unmarked(const std::string& text, const std::string& mark) {
  return mark.empty() ? text : without_mark(text, mark);
}

// What is wrong with a template that llama.cpp refused: its exception has lost the reason.
std::string template_fault(const llama_model* model, const std::string& template_override) {
  const char* own = llama_model_chat_template(model, /*name=*/nullptr);
  try {
    common_chat_template(template_override.empty() && own != nullptr ? own : template_override,
                         /*bos_token=*/"", /*eos_token=*/"");
  } catch (const std::exception& e) {
    const std::string_view reason = e.what();
    return std::string(reason.substr(0, reason.find('\n')));  // then come lines of the template
  }
  return "it cannot be parsed";
}

}  // namespace

Result<std::unique_ptr<LlamaChatFormat>> LlamaChatFormat::create(
    const llama_model* model, const std::string& template_override,
    std::shared_ptr<const LlamaProjector> projector) {
  using Format = std::unique_ptr<LlamaChatFormat>;
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<Format> {
    common_chat_templates_ptr templates;
    try {
      templates = common_chat_templates_init(model, template_override);
    } catch (const std::exception&) {
      return Status(StatusCode::kInvalidRequest, template_fault(model, template_override));
    }
    return Format(new LlamaChatFormat(model, std::move(templates), std::move(projector)));
  });
}

Result<MediaPrompt> LlamaChatFormat::tokenize(const std::string& text,
                                              const ChatFormatRequest& request) const {
  if (!request.media.empty()) {
    return projector_->tokenize(text, request.media_marker, request.media);
  }
  return MediaPrompt{tokenizer_->tokenize(text, request.cache_namespace), {}};
}

Result<std::shared_ptr<const ChatPrompt>> LlamaChatFormat::format(const ChatFormatRequest& request,
                                                                  PromptLimit limit) const {
  using Prompt = std::shared_ptr<const ChatPrompt>;
  if (Status status = check_depths(request); !status.ok()) return status;
  if (!request.media.empty() && projector_ == nullptr) {
    return Status(StatusCode::kInvalidRequest, "this model takes text only: no images or audio");
  }
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<Prompt> {
    auto done = render(request, limit);
    if (!done.ok()) return done.status();
    Rendered rendered = std::move(done).value();
    auto prompt = tokenize(rendered.text, request);
    if (!prompt.ok()) return prompt.status();
    if (!rendered.mark.empty()) drop_mark(prompt.value(), rendered.mark, vocab_);
    return Prompt(std::make_shared<LlamaChatPrompt>(
        unmarked(rendered.text, rendered.mark), std::move(rendered.rules),
        request.thinking_budget_tokens, std::move(prompt).value()));
  });
}

std::string LlamaChatFormat::forced_end(const common_chat_params& params) const {
  const auto found = std::ranges::find_if_not(params.thinking_end_tags, &std::string::empty);
  if (found == params.thinking_end_tags.end()) return {};
  const std::string& tag = *found;
  const size_t at = after_reasoning_.find(string_strip(tag));
  const bool is_blank = at != std::string::npos && string_strip(after_reasoning_.substr(0, at)).empty();
  return is_blank && !begins_with_blank(tag) ? after_reasoning_.substr(0, at) + tag : tag;
}

std::vector<llama_token> LlamaChatFormat::call_tokens() const {
  common_chat_templates_inputs inputs;
  inputs.messages = common_chat_msgs_parse_oaicompat(
      common_json::parse(R"([{"role": "user", "content": "x"}])"));
  inputs.tools.push_back({"x", "x", R"({"type": "object", "properties": {}})"});
  std::vector<llama_token> tokens;
  try {
    const auto params = common_chat_templates_apply(templates_.get(), inputs);
    for (const common_grammar_trigger& trigger : params.grammar_triggers) {
      if (trigger.type != COMMON_GRAMMAR_TRIGGER_TYPE_WORD) continue;
      const auto ids = common_tokenize(vocab_, trigger.value, false, true);
      const auto attributes = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED;
      if (!ids.empty() && (llama_vocab_get_attr(vocab_, ids[0]) & attributes) != 0) {
        tokens.push_back(ids[0]);
      }
    }
  } catch (const std::exception&) {
    // A template that cannot show tools.
  }
  return tokens;
}

common_chat_params LlamaChatFormat::apply_with_rules(
    const common_chat_templates_inputs& inputs) const {
  try {
    common_chat_params params = common_chat_templates_apply(templates_.get(), inputs);
    params.grammar = with_json_keys(std::move(params.grammar));
    return params;
  } catch (const std::exception& e) {
    if (!has_cacheable_rules_ || (inputs.json_schema.empty() && inputs.tools.empty())) throw;
    throw uncompilable(inputs, e.what());
  }
}

void LlamaChatFormat::check_grammar(const common_chat_templates_inputs& inputs,
                                    const std::string& grammar) const {
  if (grammar.empty()) return;
  const std::string fault = grammar_fault(vocab_, grammar);
  if (!fault.empty()) throw uncompilable(inputs, fault);
}

common_chat_params LlamaChatFormat::apply_for(common_chat_templates_inputs inputs,
                                              Blanks blanks) const {
  const bool has_schema = !inputs.json_schema.empty();
  if (inputs.tools.empty() || inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_NONE) {
    common_chat_params params = apply_with_rules(inputs);
    if (has_schema && params.grammar.empty()) {  // some formats know none
      params.grammar = after_literal(
          gbnf_format_literal(params.generation_prompt),
          with_json_keys(json_schema_to_grammar(common_json::parse(inputs.json_schema))));
    }
    check_grammar(inputs, params.grammar);
    if (has_schema) drop_blanks(params, blanks);
    drop_skipped(params);
    return params;
  }
  if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_AUTO && has_schema) {
    // llama.cpp's formats know either. The answer is a call or fits the schema.
    auto text_inputs = inputs;
    text_inputs.tools.clear();
    // The parser of answers with calls takes blanks after the reasoning for a part of the text.
    const std::string text_grammar =
        without_fence(apply_for(std::move(text_inputs), Blanks::kText).grammar);
    inputs.json_schema.clear();
    common_chat_params params = apply_with_rules(inputs);
    inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    // Of a template without calls the model has seen no tools, and none is read.
    const bool has_calls = !apply_with_rules(inputs).grammar.empty();
    params.grammar =
        has_calls ? either(apply_for(std::move(inputs)).grammar, text_grammar) : text_grammar;
    params.grammar_lazy = false;
    return params;
  }
  common_chat_params params = apply_with_rules(inputs);
  if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED) {
    if (params.grammar.empty()) require_call_as_json(params, inputs);
    params.grammar =
        without_text_around_call(std::move(params.grammar), params.thinking_start_tag);
  }
  params.grammar = inputs.parallel_tool_calls ? without_blanks_alone(std::move(params.grammar))
                                              : with_one_call(std::move(params.grammar));
  check_grammar(inputs, params.grammar);
  if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED) drop_blanks(params, blanks);
  drop_skipped(params);
  return params;
}

void LlamaChatFormat::drop_blanks(common_chat_params& params, Blanks blanks) const {
  const bool has_reasoned =
      blanks == Blanks::kText ||
      std::ranges::any_of(params.thinking_end_tags, [&](const std::string& tag) {
        return params.generation_prompt.find(string_strip(tag)) != std::string::npos;
      });
  for (const bool after_reasoning : {true, false}) {
    if (after_reasoning && !has_reasoned) continue;
    std::string grammar = without_blanks_around(params.grammar, after_reasoning);
    if (!reads(grammar, params.generation_prompt)) continue;
    params.grammar = std::move(grammar);
    return;
  }
}

void LlamaChatFormat::drop_skipped(common_chat_params& params) const {
  if (params.grammar.empty() || params.grammar_lazy) return;  // read from its trigger on
  const Prefill prefill(vocab_, params.generation_prompt);
  for (const llama_token token : prefill.tokens) {
    // llama.cpp ends the process where a grammar is to read it before the answer is whole.
    if (!llama_vocab_is_eog(vocab_, token)) continue;
    throw std::invalid_argument("the chat template begins answers with " +
                                valid_utf8(common_token_to_piece(vocab_, token)) +
                                ", which ends them for this model: none can be held to a schema, "
                                "nor to a call");
  }
  params.grammar =
      without_beginning(std::move(params.grammar), gbnf_format_literal(prefill.skipped));
}

bool LlamaChatFormat::reads(const std::string& grammar, const std::string& text) const {
  const Prefill prefill(vocab_, text);
  const llama_sampler_ptr sampler(llama_sampler_init_grammar(
      vocab_, without_beginning(grammar, gbnf_format_literal(prefill.skipped)).c_str(), "root"));
  if (sampler == nullptr) return false;
  const LlamaAssertTrap trap;  // a token that ends answers fails one
  try {
    for (const llama_token token : prefill.tokens) llama_sampler_accept(sampler.get(), token);
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

Result<LlamaChatFormat::Rendered> LlamaChatFormat::render(const ChatFormatRequest& request,
                                                         const PromptLimit& limit) const {
  auto inputs = to_inputs(request);
  const std::string mark = control_text_.mark(inputs.messages);
  const bool continues = request.continue_final_message && !inputs.messages.empty();
  const std::string continued = continues ? inputs.messages.back().render_content() : "";
  // What an answer goes on from is part of its rules, and comes once.
  bool is_cacheable = has_cacheable_rules_ && !continues;
  const std::string role = inputs.messages.empty() ? "" : inputs.messages.back().role;
  std::string key, begun;
  if (has_cacheable_rules_) {
    Rendering rendering = renderer_.render(inputs);
    if (Status status = limit.check(unmarked(rendering.prompt, mark)); !status.ok()) return status;
    std::shared_ptr<const AnswerRules> rules;
    if (is_cacheable) {
      key = rules_key(request);
      rules = rules_cache_.find_by_end(key, role, rendering.prompt);
    }
    if (is_cacheable && rules == nullptr) {
      begun = rendering.generation_prompt();
      rules = rules_cache_.find(key, begun);
      if (rules != nullptr && control_text_.is_in(begun)) {
        rules_cache_.add(key, role, begun, /*tells=*/true, rules);  // for the next behind such a turn
      }
    }
    if (rules != nullptr) return Rendered{std::move(rendering.prompt), mark, std::move(rules)};
  }
  common_chat_params params = apply_for(std::move(inputs));
  std::string text = std::move(params.prompt);
  // Another one where midnight came between two renderings of a date.
  is_cacheable = is_cacheable && params.generation_prompt == begun;
  // What holds a call to its format may be part of it.
  if (Status status = limit.check(unmarked(text, mark)); !status.ok()) return status;
  std::vector<llama_token> banned;
  if (request.tool_choice == ToolChoice::kNone) banned = call_tokens();
  const bool must_call = !request.tools_json.empty() && request.tool_choice == ToolChoice::kRequired;
  std::string end = forced_end(params);
  auto rules = std::make_shared<const AnswerRules>(std::move(params), vocab_, std::move(banned),
                                                   must_call, !request.json_schema.empty(),
                                                   continued, std::move(end));
  if (!continued.empty() && !(string_ends_with(text, continued) && reads_on(rules))) {
    throw std::invalid_argument("messages: this model's template cannot continue an answer");
  }
  if (is_cacheable) {
    const bool tells = control_text_.is_in(begun);
    rules_cache_.add(std::move(key), role, std::move(begun), tells, rules);
  }
  return Rendered{std::move(text), mark, std::move(rules)};
}

}  // namespace snapllm
