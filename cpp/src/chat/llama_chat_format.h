// Chat formats over llama.cpp's `common`: a model's template renders the prompt,
// and says how the answer is constrained and read back.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/prompt_limit.h"
#include "chat.h"
#include "chat/answer_rules.h"
#include "chat/control_text.h"
#include "chat/prompt_renderer.h"
#include "chat/prompt_tokenizer.h"
#include "snapllm/chat_prompt.h"
#include "snapllm/status.h"

struct llama_model;
struct llama_vocab;

namespace snapllm {

class LlamaProjector;
struct MediaPrompt;

class LlamaChatPrompt : public ChatPrompt {
 public:
  LlamaChatPrompt(std::string text, std::shared_ptr<const AnswerRules> rules,
                  int32_t thinking_budget_tokens, MediaPrompt prompt);

  const std::string& text() const override { return text_; }
  const std::vector<Token>& tokens() const override { return tokens_; }
  const std::vector<MediaSpan>& media() const override { return media_; }
  const std::vector<std::string>& stop() const override { return rules_->params.additional_stops; }
  bool supports_thinking() const override { return rules_->params.supports_thinking; }
  AnswerMarkup markup() const override;
  std::unique_ptr<ChatStreamParser> create_parser() const override;

  bool is_preserved(Token token) const { return rules_->preserved.count(token) > 0; }
  // Puts the format's grammar, triggers and thinking budget into `sampling`.
  // May throw what llama.cpp's tokeniser throws.
  void constrain(common_params_sampling& sampling, const llama_vocab* vocab) const;

 private:
  const std::string text_;
  const std::shared_ptr<const AnswerRules> rules_;
  const int32_t thinking_budget_tokens_;
  const std::vector<Token> tokens_;
  const std::vector<MediaSpan> media_;
};

// The chat template of one model. Immutable; any thread may format with it.
class LlamaChatFormat {
 public:
  // `template_override` empty = the model's own template; `projector` null = the model
  // takes text only. Fails with kInvalidRequest where the template cannot be compiled.
  static Result<std::unique_ptr<LlamaChatFormat>> create(
      const llama_model* model, const std::string& template_override,
      std::shared_ptr<const LlamaProjector> projector = nullptr);

  bool has_template() const { return has_template_; }
  bool supports_thinking() const { return supports_thinking_; }
  bool supports_tools() const { return supports_tools_; }

  // Renders and tokenises a chat. `limit` bounds the rendered prompt.
  Result<std::shared_ptr<const ChatPrompt>> format(const ChatFormatRequest& request,
                                                   PromptLimit limit) const;

 private:
  LlamaChatFormat(const llama_model* model, common_chat_templates_ptr templates,
                  std::shared_ptr<const LlamaProjector> projector);
  Result<MediaPrompt> tokenize(const std::string& text, const ChatFormatRequest& request) const;
  // The rendered prompt, and what goes with it.
  struct Rendered {
    std::string text;
    std::string mark;  // see ControlText
    std::shared_ptr<const AnswerRules> rules;
  };
  // A prompt that is too long is refused before rules are made for its answer.
  Result<Rendered> render(const ChatFormatRequest& request, const PromptLimit& limit) const;
  // How blanks before an answer that is JSON are read.
  enum class Blanks { kDropped, kText };
  // What the template and the rules of the answer give, of calls, of text, or of either.
  common_chat_params apply_for(common_chat_templates_inputs inputs,
                               Blanks blanks = Blanks::kDropped) const;
  common_chat_params apply_with_rules(const common_chat_templates_inputs& inputs) const;
  // Throws what refuses the part of `inputs` that the grammar comes from, where no answer can be
  // held to it.
  void check_grammar(const common_chat_templates_inputs& inputs, const std::string& grammar) const;
  // See without_blanks_around. Blanks that the prompt begins the answer with stay.
  void drop_blanks(common_chat_params& params, Blanks blanks) const;
  // Takes out of the grammar what the sampler skips of the text that it begins with.
  void drop_skipped(common_chat_params& params) const;
  // Whether something that the grammar allows begins with the text.
  bool reads(const std::string& grammar, const std::string& text) const;
  // What ends a reasoning in an answer that comes back as a message: the tag with the blanks that the
  // template puts before it, so that the next turn's prompt begins as this one ends.
  std::string forced_end(const common_chat_params& params) const;
  // The special tokens that begin tool calls; none where a call begins with plain text.
  std::vector<llama_token> call_tokens() const;

  const llama_vocab* const vocab_;
  const std::shared_ptr<const LlamaProjector> projector_;
  const common_chat_templates_ptr templates_;
  const std::unique_ptr<PromptTokenizer> tokenizer_;
  const ControlText control_text_;
  const PromptRenderer renderer_;
  mutable AnswerRulesCache rules_cache_;
  // Whether the rules follow from the request without its messages: not where llama.cpp
  // has code of its own for the template.
  const bool has_cacheable_rules_;
  bool has_template_ = false;
  bool supports_thinking_ = false;
  bool supports_tools_ = false;
  std::string after_reasoning_;  // what the template puts between a reasoning and what is said
};

}  // namespace snapllm
