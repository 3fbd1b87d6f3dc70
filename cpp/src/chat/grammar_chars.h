// The characters of a parsed grammar, in as few classes as the checks of it need.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "llama-grammar.h"

namespace snapllm {

constexpr size_t kNumCharClasses = 159;
using CharClasses = std::bitset<kNumCharClasses>;

// The character that a set is made of, when that is one alone; the set begins at `rule[i]`.
std::optional<uint32_t> only_character(const llama_grammar_rule& rule, size_t i);

// Every ASCII character is a class of its own. The others are cut where the grammar's own ranges
// and characters begin and end, so that sets meet only where they share a character; a grammar
// with more of these borders than places does without some, and its sets may then seem to meet.
// That two sets meet is never missed.
class CharCuts {
 public:
  explicit CharCuts(const llama_grammar_rules& rules);

  // The classes of the set that begins at `rule[i]`; `i` moves past it.
  CharClasses read_set(const llama_grammar_rule& rule, size_t& i) const;

 private:
  void cut_at(std::vector<uint64_t> borders);
  void add_range(CharClasses& to, uint64_t begin, uint64_t end) const;

  std::vector<uint64_t> begins_;  // of the classes outside ASCII, in order
};

}  // namespace snapllm
