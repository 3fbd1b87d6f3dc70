#include "chat/control_text.h"

#include <algorithm>
#include <utility>

#include "backend/llama_projector.h"
#include "common.h"
#include "llama.h"

namespace snapllm {
namespace {

constexpr size_t kKeyBytes = 2;
// Code points that Unicode leaves to programs, and that are in no text: U+FDD0 to U+FDEF.
constexpr int kNumMarks = 32;

std::string mark_of(int number) {
  std::string mark = "\xEF\xB7\x90";
  mark.back() = static_cast<char>(0x90 + number);
  return mark;
}

// What the model wrote itself may be read again as it was written.
bool is_the_models(const common_chat_msg& message) { return message.role == "assistant"; }

bool holds(const common_chat_msg& message, const std::string& text) {
  return message.content.find(text) != std::string::npos ||
         std::ranges::any_of(message.content_parts, [&](const auto& part) {
           return part.text.find(text) != std::string::npos;
         });
}

// A mark that is in no message; empty where there is none.
std::string unused_mark(const std::vector<common_chat_msg>& messages) {
  for (int number = 0; number < kNumMarks; ++number) {
    const std::string mark = mark_of(number);
    if (std::ranges::none_of(messages, [&](const auto& message) { return holds(message, mark); })) {
      return mark;
    }
  }
  return {};
}

}  // namespace

ControlText::ControlText(std::vector<std::string> texts_of_control_tokens) {
  for (std::string& text : texts_of_control_tokens) {
    if (text.size() <= kKeyBytes) continue;
    first_bytes_.set(static_cast<unsigned char>(text.front()));
    texts_[text.substr(0, kKeyBytes)].push_back(std::move(text));
  }
}

ControlText ControlText::of(const llama_vocab* vocab) {
  std::string pieces;
  for (const Token token : common_tokenize(vocab, mark_of(0), false, true)) {
    pieces += common_token_to_piece(vocab, token, /*special=*/true);
  }
  std::vector<std::string> texts;
  if (!pieces.ends_with(mark_of(0))) return ControlText(texts);
  for (Token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
    constexpr int kControl = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
    if ((llama_vocab_get_attr(vocab, token) & kControl) == 0) continue;
    texts.emplace_back(llama_vocab_get_text(vocab, token));
  }
  return ControlText(std::move(texts));
}

std::string ControlText::mark(std::vector<common_chat_msg>& messages) const {
  if (texts_.empty()) return {};
  std::string mark;
  bool is_marked = false;
  for (common_chat_msg& message : messages) {
    if (is_the_models(message)) continue;
    if (mark.empty()) mark = unused_mark(messages);
    if (mark.empty()) return {};
    is_marked |= mark_text(message.content, mark);
    for (common_chat_msg_content_part& part : message.content_parts) {
      if (part.type == "text") is_marked |= mark_text(part.text, mark);
    }
  }
  return is_marked ? mark : std::string();
}

bool ControlText::mark_text(std::string& text, std::string_view mark) const {
  std::string marked;
  size_t num_done = 0;
  for (size_t at = find(text, 0); at != std::string_view::npos; at = find(text, num_done)) {
    marked.append(text, num_done, at + 1 - num_done).append(mark);
    num_done = at + 1;
  }
  if (num_done == 0) return false;
  text = marked.append(text, num_done);
  return true;
}

size_t ControlText::find(std::string_view text, size_t at) const {
  std::string key(kKeyBytes, '\0');
  for (; at + kKeyBytes < text.size(); ++at) {
    if (!first_bytes_[static_cast<unsigned char>(text[at])]) continue;
    text.copy(key.data(), kKeyBytes, at);
    const auto found = texts_.find(key);
    if (found == texts_.end()) continue;
    const std::string_view rest = text.substr(at);
    const auto is_here = [&](const std::string& each) { return rest.starts_with(each); };
    if (std::ranges::any_of(found->second, is_here)) return at;
  }
  return std::string_view::npos;
}

std::string without_mark(const std::string& text, std::string_view mark) {
  std::string result;
  size_t begin = 0;
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, begin)) {
    result.append(text, begin, at - begin);
    begin = at + mark.size();
  }
  return result.append(text, begin);
}

void drop_mark(MediaPrompt& prompt, std::string_view mark, const llama_vocab* vocab) {
  std::vector<Token> kept;
  std::vector<size_t> places(prompt.tokens.size() + 1);  // where each token stands afterwards
  size_t num_read = 0;                                  // bytes of the mark
  size_t num_tokens = 0;                                // that had them
  for (size_t i = 0; i < prompt.tokens.size(); ++i) {
    const Token token = prompt.tokens[i];
    places[i] = kept.size();
    kept.push_back(token);
    const std::string piece = token < 0 ? "" : common_token_to_piece(vocab, token, /*special=*/true);
    const bool goes_on = !piece.empty() && mark.substr(num_read).starts_with(piece);
    const bool begins = !piece.empty() && mark.starts_with(piece);
    num_tokens = goes_on ? num_tokens + 1 : begins;
    num_read = goes_on ? num_read + piece.size() : begins ? piece.size() : 0;
    if (num_read < mark.size()) continue;
    kept.resize(kept.size() - num_tokens);
    num_read = num_tokens = 0;
  }
  places.back() = kept.size();
  for (MediaSpan& span : prompt.spans) {
    span.begin = static_cast<int32_t>(places[static_cast<size_t>(span.begin)]);
  }
  prompt.tokens = std::move(kept);
}

}  // namespace snapllm
