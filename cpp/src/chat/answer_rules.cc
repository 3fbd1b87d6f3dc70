#include "chat/answer_rules.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>
#include <variant>

#include "chat-peg-parser.h"
#include "common.h"
#include "peg-parser.h"

namespace snapllm {
namespace {

// An agent's tools and their schemas are some 100 KB.
constexpr size_t kMaxEntries = 32;
// More is no agent's, and not to be kept that many times.
constexpr size_t kMaxKeyBytes = size_t{1} << 20;

struct Markup {
  std::bitset<256> first_bytes;
  size_t longest = 0;

  void add(const std::string& text) {
    if (!text.empty()) first_bytes.set(static_cast<unsigned char>(text.front()));
    longest = std::max(longest, text.size());
  }
};

// A text goes on until a delimiter, or while something does not come (with a negation, which may be
// of any literal), or up to a character that is of no negated class.
Markup find_markup(const common_peg_arena& arena) {
  Markup delimiters, literals;
  bool has_negation = false;
  for (size_t id = 0; id < arena.size(); ++id) {
    const common_peg_parser_variant& parser = arena.get(id);
    if (const auto* until = std::get_if<common_peg_until_parser>(&parser)) {
      for (const std::string& delimiter : until->delimiters) delimiters.add(delimiter);
    } else if (const auto* automaton = std::get_if<common_peg_ac_parser>(&parser)) {
      for (const std::string& delimiter : automaton->delimiters) delimiters.add(delimiter);
    } else if (const auto* literal = std::get_if<common_peg_literal_parser>(&parser)) {
      literals.add(literal->literal);
    } else if (const auto* chars = std::get_if<common_peg_chars_parser>(&parser)) {
      for (const auto& range : chars->ranges) {
        for (uint32_t byte = 0; byte < 256; ++byte) {
          if (chars->negated && range.contains(byte)) delimiters.first_bytes.set(byte);
        }
      }
    } else if (std::holds_alternative<common_peg_not_parser>(parser)) {
      has_negation = true;
    }
  }
  if (has_negation) {
    delimiters.first_bytes |= literals.first_bytes;
    delimiters.longest = std::max(delimiters.longest, literals.longest);
  }
  return delimiters;
}

// llama.cpp's grammars allow blanks between a call's last argument and its end; where a format has nothing
// between the two, some of its parsers look ahead for that end and take it only if it comes at once.
void allow_blanks_before_call_ends(common_peg_arena& parser) {
  std::vector<bool> is_ahead(parser.size());
  for (size_t id = 0; id < parser.size(); ++id) {
    const auto* tag = std::get_if<common_peg_tag_parser>(&parser.get(id));
    if (tag == nullptr || tag->tag != common_chat_peg_builder::TOOL_CLOSE) continue;
    const auto* ahead = std::get_if<common_peg_and_parser>(&parser.get(tag->child));
    if (ahead != nullptr) is_ahead[ahead->child] = true;
  }
  // A parser cannot be added to, but what is looked for is also read, elsewhere in it.
  std::optional<common_peg_parser_id> space;
  std::unordered_map<std::string, common_peg_parser_id> read;
  for (size_t id = 0; id < parser.size(); ++id) {
    if (std::holds_alternative<common_peg_space_parser>(parser.get(id))) space = id;
    const auto* literal = std::get_if<common_peg_literal_parser>(&parser.get(id));
    if (literal != nullptr && !is_ahead[id]) read.emplace(literal->literal, id);
  }
  for (size_t id = 0; id < parser.size() && space; ++id) {
    const auto* literal = std::get_if<common_peg_literal_parser>(&parser.get(id));
    if (literal == nullptr || !is_ahead[id]) continue;
    const auto end = read.find(literal->literal);
    if (end != read.end()) parser.get(id) = common_peg_sequence_parser{{*space, end->second}};
  }
}

}  // namespace

AnswerRules::AnswerRules(common_chat_params chat_params, const llama_vocab* vocab,
                         std::vector<llama_token> banned_tokens, bool is_call_forced,
                         bool is_json, std::string continued_text, std::string end_when_forced)
    : params(std::move(chat_params)),
      banned(std::move(banned_tokens)),
      forced_end(std::move(end_when_forced)),
      must_call(is_call_forced),
      continued(std::move(continued_text)),
      parser_params(params),
      has_schema(is_json) {
  params.prompt.clear();
  for (const std::string& text : params.preserved_tokens) {
    const auto ids = common_tokenize(vocab, text, false, true);
    if (ids.size() == 1) preserved.insert(ids[0]);
  }
  parser_params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  if (!params.parser.empty()) parser_params.parser.load(params.parser);
  allow_blanks_before_call_ends(parser_params.parser);
  const Markup markup = find_markup(parser_params.parser);
  markup_bytes = markup.first_bytes;
  longest_markup = markup.longest;
  if (has_schema) markup_bytes.set();
}

std::shared_ptr<const AnswerRules> AnswerRulesCache::find(const std::string& key,
                                                          const std::string& generation_prompt) {
  std::lock_guard lock(mutex_);
  return use(std::ranges::find_if(entries_, [&](const Entry& entry) {
    return entry.generation_prompt == generation_prompt && entry.key == key;
  }));
}

std::shared_ptr<const AnswerRules> AnswerRulesCache::find_by_end(const std::string& key,
                                                                 const std::string& role,
                                                                 const std::string& prompt) {
  std::lock_guard lock(mutex_);
  auto longest = entries_.end();
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (!entry->tells || entry->role != role || !prompt.ends_with(entry->generation_prompt) ||
        entry->key != key) {
      continue;
    }
    const bool is_longest = longest == entries_.end() || longest->generation_prompt.size() <
                                                             entry->generation_prompt.size();
    if (is_longest) longest = entry;
  }
  return use(longest);
}

std::shared_ptr<const AnswerRules> AnswerRulesCache::use(std::list<Entry>::iterator entry) {
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entries_.front().rules;
}

void AnswerRulesCache::add(std::string key, std::string role, std::string generation_prompt,
                           bool tells, std::shared_ptr<const AnswerRules> rules) {
  if (key.size() + generation_prompt.size() > kMaxKeyBytes) return;
  std::lock_guard lock(mutex_);
  // Requests that come at once each find none.
  std::erase_if(entries_, [&](const Entry& entry) {
    return entry.role == role && entry.generation_prompt == generation_prompt && entry.key == key;
  });
  entries_.push_front(
      {std::move(key), std::move(role), std::move(generation_prompt), tells, std::move(rules)});
  if (entries_.size() > kMaxEntries) entries_.pop_back();
}

}  // namespace snapllm
