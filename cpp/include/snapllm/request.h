// What a caller asks for: a chat to format, and a prompt to complete.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapllm/media.h"

namespace snapllm {

using Token = int32_t;

struct SamplingParams {
  float temperature = 0.7f;  // 0 = greedy
  float top_p = 0.9f;        // 1 = off
  int32_t top_k = 40;        // 0 = off
  float min_p = 0.05f;       // 0 = off
  float typical_p = 1.0f;    // 1 = off
  float repeat_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  int32_t penalty_last_n = 64;  // tokens the penalties look back on; -1 = all of the context
  int64_t seed = -1;            // -1 = random
  bool ignore_eos = false;      // up to where a grammar allows nothing more
  int32_t min_tokens = 0;       // ignore_eos for the first so many; as far as max_tokens goes
  // Alternatives whose log probabilities are returned with each token; -1 = none.
  int32_t num_logprobs = -1;
  std::vector<std::pair<Token, float>> logit_bias;
  // A GBNF grammar the whole output must match; empty = none. A chat format that
  // brings a grammar of its own (tools, JSON schema) takes its place.
  std::string grammar;
};

enum class ToolChoice { kAuto, kRequired, kNone };

// A conversation to be rendered by the model's own chat template.
struct ChatFormatRequest {
  std::string messages_json;  // array of messages in the OpenAI chat form
  std::string tools_json;     // array of tools in the OpenAI form; empty = none
  ToolChoice tool_choice = ToolChoice::kAuto;
  bool parallel_tool_calls = true;
  bool enable_thinking = false;
  // The last message is the assistant's and has a text: the answer is the rest of it.
  bool continue_final_message = false;
  std::string json_schema;  // schema the answer must match; empty = free text
  std::string grammar;      // GBNF the answer must match; empty = free text
  // Tokens of reasoning before its end is forced; -1 = unlimited.
  int32_t thinking_budget_tokens = -1;
  // The images and sounds of the conversation, in the order of the markers that stand for
  // them in the messages: content parts of type "media_marker" whose text is media_marker.
  // The marker must be nothing that a message could hold otherwise.
  std::vector<std::shared_ptr<const MediaInput>> media;
  std::string media_marker;
  // Variables handed to the template as they are: name and JSON value.
  std::vector<std::pair<std::string, std::string>> template_kwargs;
  // Prompts are tokenised faster that begin as others of the same namespace did.
  std::string cache_namespace;
};

class ChatPrompt;  // chat_prompt.h

struct GenerateRequest {
  std::string model_id;
  std::vector<Token> prompt;
  // What stands behind the prompt's virtual tokens, by place. Where it is empty, the
  // engine takes what the chat has for them.
  std::vector<MediaSpan> media;
  // The formatted chat the prompt came from: brings stop strings, grammar and
  // thinking budget. Null for plain text.
  std::shared_ptr<const ChatPrompt> chat;
  SamplingParams sampling;
  // Tokens to generate at most; -1 = as many as the context holds.
  int32_t max_tokens = 256;
  // Generation ends before the first of these; they are not part of the text.
  std::vector<std::string> stop;
  // Whether all of a chat's answer is said, and nothing in it reasoning or a call.
  bool is_plain = false;
  // Whether the KV of an earlier prompt may be used, and this one's kept.
  bool reuse_prefix = true;
  // Prompts of different namespaces share nothing.
  std::string cache_namespace;
  // Computes and keeps the prompt's KV and generates nothing.
  bool prefill_only = false;
  // Alternatives whose log probabilities are returned with each token of the prompt, which is
  // computed whole for that; nothing of it is reused or kept. -1 = none.
  int32_t num_prompt_logprobs = -1;
  // Sends an output after each step of prefill.
  bool report_progress = false;
  // Sends text as it comes; false: all of it in one output at the end, which wakes nobody
  // in between.
  bool stream = true;

  bool reuses_prefix() const { return reuse_prefix && num_prompt_logprobs < 0; }
};

}  // namespace snapllm
