// What is said to a model may hold the text of control tokens: a file that an agent reads, a document
// about chat templates. It is text there, and ends no turn.
#pragma once

#include <bitset>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "chat.h"

struct llama_vocab;

namespace snapllm {

struct MediaPrompt;

// A template renders messages and markup into one text, in which nothing tells the two apart. So
// a mark is put into such text before, behind which no control token is found, and taken out of
// the tokens after. Immutable.
class ControlText {
 public:
  explicit ControlText(std::vector<std::string> texts_of_control_tokens);
  // Of a vocabulary that has tokens for a mark alone; of any other nothing is found.
  static ControlText of(const llama_vocab* vocab);

  // Marks all there is in messages but the assistant's. Returns the mark, which is in none of
  // them otherwise; empty where nothing had to be marked.
  std::string mark(std::vector<common_chat_msg>& messages) const;

  bool is_in(std::string_view text) const { return find(text, 0) != std::string_view::npos; }

 private:
  // Where the next one begins, from `at` on.
  size_t find(std::string_view text, size_t at) const;
  // Puts the mark behind the first byte of each; false where there is none.
  bool mark_text(std::string& text, std::string_view mark) const;

  std::bitset<256> first_bytes_;
  std::unordered_map<std::string, std::vector<std::string>> texts_;  // by their first two bytes
};

// REQUIRES: a mark
std::string without_mark(const std::string& text, std::string_view mark);

// Takes out the tokens that the mark is made of. Where one has more in it, the mark stays.
void drop_mark(MediaPrompt& prompt, std::string_view mark, const llama_vocab* vocab);

}  // namespace snapllm
