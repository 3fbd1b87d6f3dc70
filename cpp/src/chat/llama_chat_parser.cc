#include "chat/llama_chat_parser.h"

#include <algorithm>
#include <exception>
#include <random>
#include <string_view>
#include <utility>

#include "chat-peg-parser.h"

namespace snapllm {
namespace {

// llama.cpp's parser takes some 2 KB of the stack for each bracket that is open.
constexpr int kMaxNesting = 1000;
// A longer answer is not read again within a call until it has grown by this part of itself: else a
// call of as many tokens as a file has would take longer to read than to compute.
constexpr size_t kShortBytes = 8192;
constexpr size_t kGrowthDivisor = 64;

std::string random_tool_call_id() {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  thread_local std::mt19937_64 generator{std::random_device{}()};
  std::uniform_int_distribution<size_t> pick(0, sizeof(kAlphabet) - 2);
  std::string id = "call_";
  for (int i = 0; i < 24; ++i) id += kAlphabet[pick(generator)];
  return id;
}

// What `now` has beyond `before`; nothing where it does not continue it, since
// text that was passed on cannot be taken back.
std::string continuation(const std::string& before, const std::string& now) {
  if (now.size() <= before.size() || now.compare(0, before.size(), before) != 0) return {};
  return now.substr(before.size());
}

ChatDelta text_delta(ChatDelta::Kind kind, std::string text) {
  ChatDelta delta;
  delta.kind = kind;
  delta.text = std::move(text);
  return delta;
}

}  // namespace

LlamaChatParser::LlamaChatParser(std::shared_ptr<const AnswerRules> rules, bool reads_all)
    : rules_(std::move(rules)), reads_all_(reads_all) {
  if (rules_->continued.empty()) return;
  try {
    // What stands in the prompt is read with the answer, and is no part of it.
    const common_chat_msg begun =
        common_chat_parse("", /*is_partial=*/true, rules_->parser_params);
    reasoning_ = begun.reasoning_content;
    // Its end may be held back, as what markup may begin with.
    const bool is_plain = rules_->continued.starts_with(begun.content);
    content_ = is_plain ? rules_->continued : begun.content;
  } catch (const std::exception&) {
    content_ = rules_->continued;
  }
}

std::vector<ChatDelta> LlamaChatParser::push(const RequestOutput& output) {
  const size_t begin = text_.size();
  text_ += output.text;
  token_ends_.insert(token_ends_.end(), output.token_ends.begin(), output.token_ends.end());
  std::vector<ChatDelta> deltas;
  if (!is_too_deep_) {
    const size_t at = nesting_.push(output.text, kMaxNesting);
    if (at == std::string_view::npos) {
      parse(output, deltas, /*may_wait=*/!reads_all_);
      return deltas;
    }
    is_too_deep_ = true;
    RequestOutput before;
    before.text = output.text.substr(0, at);
    const std::string rest = text_.substr(begin + at);
    text_.resize(begin + at);
    parse(before, deltas, /*may_wait=*/false);
    text_ += rest;
  }
  pass_on_rest(deltas);
  return deltas;
}

void LlamaChatParser::parse(const RequestOutput& output, std::vector<ChatDelta>& deltas,
                            bool may_wait) {
  const bool final = output.finished();
  const bool plain = is_plain(output.text);
  // llama.cpp reads an answer from its beginning each time: of a long one that takes longer than
  // computing its next token.
  if (!final && open_.has_value() && goes_on(output.text, plain)) {
    num_parsed_bytes_ = num_read_bytes_ = text_.size();
    if (!output.text.empty()) deltas.push_back(more_of(*open_, output.text));
    return;
  }
  open_.reset();
  if (!final && may_wait && can_wait()) return;
  const size_t num_read_before = std::exchange(num_read_bytes_, text_.size());
  try {
    const common_chat_msg message = common_chat_parse(text_, !final, rules_->parser_params);
    append_deltas(message, final, deltas);
    num_parsed_bytes_ = text_.size();
    if (!deltas.empty()) is_in_call_ = deltas.back().kind == ChatDelta::Kind::kToolCall;
    const auto unread = std::string_view(text_).substr(num_read_before);
    const bool is_more = deltas.size() == 1 && deltas[0].text == unread;
    if (!final && !reads_all_ && is_more) open(deltas[0], plain);
  } catch (const std::exception&) {
    // Formats fail in the middle of a construct that the next piece completes;
    // only at the end it is decided that the text is not in the format.
    if (final && text_.size() > num_parsed_bytes_) {
      deltas.push_back(
          text_delta(ChatDelta::Kind::kContent, text_.substr(num_parsed_bytes_)));
    }
  }
  if (final && !reasoning_.empty()) num_reasoning_tokens_ = count_reasoning_tokens();
}

bool LlamaChatParser::can_wait() const {
  return is_in_call_ && text_.size() > kShortBytes &&
         text_.size() - num_read_bytes_ < text_.size() / kGrowthDivisor;
}

bool LlamaChatParser::goes_on(const std::string& piece, bool is_plain) {
  if (!open_json_.has_value()) return is_plain;
  open_json_->push(piece);
  return open_json_->lowest() > 0;
}

void LlamaChatParser::open(const ChatDelta& delta, bool is_plain) {
  const bool is_call = delta.kind == ChatDelta::Kind::kToolCall;
  open_json_.reset();
  // JSON that stands in the text as it is passed on, so that its own brackets tell its end.
  const std::string* json = nullptr;
  if (is_call && delta.tool_index + 1 == static_cast<int32_t>(arguments_.size())) {
    json = &arguments_.back();
  } else if (delta.kind == ChatDelta::Kind::kContent && rules_->has_schema) {
    json = &content_;
  }
  if (json != nullptr && text_.ends_with(*json)) {
    JsonNesting nesting;
    nesting.push(*json);
    if (nesting.depth() > 0) {
      open_ = delta.kind;
      open_json_ = nesting;
    }
  } else if (!is_call && is_plain && num_plain_bytes_ >= rules_->longest_markup) {
    // What may be the beginning of markup is only held back by some formats.
    open_ = delta.kind;
  }
}

ChatDelta LlamaChatParser::more_of(ChatDelta::Kind kind, std::string text) {
  ChatDelta delta = text_delta(kind, std::move(text));
  if (kind == ChatDelta::Kind::kToolCall) {
    delta.tool_index = static_cast<int32_t>(arguments_.size()) - 1;
    arguments_.back() += delta.text;
  } else {
    text_of(kind) += delta.text;
  }
  return delta;
}

void LlamaChatParser::pass_on_rest(std::vector<ChatDelta>& deltas) {
  if (text_.size() == num_parsed_bytes_) return;
  const auto kind = arguments_.empty() ? ChatDelta::Kind::kContent : ChatDelta::Kind::kToolCall;
  deltas.push_back(more_of(kind, text_.substr(num_parsed_bytes_)));
  num_parsed_bytes_ = text_.size();
}

bool LlamaChatParser::is_plain(const std::string& piece) {
  const auto is_markup = [this](char c) {
    return rules_->markup_bytes[static_cast<unsigned char>(c)];
  };
  const auto last = std::find_if(piece.rbegin(), piece.rend(), is_markup);
  const auto num_after = static_cast<size_t>(last - piece.rbegin());
  num_plain_bytes_ = last == piece.rend() ? num_plain_bytes_ + num_after : num_after;
  return last == piece.rend();
}

std::string& LlamaChatParser::text_of(ChatDelta::Kind kind) {
  return kind == ChatDelta::Kind::kReasoning ? reasoning_ : content_;
}

int32_t LlamaChatParser::count_reasoning_tokens() const {
  // As common_chat_parse reads it, which does not say where in the text anything was.
  const common_chat_parser_params& params = rules_->parser_params;
  const size_t num_prompt_bytes = params.generation_prompt.size();
  const std::string input = params.generation_prompt + text_;
  common_peg_parse_context context(input, COMMON_PEG_PARSE_FLAG_LENIENT);
  const common_peg_parse_result result = params.parser.parse(context);
  std::vector<bool> is_reasoning(token_ends_.size());
  context.ast.visit(result, [&](const common_peg_ast_node& node) {
    if (node.tag != common_chat_peg_builder::REASONING) return;
    size_t begin = num_prompt_bytes;
    for (size_t i = 0; i < token_ends_.size(); ++i) {
      const size_t end = num_prompt_bytes + token_ends_[i];
      // A token without text of its own goes with what it is the beginning of.
      if (begin < node.end && std::max(end, begin + 1) > node.start) is_reasoning[i] = true;
      begin = end;
    }
  });
  return static_cast<int32_t>(std::count(is_reasoning.begin(), is_reasoning.end(), true));
}

void LlamaChatParser::append_deltas(const common_chat_msg& message, bool final,
                                    std::vector<ChatDelta>& deltas) {
  // Of calls that are announced what is left comes before a text behind them.
  const size_t num_announced = arguments_.size();
  append_tool_calls(message, 0, num_announced, final, deltas);
  if (std::string more = continuation(reasoning_, message.reasoning_content); !more.empty()) {
    reasoning_ += more;
    deltas.push_back(text_delta(ChatDelta::Kind::kReasoning, std::move(more)));
  }
  if (std::string more = continuation(content_, message.content); !more.empty()) {
    content_ += more;
    deltas.push_back(text_delta(ChatDelta::Kind::kContent, std::move(more)));
  }
  append_tool_calls(message, num_announced, message.tool_calls.size(), final, deltas);
}

void LlamaChatParser::append_tool_calls(const common_chat_msg& message, size_t begin, size_t end,
                                        bool final, std::vector<ChatDelta>& deltas) {
  for (size_t i = begin; i < std::min(end, message.tool_calls.size()); ++i) {
    const common_chat_tool_call& call = message.tool_calls[i];
    const bool is_announced = i < arguments_.size();
    // A name may still grow until its arguments or the next call begin. Their first bracket is no sign
    // of that: llama.cpp writes it with the name, before it has read on.
    const bool name_is_whole =
        final || call.arguments.size() > 1 || i + 1 < message.tool_calls.size();
    if (call.name.empty() || (!is_announced && !name_is_whole)) return;
    ChatDelta delta;
    delta.kind = ChatDelta::Kind::kToolCall;
    delta.tool_index = static_cast<int32_t>(i);
    if (!is_announced) {
      arguments_.emplace_back();
      delta.tool_name = call.name;
      delta.tool_id = call.id.empty() ? random_tool_call_id() : call.id;
    }
    delta.text = continuation(arguments_[i], call.arguments);
    arguments_[i] += delta.text;
    if (!is_announced || !delta.text.empty()) deltas.push_back(std::move(delta));
  }
}

bool reads_on(std::shared_ptr<const AnswerRules> rules) {
  LlamaChatParser parser(std::move(rules));
  RequestOutput output, end;
  output.text = "x";
  end.finish_reason = FinishReason::kStop;
  std::vector<ChatDelta> deltas = parser.push(output);
  for (ChatDelta& delta : parser.push(end)) deltas.push_back(std::move(delta));
  return deltas.size() == 1 && deltas[0].kind == ChatDelta::Kind::kContent &&
         deltas[0].text == output.text;
}

}  // namespace snapllm
