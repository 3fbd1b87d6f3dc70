#include "chat/grammar_chars.h"

#include <algorithm>

namespace snapllm {
namespace {

constexpr uint64_t kAsciiEnd = 128;
// GBNF can write any number of 32 bits as a character.
constexpr uint64_t kCodesEnd = uint64_t{1} << 32;
constexpr size_t kNumPlaces = kNumCharClasses - kAsciiEnd;

// Code points from `begin` to before `end`; none where they are out of order.
struct CodeRange {
  uint64_t begin;
  uint64_t end;
};

bool has_upper(const llama_grammar_rule& rule, size_t i) {
  return rule[i + 1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER;  // a rule ends with an END
}

CodeRange range_at(const llama_grammar_rule& rule, size_t i) {
  if (rule[i].type == LLAMA_GRETYPE_CHAR_ANY) return {0, kCodesEnd};
  return {rule[i].value, uint64_t{rule[has_upper(rule, i) ? i + 1 : i].value} + 1};
}

std::vector<CodeRange> all_but(std::vector<CodeRange> ranges) {
  std::ranges::sort(ranges, {}, &CodeRange::begin);
  std::vector<CodeRange> others;
  uint64_t begin = 0;
  for (const CodeRange& range : ranges) {
    others.push_back({begin, range.begin});
    begin = std::max(begin, range.end);
  }
  others.push_back({begin, kCodesEnd});
  return others;
}

}  // namespace

std::optional<uint32_t> only_character(const llama_grammar_rule& rule, size_t i) {
  const llama_gretype next = rule[i + 1].type;
  const bool is_alone = rule[i].type == LLAMA_GRETYPE_CHAR &&
                        next != LLAMA_GRETYPE_CHAR_RNG_UPPER && next != LLAMA_GRETYPE_CHAR_ALT;
  return is_alone ? std::optional(rule[i].value) : std::nullopt;
}

CharCuts::CharCuts(const llama_grammar_rules& rules) : begins_{kAsciiEnd} {
  std::vector<uint64_t> of_ranges;
  std::vector<uint64_t> before_characters;
  std::vector<uint64_t> after_characters;
  for (const llama_grammar_rule& rule : rules) {
    for (size_t i = 0; i < rule.size(); ++i) {
      if (rule[i].type != LLAMA_GRETYPE_CHAR && rule[i].type != LLAMA_GRETYPE_CHAR_NOT &&
          rule[i].type != LLAMA_GRETYPE_CHAR_ALT) {
        continue;
      }
      const auto [begin, end] = range_at(rule, i);
      if (end <= kAsciiEnd || end <= begin) continue;
      const bool is_character = end - begin == 1;
      (is_character ? before_characters : of_ranges).push_back(begin);
      (is_character ? after_characters : of_ranges).push_back(end);
    }
  }
  // Scripts are few and letters many: what a long list of words leaves out are the cuts within a
  // script.
  cut_at(std::move(of_ranges));
  cut_at(std::move(before_characters));
  cut_at(std::move(after_characters));
}

// Where there are too few places left, borders from all over are taken.
void CharCuts::cut_at(std::vector<uint64_t> borders) {
  std::erase_if(borders, [this](uint64_t border) {
    return border < kAsciiEnd || border >= kCodesEnd ||
           std::ranges::binary_search(begins_, border);
  });
  std::ranges::sort(borders);
  borders.erase(std::ranges::unique(borders).begin(), borders.end());
  const size_t taken = std::min(borders.size(), kNumPlaces - begins_.size());
  for (size_t i = 0; i < taken; ++i) begins_.push_back(borders[i * borders.size() / taken]);
  std::ranges::sort(begins_);
}

void CharCuts::add_range(CharClasses& to, uint64_t begin, uint64_t end) const {
  for (uint64_t code = begin; code < std::min(end, kAsciiEnd); ++code) to.set(code);
  begin = std::max(begin, kAsciiEnd);
  if (begin >= end) return;
  auto at = std::prev(std::ranges::upper_bound(begins_, begin));
  for (; at != begins_.end() && *at < end; ++at) {
    to.set(kAsciiEnd + static_cast<size_t>(at - begins_.begin()));
  }
}

CharClasses CharCuts::read_set(const llama_grammar_rule& rule, size_t& i) const {
  const bool is_negated = rule[i].type == LLAMA_GRETYPE_CHAR_NOT;
  std::vector<CodeRange> ranges;
  do {
    ranges.push_back(range_at(rule, i));
    i += has_upper(rule, i) ? 2 : 1;
  } while (rule[i].type == LLAMA_GRETYPE_CHAR_ALT);
  if (is_negated) ranges = all_but(std::move(ranges));
  CharClasses classes;
  for (const auto& [begin, end] : ranges) add_range(classes, begin, end);
  return classes;
}

}  // namespace snapllm
