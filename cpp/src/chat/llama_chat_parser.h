// Reads one streamed answer with llama.cpp's parsers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat/answer_rules.h"
#include "chat/json_depth.h"
#include "snapllm/chat_prompt.h"

namespace snapllm {

class LlamaChatParser : public ChatStreamParser {
 public:
  // With `reads_all`, the whole answer is read again with each piece, for comparison: it takes
  // longer, and gives the same, of long calls earlier.
  explicit LlamaChatParser(std::shared_ptr<const AnswerRules> rules, bool reads_all = false);
  std::vector<ChatDelta> push(const RequestOutput& output) override;
  int32_t num_reasoning_tokens() const override { return num_reasoning_tokens_; }

 private:
  // Reads everything so far, unless what is open goes on or, where it may, it waits for more.
  void parse(const RequestOutput& output, std::vector<ChatDelta>& deltas, bool may_wait);
  // Whether too little has come of a long call to read it all again.
  bool can_wait() const;
  // Counts on from the last byte of markup; false where the piece has one.
  bool is_plain(const std::string& piece);
  // Whether the piece is more of what is open, and nothing ends with it.
  bool goes_on(const std::string& piece, bool is_plain);
  // Says what follows is more of, where the one delta of a piece is just its text.
  void open(const ChatDelta& delta, bool is_plain);
  std::string& text_of(ChatDelta::Kind kind);
  ChatDelta more_of(ChatDelta::Kind kind, std::string text);
  // Where something is nested too deep for the format's parser: what comes from there on is passed
  // on as it is.
  void pass_on_rest(std::vector<ChatDelta>& deltas);
  // Of the whole answer, the tokens that stand in what the format says is reasoning.
  int32_t count_reasoning_tokens() const;
  // Adds what `message` says more than the answer so far.
  void append_deltas(const common_chat_msg& message, bool final, std::vector<ChatDelta>& deltas);
  // The same of the calls from `begin` to `end`.
  void append_tool_calls(const common_chat_msg& message, size_t begin, size_t end, bool final,
                         std::vector<ChatDelta>& deltas);

  const std::shared_ptr<const AnswerRules> rules_;
  const bool reads_all_;
  std::string text_;               // everything generated so far
  std::string content_;            // of which was passed on as content
  std::string reasoning_;          // ... as reasoning
  std::vector<std::string> arguments_;  // ... as each announced tool call's arguments
  size_t num_parsed_bytes_ = 0;    // of text_, when it last parsed
  size_t num_read_bytes_ = 0;      // of text_, when it last was read, whether it parsed or not
  bool is_in_call_ = false;        // what was passed on last is of a call
  size_t num_plain_bytes_ = 0;     // since the last that markup may begin with
  // What the answer is in the midst of, nothing of which is held back: what follows is more of it,
  // of JSON until that ends, of another text as far as it has no markup.
  std::optional<ChatDelta::Kind> open_;
  std::optional<JsonNesting> open_json_;
  NestingBound nesting_;
  bool is_too_deep_ = false;
  std::vector<size_t> token_ends_;  // in text_, of everything generated so far
  int32_t num_reasoning_tokens_ = 0;
};

// Whether the format reads what follows the text that an answer goes on from as more of it.
bool reads_on(std::shared_ptr<const AnswerRules> rules);

}  // namespace snapllm
