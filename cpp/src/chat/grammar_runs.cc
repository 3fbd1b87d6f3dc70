#include "chat/grammar_runs.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <utility>
#include <vector>

#include "chat/components.h"

namespace snapllm {
namespace {

// A token of a dozen letters is a long one.
constexpr int kNumLetters = 12;
// As many are made by 3 or 4 ways for every letter. What schemas bring stays far below.
constexpr float kMaxRuns = 3e6f;
// llama.cpp compares each with all others.
constexpr float kMaxStacks = 10'000;

// Of each class of characters as the next one, the ways to read it and what follows. The last
// place counts the characters and sets themselves: stacks.
using Ways = std::array<float, kNumCharClasses + 1>;

void add(Ways& to, const Ways& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

void take_larger(Ways& to, const Ways& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

// What may follow a place: the rest of its alternative, and what comes after the rule where all
// of that rest may be empty.
struct Rest {
  Ways ways{};
  bool is_empty = true;
  // The rest begins with these characters, and `ways` is not written yet: most of a grammar is
  // literals, which are followed letter by letter.
  const GrammarSymbol* chars = nullptr;
};

size_t first_of(const CharClasses& chars) {
  size_t at = 0;
  while (!chars[at]) ++at;
  return at;
}

// Whether the rule is a choice of words of which a text begins with one at most, such as an enum.
bool is_choice_of_words(const GrammarRules& rules, uint32_t rule) {
  std::vector<std::vector<uint32_t>> words;
  for (uint32_t i = 0; i < rules.num_alternatives(rule); ++i) {
    auto& word = words.emplace_back();
    for (const GrammarSymbol& symbol : rules.alternative(rule, i)) {
      if (!symbol.character) return false;
      word.push_back(*symbol.character);
    }
  }
  std::ranges::sort(words);
  const auto begins_with = [](const auto& next, const auto& word) {
    return word.size() <= next.size() && std::equal(word.begin(), word.end(), next.begin());
  };
  for (size_t i = 1; i < words.size(); ++i) {
    if (begins_with(words[i], words[i - 1])) return false;
  }
  return words.size() > 1;
}

// Counts, for every place in the grammar, the ways to read the next letters from there: at most
// those of the letters that have most. Beyond a rule's end it takes, of all places that refer to the
// rule, the largest count for each letter, as a stack knows only one of them.
class Runs {
 public:
  explicit Runs(const GrammarRules& rules)
      : rules_(rules),
        begins_(components(rules.begins()).order),
        ends_(components(rules.ends()).order),
        runs_(rules.num_symbols(), 1.0f),
        next_runs_(rules.num_symbols(), 1.0f),
        first_(rules.num_rules()),
        after_(rules.num_rules()) {
    for (uint32_t rule = 0; rule < rules.num_rules(); ++rule) {
      are_words_.push_back(is_choice_of_words(rules, rule));
    }
  }

  // One letter more. False when that changed nothing.
  bool add_letter() {
    std::ranges::fill(first_, Ways{});
    std::ranges::fill(after_, Ways{});
    for (const uint32_t rule : begins_) find_first(rule);
    for (uint32_t rule = 0; rule < rules_.num_rules(); ++rule) pass_on_inside(rule);
    for (const uint32_t rule : std::views::reverse(ends_)) pass_on_ends(rule);
    for (const Ways& next : first_) note(next);
    const bool has_changed = runs_ != next_runs_;
    runs_ = next_runs_;
    return has_changed;
  }

  float most_runs() const { return most_runs_; }
  float most_stacks() const { return most_stacks_; }

 private:
  float runs_after(const GrammarSymbol& symbol) const {
    return symbol.kind == GrammarSymbol::Kind::kToken ? 0 : runs_[rules_.place(symbol)];
  }

  const Ways& ways(Rest& rest) const {
    if (rest.chars == nullptr) return rest.ways;
    const GrammarSymbol& symbol = *std::exchange(rest.chars, nullptr);
    rest.ways = {};
    rest.ways.back() = 1;
    if (symbol.kind == GrammarSymbol::Kind::kToken) return rest.ways;
    const CharClasses& chars = rules_.chars(symbol);
    for (size_t i = 0; i < kNumCharClasses; ++i) rest.ways[i] = chars[i] ? runs_after(symbol) : 0;
    return rest.ways;
  }

  void prepend(Rest& rest, const GrammarSymbol& symbol) const {
    if (rules_.may_be_empty(symbol)) {
      ways(rest);
      add(rest.ways, first_[symbol.index]);
      return;
    }
    rest.is_empty = false;
    rest.chars = symbol.kind == GrammarSymbol::Kind::kRule ? nullptr : &symbol;
    if (rest.chars == nullptr) rest.ways = first_[symbol.index];
  }

  // Of words that exclude each other, all but one end within.
  void find_first_of_words(uint32_t rule) {
    Ways count{};
    Ways longest{};
    for (uint32_t i = 0; i < rules_.num_alternatives(rule); ++i) {
      const GrammarSymbol& symbol = rules_.alternative(rule, i).front();
      const size_t at = first_of(rules_.chars(symbol));
      ++count[at];
      ++count.back();
      longest[at] = std::max(longest[at], runs_after(symbol));
    }
    for (size_t i = 0; i < kNumCharClasses; ++i) {
      if (count[i] > 0) count[i] += longest[i] - 1;
    }
    first_[rule] = count;
  }

  void find_first(uint32_t rule) {
    if (are_words_[rule]) {
      find_first_of_words(rule);
      return;
    }
    Ways sum{};
    for (uint32_t i = 0; i < rules_.num_alternatives(rule); ++i) {
      Rest rest;
      for (const GrammarSymbol& symbol : std::views::reverse(rules_.alternative(rule, i))) {
        prepend(rest, symbol);
      }
      add(sum, ways(rest));
    }
    first_[rule] = sum;
  }

  void follow(const GrammarSymbol& symbol, const Ways& next) {
    if (symbol.kind == GrammarSymbol::Kind::kRule) take_larger(after_[symbol.index], next);
    else next_runs_[rules_.place(symbol)] = std::max(1.0f, note(next));
  }

  void follow(const GrammarSymbol& symbol, Rest& rest) {
    if (symbol.kind == GrammarSymbol::Kind::kRule || rest.chars == nullptr) {
      follow(symbol, ways(rest));
    } else {
      next_runs_[rules_.place(symbol)] = std::max(1.0f, runs_after(*rest.chars));
    }
  }

  void pass_on_inside(uint32_t rule) {
    for (uint32_t i = 0; i < rules_.num_alternatives(rule); ++i) {
      Rest rest;
      for (const GrammarSymbol& symbol : std::views::reverse(rules_.alternative(rule, i))) {
        if (!rest.is_empty) follow(symbol, rest);
        prepend(rest, symbol);
      }
    }
  }

  // What may come last in the rule is followed by what follows the rule, too.
  void pass_on_ends(uint32_t rule) {
    for (uint32_t i = 0; i < rules_.num_alternatives(rule); ++i) {
      Rest rest;
      for (const GrammarSymbol& symbol : std::views::reverse(rules_.alternative(rule, i))) {
        Ways next = after_[rule];
        add(next, rest.ways);
        follow(symbol, next);
        prepend(rest, symbol);
        if (!rest.is_empty) break;
      }
    }
  }

  float note(const Ways& next) {
    const float runs = *std::max_element(next.begin(), next.end() - 1);
    most_runs_ = std::max(most_runs_, runs);
    most_stacks_ = std::max(most_stacks_, next.back());
    return runs;
  }

  const GrammarRules& rules_;
  const std::vector<uint32_t> begins_;
  const std::vector<uint32_t> ends_;
  std::vector<float> runs_;  // after each place
  std::vector<float> next_runs_;
  std::vector<Ways> first_;  // what each rule may begin with
  std::vector<Ways> after_;  // what may follow each rule
  std::vector<bool> are_words_;  // of each rule
  float most_runs_ = 0;
  float most_stacks_ = 0;
};

}  // namespace

std::string ambiguity_fault(const GrammarRules& rules) {
  Runs runs(rules);
  for (int i = 0; i < kNumLetters; ++i) {
    const bool has_changed = runs.add_letter();
    if (runs.most_stacks() > kMaxStacks) return "too many alternatives are open at once in it";
    if (runs.most_runs() > kMaxRuns) return "a text can match it in too many ways";
    if (!has_changed) break;
  }
  return "";
}

}  // namespace snapllm
