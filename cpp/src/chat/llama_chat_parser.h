// Reads one streamed answer with llama.cpp's parsers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chat/answer_rules.h"
#include "snapllm/chat_prompt.h"

namespace snapllm {

class LlamaChatParser : public ChatStreamParser {
 public:
  explicit LlamaChatParser(std::shared_ptr<const AnswerRules> rules);
  std::vector<ChatDelta> push(const std::string& text, bool final) override;

 private:
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
};

}  // namespace snapllm
