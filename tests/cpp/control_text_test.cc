#include "chat/control_text.h"

#include <filesystem>

#include "backend/llama_projector.h"
#include "check.h"
#include "common.h"
#include "vocabulary.h"

namespace snapllm {
namespace {

const ControlText& control_text() {
  static const ControlText text({"<s>", "<|end|>", "<|end|>!", "<｜User｜>", "[INST]", "<", ""});
  return text;
}

common_chat_msg message(const std::string& role, const std::string& content) {
  common_chat_msg result;
  result.role = role;
  result.content = content;
  return result;
}

std::string marked(const std::string& content) {
  std::vector<common_chat_msg> messages = {message("user", content)};
  std::string mark = control_text().mark(messages);
  std::string shown = messages[0].content;
  if (!mark.empty()) CHECK_EQ(without_mark(shown, mark), content);
  if (mark.empty()) return shown;
  std::string result;
  size_t begin = 0;
  for (size_t at = shown.find(mark); at != std::string::npos; at = shown.find(mark, begin)) {
    result += shown.substr(begin, at - begin) + '^';
    begin = at + mark.size();
  }
  return result + shown.substr(begin);
}

TEST(control_text, what_would_be_a_control_token_is_parted) {
  CHECK_EQ(marked("a<|end|>b"), "a<^|end|>b");
  CHECK_EQ(marked("<s><|end|>!"), "<^s><^|end|>!");
  CHECK_EQ(marked("<<｜User｜>"), "<<^｜User｜>");
  CHECK_EQ(marked("x[INST]"), "x[^INST]");
}

TEST(control_text, other_text_stays) {
  for (const std::string text : {"", "<", "a < b", "<|end|", "<|en", "s>", "<span>", "[inst]"}) {
    std::vector<common_chat_msg> messages = {message("user", text)};
    CHECK_EQ(control_text().mark(messages), "");
    CHECK_EQ(messages[0].content, text);
  }
}

TEST(control_text, what_the_assistant_said_stays) {
  std::vector<common_chat_msg> messages;
  for (const char* role : {"system", "assistant", "user", "tool"}) {
    messages.push_back(message(role, "<s>"));
  }
  common_chat_msg parts = message("user", "");
  parts.content_parts = {{"text", "<s>"}, {"media_marker", "<s>"}};
  messages.push_back(parts);
  const std::string mark = control_text().mark(messages);
  const std::string expected = "<" + mark + "s>";
  CHECK_EQ(messages[0].content, expected);
  CHECK_EQ(messages[1].content, "<s>");
  CHECK_EQ(messages[2].content, expected);
  CHECK_EQ(messages[3].content, expected);
  CHECK_EQ(messages[4].content_parts[0].text, expected);
  CHECK_EQ(messages[4].content_parts[1].text, "<s>");
}

TEST(control_text, the_mark_is_in_no_message) {
  const std::string first = "\uFDD0";
  std::vector<common_chat_msg> messages = {message("assistant", first), message("user", "<s>")};
  const std::string mark = control_text().mark(messages);
  CHECK(!mark.empty());
  CHECK(mark != first);
}

std::string text_of(const llama_vocab* vocab, const std::vector<Token>& tokens) {
  std::string text;
  for (const Token token : tokens) text += common_token_to_piece(vocab, token, /*special=*/true);
  return text;
}

bool is_control(const llama_vocab* vocab, Token token) {
  return (llama_vocab_get_attr(vocab, token) & LLAMA_TOKEN_ATTR_CONTROL) != 0;
}

TEST(control_text, vocabularies_of_llama_cpp_read_the_same_text_without_control_tokens) {
  if (!std::filesystem::exists(SNAPLLM_VOCABULARIES)) SKIP("this checkout has no upstream sources");
  int num_vocabularies = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SNAPLLM_VOCABULARIES)) {
    if (entry.path().extension() != ".gguf") continue;
    const Vocabulary vocabulary(entry.path());
    REQUIRE(vocabulary.model != nullptr);
    const llama_vocab* vocab = llama_model_get_vocab(vocabulary.model);
    const ControlText control_text = ControlText::of(vocab);
    int num_marked = 0;
    for (Token id = 0; id < llama_vocab_n_tokens(vocab) && num_marked < 50; ++id) {
      if (!is_control(vocab, id)) continue;
      const std::string content = std::string("It is ") + llama_vocab_get_text(vocab, id) + " here";
      std::vector<common_chat_msg> messages = {message("user", content)};
      const std::string mark = control_text.mark(messages);
      if (mark.empty()) continue;
      ++num_marked;
      MediaPrompt prompt{common_tokenize(vocab, messages[0].content, false, true), {}};
      drop_mark(prompt, mark, vocab);
      const auto plain = common_tokenize(vocab, content, false, /*parse_special=*/false);
      CHECK_EQ(text_of(vocab, prompt.tokens), text_of(vocab, plain));
      for (const Token token : prompt.tokens) CHECK(!is_control(vocab, token));
    }
    num_vocabularies += num_marked > 0;
  }
  CHECK(num_vocabularies > 10);
}

}  // namespace
}  // namespace snapllm
