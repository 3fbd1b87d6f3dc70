// A parsed grammar as the checks of it read it: every rule a list of alternatives, of symbols each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/components.h"
#include "chat/grammar_chars.h"
#include "llama-grammar.h"

namespace snapllm {

struct GrammarSymbol {
  enum class Kind : uint8_t { kRule, kChars, kToken };
  Kind kind;
  uint32_t index;  // the rule, or which of the sets
  std::optional<uint32_t> character = {};  // where the set is this one alone
};

class GrammarRules {
 public:
  using Alternative = std::span<const GrammarSymbol>;

  // Every reference in `parsed` must be to a rule.
  explicit GrammarRules(const llama_grammar_rules& parsed);

  uint32_t num_rules() const { return static_cast<uint32_t>(first_.size() - 1); }
  size_t num_symbols() const { return symbols_.size(); }
  uint32_t num_alternatives(uint32_t rule) const { return first_[rule + 1] - first_[rule]; }
  Alternative alternative(uint32_t rule, uint32_t which) const;
  // Where in the whole grammar a symbol stands.
  size_t place(const GrammarSymbol& symbol) const {
    return static_cast<size_t>(&symbol - symbols_.data());
  }
  const CharClasses& chars(const GrammarSymbol& symbol) const { return sets_[symbol.index]; }
  bool may_be_empty(uint32_t rule) const { return may_be_empty_[rule]; }
  bool may_be_empty(const GrammarSymbol& symbol) const {
    return symbol.kind == GrammarSymbol::Kind::kRule && may_be_empty_[symbol.index];
  }

  // The rules that a text of each rule may begin with, and that it may end with.
  Edges begins() const;
  Edges ends() const;

  // Why llama.cpp must not look for left recursion in it, which it does along every path; empty
  // = it may.
  std::string recursion_fault() const;

 private:
  void read_rule(const llama_grammar_rule& rule, const CharCuts& cuts);
  uint32_t add_set(const CharClasses& chars);
  void find_empty();
  bool has_growing_cycle(const Components& order) const;

  std::vector<GrammarSymbol> symbols_;
  std::vector<size_t> bounds_;   // of the alternatives, in symbols_
  std::vector<uint32_t> first_;  // of each rule's alternatives
  std::vector<CharClasses> sets_;
  std::unordered_map<CharClasses, uint32_t> set_ids_;
  std::vector<bool> may_be_empty_;
};

}  // namespace snapllm
