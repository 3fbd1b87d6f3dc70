// Reads one streamed answer with llama.cpp's parsers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat/answer_rules.h"
#include "snapllm/chat_prompt.h"

namespace snapllm {

class LlamaChatParser : public ChatStreamParser {
 public:
  explicit LlamaChatParser(std::shared_ptr<const AnswerRules> rules);
  std::vector<ChatDelta> push(const RequestOutput& output) override;
  int32_t num_reasoning_tokens() const override { return num_reasoning_tokens_; }

 private:
  // Counts on from the last byte of markup; false where the piece has one.
  bool is_plain(const std::string& piece);
  std::string& text_of(ChatDelta::Kind kind);
  // Of the whole answer, the tokens that stand in what the format says is reasoning.
  int32_t count_reasoning_tokens() const;
  // Adds what `message` says more than the answer so far.
  void append_deltas(const common_chat_msg& message, bool final, std::vector<ChatDelta>& deltas);
  void append_tool_calls(const common_chat_msg& message, bool final,
                         std::vector<ChatDelta>& deltas);

  const std::shared_ptr<const AnswerRules> rules_;
  std::string text_;               // everything generated so far
  std::string content_;            // of which was passed on as content
  std::string reasoning_;          // ... as reasoning
  std::vector<std::string> arguments_;  // ... as each announced tool call's arguments
  size_t num_parsed_bytes_ = 0;    // of text_, when it last parsed
  size_t num_plain_bytes_ = 0;     // since the last that markup may begin with
  // What the answer is in the midst of, nothing of which is held back: what follows without
  // markup is more of it.
  std::optional<ChatDelta::Kind> open_;
  std::vector<size_t> token_ends_;  // in text_, of everything generated so far
  int32_t num_reasoning_tokens_ = 0;
};

// Whether the format reads what follows the text that an answer goes on from as more of it.
bool reads_on(std::shared_ptr<const AnswerRules> rules);

}  // namespace snapllm
