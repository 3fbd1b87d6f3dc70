#include "chat/grammar_copies.h"

#include <algorithm>
#include <limits>

#include "chat/components.h"

namespace snapllm {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
// Elements, with those of the rules that it uses. A JSON number has some 60.
constexpr size_t kMaxCopy = 250;
// Beyond these rules are shared again.
constexpr size_t kMaxCopies = 500'000;

// Whether the rule is `x y |`: what the parser makes of a repetition.
bool is_optional(const llama_grammar_rule& rule) {
  const size_t size = rule.size();
  if (size < 3 || rule[size - 2].type != LLAMA_GRETYPE_ALT) return false;
  return std::none_of(rule.begin(), rule.end() - 2,
                      [](const auto& element) { return element.type == LLAMA_GRETYPE_ALT; });
}

bool has_same_start(const llama_grammar_rule& a, const llama_grammar_rule& b, size_t size) {
  return a.size() >= size && b.size() >= size &&
         std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(size), b.begin(),
                    [](const auto& x, const auto& y) {
                      return x.type == y.type && x.value == y.value;
                    });
}

class Copier {
 public:
  Copier(const llama_grammar_rules& rules, const GrammarRules& read)
      : rules_(rules), read_(read) {
    fold_repetitions();
    Edges edges(rules_.size());
    for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
      for (const auto& element : rules_[rule]) {
        if (element.type == LLAMA_GRETYPE_RULE_REF) edges[rule].push_back(element.value);
      }
    }
    groups_ = components(edges);
    find_sizes();
    shared_.assign(rules_.size(), kNone);
  }

  llama_grammar_rules copy(uint32_t root) {
    share(root);
    while (!waiting_.empty()) {
      const uint32_t rule = waiting_.back();
      waiting_.pop_back();
      fill(rule, [this](uint32_t other) { return shared_[other]; });
    }
    return std::move(copies_);
  }

 private:
  bool may_be_empty(const llama_grammar_rule& rule, size_t size) const {
    return std::all_of(rule.begin(), rule.begin() + static_cast<std::ptrdiff_t>(size),
                       [this](const auto& each) {
                         return each.type == LLAMA_GRETYPE_RULE_REF &&
                                read_.may_be_empty(each.value);
                       });
  }

  // x{0,3} is a ::= x b | and b ::= x c | and c ::= x |, made from the last.
  void fold_repetitions() {
    std::vector<size_t> repeated(rules_.size());  // elements of what a rule repeats; 0 = none
    for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
      auto& elements = rules_[rule];
      if (!is_optional(elements)) continue;
      const size_t last = elements.size() - 3;
      const uint32_t next = elements[last].value;
      if (elements[last].type == LLAMA_GRETYPE_RULE_REF && next < rule && last > 0 &&
          repeated[next] == last && has_same_start(elements, rules_[next], last)) {
        repeated[rule] = last;
        elements[last].value = rule;
      } else if (!may_be_empty(elements, last + 1)) {
        repeated[rule] = last + 1;
      }
    }
  }

  void find_sizes() {
    std::vector<size_t> of_group(rules_.size());
    for (const uint32_t rule : groups_.order) {
      size_t size = rules_[rule].size();
      for (const auto& element : rules_[rule]) {
        if (element.type != LLAMA_GRETYPE_RULE_REF) continue;
        const uint32_t group = groups_.of[element.value];
        if (group != groups_.of[rule]) size += of_group[group];
      }
      size_t& total = of_group[groups_.of[rule]];
      total = std::min(total + size, kMaxCopy + 1);
    }
    for (uint32_t rule = 0; rule < rules_.size(); ++rule) {
      sizes_.push_back(of_group[groups_.of[rule]]);
      if (groups_.of[rule] >= members_.size()) members_.resize(groups_.of[rule] + 1);
      members_[groups_.of[rule]].push_back(rule);
    }
  }

  uint32_t add() {
    copies_.emplace_back();
    return static_cast<uint32_t>(copies_.size() - 1);
  }

  uint32_t share(uint32_t rule) {
    if (shared_[rule] == kNone) {
      shared_[rule] = add();
      waiting_.push_back(rule);
    }
    return shared_[rule];
  }

  // A copy of the rule and of those that lead back to it. Recurses no deeper than kMaxCopy.
  uint32_t copy_group(uint32_t rule) {
    const std::vector<uint32_t>& members = members_[groups_.of[rule]];
    const auto first = static_cast<uint32_t>(copies_.size());
    for (size_t i = 0; i < members.size(); ++i) add();
    const auto of = [&](uint32_t member) {
      const auto at = std::lower_bound(members.begin(), members.end(), member);
      return first + static_cast<uint32_t>(at - members.begin());
    };
    for (const uint32_t member : members) fill(member, of);
    return of(rule);
  }

  // `of` says which copy stands for a rule of the same group.
  template <typename Of>
  void fill(uint32_t rule, Of of) {
    llama_grammar_rule copy = rules_[rule];
    num_elements_ += copy.size();
    for (auto& element : copy) {
      if (element.type != LLAMA_GRETYPE_RULE_REF) continue;
      const uint32_t to = element.value;
      const bool is_same_group = groups_.of[to] == groups_.of[rule];
      if (is_same_group && of(to) != kNone) element.value = of(to);
      else if (!is_same_group && sizes_[to] <= kMaxCopy && num_elements_ < kMaxCopies) {
        element.value = copy_group(to);
      } else {
        element.value = share(to);
      }
    }
    copies_[of(rule)] = std::move(copy);
  }

  llama_grammar_rules rules_;
  const GrammarRules& read_;
  Components groups_;
  std::vector<size_t> sizes_;                   // of the copy that a use of each rule makes
  std::vector<std::vector<uint32_t>> members_;  // of each group, in order
  llama_grammar_rules copies_;
  std::vector<uint32_t> shared_;
  std::vector<uint32_t> waiting_;
  size_t num_elements_ = 0;
};

}  // namespace

llama_grammar_rules with_own_copies(const llama_grammar_rules& rules, const GrammarRules& read,
                                    uint32_t root) {
  return Copier(rules, read).copy(root);
}

}  // namespace snapllm
