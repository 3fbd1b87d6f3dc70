// What a chat's format says of its answer: how it is constrained and read back.
#pragma once

#include <bitset>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "chat.h"

struct llama_vocab;

namespace snapllm {

struct AnswerRules {
  // May throw what llama.cpp's parsers and tokeniser throw.
  AnswerRules(common_chat_params chat_params, const llama_vocab* vocab,
              std::vector<llama_token> banned, bool must_call, bool is_json,
              std::string continued = {}, std::string forced_end = {});

  common_chat_params params;  // without the prompt
  std::set<llama_token> preserved;
  std::vector<llama_token> banned;  // never to be generated
  std::string forced_end;           // of a reasoning that has reached its budget
  bool must_call;                   // the answer says nothing
  std::string continued;            // text that the answer goes on from; the prompt ends with it
  common_chat_parser_params parser_params;
  // What the markup that ends a text begins with. What follows a text is more of it up to such a
  // byte, unless it has one among its last `longest_markup` bytes. All bytes where an answer is
  // JSON, which ends by itself.
  std::bitset<256> markup_bytes;
  size_t longest_markup = 0;
  bool has_schema;  // what is said is JSON
};

// Rules of the requests before, by what they follow from: a key, and what the prompt begins the answer
// with. Making them takes longer than anything else of formatting a chat: the template is rendered some
// dozen times, and a tool's schema becomes a parser and a grammar. Thread-safe.
class AnswerRulesCache {
 public:
  // Null when there are none.
  std::shared_ptr<const AnswerRules> find(const std::string& key, const std::string& generation_prompt);
  // Those of an answer behind a turn of `role` that the end of `prompt` begins, where that tells it;
  // else null.
  std::shared_ptr<const AnswerRules> find_by_end(const std::string& key, const std::string& role,
                                                 const std::string& prompt);
  // `tells` where no prompt with the key, behind a turn of `role`, that ends with `generation_prompt`
  // begins its answer with something that has other rules.
  void add(std::string key, std::string role, std::string generation_prompt, bool tells,
           std::shared_ptr<const AnswerRules> rules);

 private:
  struct Entry {
    std::string key;
    std::string role;  // of the turn before; templates begin the answer otherwise behind some
    std::string generation_prompt;
    bool tells;
    std::shared_ptr<const AnswerRules> rules;
  };
  // The rules of an entry, which is the last used then.
  std::shared_ptr<const AnswerRules> use(std::list<Entry>::iterator entry);

  std::mutex mutex_;
  std::list<Entry> entries_;  // the last used first
};

}  // namespace snapllm
