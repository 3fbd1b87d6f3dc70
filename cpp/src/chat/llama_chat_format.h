// Chat formats over llama.cpp's `common`: a model's template renders the prompt,
// and says how the answer is constrained and read back.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "chat.h"
#include "snapllm/chat_prompt.h"
#include "snapllm/status.h"

struct llama_model;
struct llama_vocab;

namespace snapllm {

class LlamaProjector;
struct MediaPrompt;

class LlamaChatPrompt : public ChatPrompt {
 public:
  LlamaChatPrompt(common_chat_params params, int32_t thinking_budget_tokens,
                  const llama_vocab* vocab, MediaPrompt prompt);

  const std::string& text() const override { return params_.prompt; }
  const std::vector<Token>& tokens() const override { return tokens_; }
  const std::vector<MediaSpan>& media() const override { return media_; }
  const std::vector<std::string>& stop() const override { return params_.additional_stops; }
  bool supports_thinking() const override { return params_.supports_thinking; }
  std::unique_ptr<ChatStreamParser> create_parser() const override;

  bool is_preserved(Token token) const { return preserved_.count(token) > 0; }
  // Puts the format's grammar, triggers and thinking budget into `sampling`.
  // May throw what llama.cpp's tokeniser throws.
  void constrain(common_params_sampling& sampling, const llama_vocab* vocab) const;

 private:
  const common_chat_params params_;
  const int32_t thinking_budget_tokens_;
  const std::vector<Token> tokens_;
  const std::vector<MediaSpan> media_;
  std::set<llama_token> preserved_;
  common_chat_parser_params parser_params_;
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

  // Renders and tokenises a chat. `max_bytes` bounds the rendered prompt.
  Result<std::shared_ptr<const ChatPrompt>> format(const ChatFormatRequest& request,
                                                   size_t max_bytes) const;

 private:
  LlamaChatFormat(const llama_model* model, common_chat_templates_ptr templates,
                  std::shared_ptr<const LlamaProjector> projector);
  Result<MediaPrompt> tokenize(const std::string& text, const ChatFormatRequest& request) const;

  const llama_vocab* const vocab_;
  const std::shared_ptr<const LlamaProjector> projector_;
  const common_chat_templates_ptr templates_;
  bool has_template_ = false;
  bool supports_thinking_ = false;
  bool supports_tools_ = false;
};

}  // namespace snapllm
