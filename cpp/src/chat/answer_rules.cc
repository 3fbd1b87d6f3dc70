#include "chat/answer_rules.h"

#include <algorithm>
#include <utility>

#include "common.h"

namespace snapllm {
namespace {

// An agent's tools and their schemas are some 100 KB.
constexpr size_t kMaxEntries = 32;
// More is no agent's, and not to be kept that many times.
constexpr size_t kMaxKeyBytes = size_t{1} << 20;

}  // namespace

AnswerRules::AnswerRules(common_chat_params chat_params, const llama_vocab* vocab,
                         std::vector<llama_token> banned_tokens, bool is_call_forced)
    : params(std::move(chat_params)),
      banned(std::move(banned_tokens)),
      must_call(is_call_forced),
      parser_params(params) {
  params.prompt.clear();
  for (const std::string& text : params.preserved_tokens) {
    const auto ids = common_tokenize(vocab, text, false, true);
    if (ids.size() == 1) preserved.insert(ids[0]);
  }
  parser_params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
  if (!params.parser.empty()) parser_params.parser.load(params.parser);
}

std::shared_ptr<const AnswerRules> AnswerRulesCache::find(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& other) { return other.key == key; });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return entries_.front().rules;
}

void AnswerRulesCache::add(std::string key, std::shared_ptr<const AnswerRules> rules) {
  if (key.size() > kMaxKeyBytes) return;
  std::lock_guard lock(mutex_);
  entries_.push_front({std::move(key), std::move(rules)});
  if (entries_.size() > kMaxEntries) entries_.pop_back();
}

}  // namespace snapllm
