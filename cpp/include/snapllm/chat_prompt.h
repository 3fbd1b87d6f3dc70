// A formatted chat: the rendered prompt, its tokens, what constrains the answer,
// and how to read the answer's text back into content, reasoning and tool calls.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "snapllm/output.h"
#include "snapllm/request.h"
#include "snapllm/status.h"

namespace snapllm {

// One step of a streamed answer.
struct ChatDelta {
  enum class Kind { kContent, kReasoning, kToolCall };
  Kind kind = Kind::kContent;
  std::string text;  // content or reasoning; a tool call's next piece of arguments
  // Tool calls only. `name` and `id` are set in a call's first delta and empty after.
  int32_t tool_index = -1;
  std::string tool_id;
  std::string tool_name;
};

// Reads the outputs of one answer, in their order. Not thread-safe.
class ChatStreamParser {
 public:
  virtual ~ChatStreamParser() = default;
  // Takes the next output. Text that may still turn out to be markup is held back
  // until it is decided. Text that does not fit the model's format is passed on as
  // content.
  virtual std::vector<ChatDelta> push(const RequestOutput& output) = 0;
  // The generated tokens that the text of the reasoning was made of, without the tags
  // around it. 0 before the last output.
  virtual int32_t num_reasoning_tokens() const = 0;
};

// How an answer's text is divided: what is said, reasoning before it, and calls after it.
struct AnswerMarkup {
  bool begins_in_reasoning = false;
  bool is_call = false;  // nothing is said
  std::string reasoning_start;  // empty = there is no reasoning
  std::vector<std::string> reasoning_ends;
  std::vector<std::string> call_starts;
};

class ChatPrompt {
 public:
  virtual ~ChatPrompt() = default;
  virtual const std::string& text() const = 0;
  virtual const std::vector<Token>& tokens() const = 0;
  // What stands behind the virtual tokens among them, by place.
  virtual const std::vector<MediaSpan>& media() const = 0;
  // What ends an answer in the model's format, wherever it stands.
  virtual const std::vector<std::string>& stop() const = 0;
  virtual AnswerMarkup markup() const { return {}; }
  // False where the template cannot switch thinking on.
  virtual bool supports_thinking() const = 0;
  virtual std::unique_ptr<ChatStreamParser> create_parser() const = 0;
};

}  // namespace snapllm
