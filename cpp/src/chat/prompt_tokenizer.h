// Tokens of prompts that begin as others did.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "snapllm/request.h"

struct llama_model;

namespace snapllm {

// A token whose text is looked for in a prompt before all else.
struct SpecialToken {
  std::string text;
  // A control token with a text of its own wherever it is, which takes no blanks beside it and
  // neither begins nor ends with one.
  bool parts = false;
};
using SpecialTokens = std::unordered_map<Token, SpecialToken>;

// The turns of a chat, and the chats of one agent, begin with the same text, whose tokens need not
// be found again: special tokens part a prompt, and each part is tokenised by itself. A prompt is
// cut behind the last special token that it has in common with one before, where no other
// special token can lie across the cut. The tokens are those of the whole. Thread-safe.
class PromptTokenizer {
 public:
  // Tokenises a text with its special tokens: a whole prompt with what the vocabulary adds
  // before it, or the rest of one. May throw.
  using Tokenize = std::function<std::vector<Token>(const std::string& text, bool is_whole)>;

  // `specials` are all of the vocabulary; without any, nothing is kept.
  PromptTokenizer(SpecialTokens specials, Tokenize tokenize);

  // What one namespace asked for saves another no time.
  std::vector<Token> tokenize(const std::string& text, const std::string& cache_namespace) const;

 private:
  struct Cut {
    size_t end = 0;  // of the text before it
    size_t num_tokens = 0;
  };
  struct Prompt {
    std::string cache_namespace;
    std::string text;
    std::vector<Token> tokens;
    std::vector<Cut> cuts;  // in order
  };

  // The known prompt with the cut that has most of `text` before it.
  std::pair<std::shared_ptr<const Prompt>, Cut> longest(const std::string& text,
                                                        const std::string& cache_namespace) const;
  std::vector<Cut> cuts_of(const std::string& text, const std::vector<Token>& tokens) const;
  bool is_separator(const SpecialTokens::value_type& special) const;
  void keep(Prompt prompt) const;

  const SpecialTokens specials_;
  const Tokenize tokenize_;
  mutable std::mutex mutex_;
  // Whether nothing can lie across a cut behind the special token; found out when it is met.
  mutable std::unordered_map<Token, bool> separators_;
  mutable std::list<std::shared_ptr<const Prompt>> prompts_;  // the latest first
};

// Tokenises with the model's vocabulary, which outlives it. Nothing is kept with vocabularies
// whose tokens depend on more than the part, or that add something at the end.
std::unique_ptr<PromptTokenizer> make_prompt_tokenizer(const llama_model* model);

}  // namespace snapllm
