#include "chat/grammar_rules.h"

#include <algorithm>
#include <ranges>

namespace snapllm {
namespace {

// llama.cpp recurses as deep, and looks at as many rules.
constexpr uint32_t kMaxChain = 5000;
constexpr double kMaxVisits = 5e6;

}  // namespace

GrammarRules::GrammarRules(const llama_grammar_rules& parsed) {
  const CharCuts cuts(parsed);
  bounds_.push_back(0);
  for (const llama_grammar_rule& rule : parsed) {
    first_.push_back(static_cast<uint32_t>(bounds_.size() - 1));
    read_rule(rule, cuts);
  }
  first_.push_back(static_cast<uint32_t>(bounds_.size() - 1));
  find_empty();
}

void GrammarRules::read_rule(const llama_grammar_rule& rule, const CharCuts& cuts) {
  using Kind = GrammarSymbol::Kind;
  for (size_t i = 0; i < rule.size();) {
    switch (rule[i].type) {
      case LLAMA_GRETYPE_END:
      case LLAMA_GRETYPE_ALT:
        bounds_.push_back(symbols_.size());
        ++i;
        break;
      case LLAMA_GRETYPE_RULE_REF: symbols_.push_back({Kind::kRule, rule[i++].value}); break;
      case LLAMA_GRETYPE_TOKEN:
      case LLAMA_GRETYPE_TOKEN_NOT: symbols_.push_back({Kind::kToken, rule[i++].value}); break;
      default: {
        const auto character = only_character(rule, i);
        symbols_.push_back({Kind::kChars, add_set(cuts.read_set(rule, i)), character});
      }
    }
  }
}

uint32_t GrammarRules::add_set(const CharClasses& chars) {
  const auto [known, is_new] = set_ids_.emplace(chars, static_cast<uint32_t>(sets_.size()));
  if (is_new) sets_.push_back(chars);
  return known->second;
}

GrammarRules::Alternative GrammarRules::alternative(uint32_t rule, uint32_t which) const {
  const size_t begin = bounds_[first_[rule] + which];
  return Alternative(symbols_).subspan(begin, bounds_[first_[rule] + which + 1] - begin);
}

void GrammarRules::find_empty() {
  may_be_empty_.assign(num_rules(), false);
  std::vector<uint32_t> left(bounds_.size() - 1);         // symbols that are not known to be empty
  std::vector<std::vector<uint32_t>> uses(num_rules());   // of a rule, the alternatives
  std::vector<uint32_t> owner(left.size());
  std::vector<uint32_t> found;
  for (uint32_t rule = 0; rule < num_rules(); ++rule) {
    for (uint32_t i = 0; i < num_alternatives(rule); ++i) {
      const Alternative symbols = alternative(rule, i);
      const uint32_t at = first_[rule] + i;
      owner[at] = rule;
      left[at] = static_cast<uint32_t>(symbols.size());
      for (const GrammarSymbol& symbol : symbols) {
        if (symbol.kind == GrammarSymbol::Kind::kRule) uses[symbol.index].push_back(at);
      }
      if (symbols.empty() && !may_be_empty_[rule]) {
        may_be_empty_[rule] = true;
        found.push_back(rule);
      }
    }
  }
  while (!found.empty()) {
    const uint32_t rule = found.back();
    found.pop_back();
    for (const uint32_t at : uses[rule]) {
      if (--left[at] > 0 || may_be_empty_[owner[at]]) continue;
      may_be_empty_[owner[at]] = true;
      found.push_back(owner[at]);
    }
  }
}

Edges GrammarRules::begins() const {
  Edges edges(num_rules());
  for (uint32_t rule = 0; rule < num_rules(); ++rule) {
    for (uint32_t i = 0; i < num_alternatives(rule); ++i) {
      for (const GrammarSymbol& symbol : alternative(rule, i)) {
        if (symbol.kind == GrammarSymbol::Kind::kRule) edges[rule].push_back(symbol.index);
        if (!may_be_empty(symbol)) break;
      }
    }
  }
  return edges;
}

Edges GrammarRules::ends() const {
  Edges edges(num_rules());
  for (uint32_t rule = 0; rule < num_rules(); ++rule) {
    for (uint32_t i = 0; i < num_alternatives(rule); ++i) {
      for (const GrammarSymbol& symbol : std::views::reverse(alternative(rule, i))) {
        if (symbol.kind == GrammarSymbol::Kind::kRule) edges[rule].push_back(symbol.index);
        if (!may_be_empty(symbol)) break;
      }
    }
  }
  return edges;
}

// A rule that begins with itself and goes on after it: its stack grows without end.
bool GrammarRules::has_growing_cycle(const Components& order) const {
  for (uint32_t rule = 0; rule < num_rules(); ++rule) {
    for (uint32_t i = 0; i < num_alternatives(rule); ++i) {
      const Alternative symbols = alternative(rule, i);
      for (size_t at = 0; at + 1 < symbols.size(); ++at) {
        if (symbols[at].kind == GrammarSymbol::Kind::kRule &&
            order.of[symbols[at].index] == order.of[rule]) {
          return true;
        }
        if (!may_be_empty(symbols[at])) break;
      }
    }
  }
  return false;
}

std::string GrammarRules::recursion_fault() const {
  const Edges edges = begins();
  const Components order = components(edges);
  if (has_growing_cycle(order)) return "a rule begins with itself (left recursion)";
  std::vector<uint32_t> chain(num_rules(), 1);
  std::vector<double> visits(num_rules(), 1);
  double all_visits = 0;
  for (const uint32_t rule : order.order) {
    for (const uint32_t to : edges[rule]) {
      if (order.of[to] == order.of[rule]) continue;
      chain[rule] = std::max(chain[rule], chain[to] + 1);
      visits[rule] += visits[to];
    }
    if (chain[rule] > kMaxChain) {
      return "its rules begin with one another too deeply (at most " + std::to_string(kMaxChain) +
             ")";
    }
    all_visits += visits[rule];
  }
  return all_visits > kMaxVisits ? "its rules begin with one another in too many ways" : "";
}

}  // namespace snapllm
