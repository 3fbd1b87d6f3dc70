#include "chat/prompt_tokenizer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "common.h"
#include "llama.h"

namespace snapllm {
namespace {

constexpr size_t kMaxPrompts = 16;
// Shorter ones are tokenised as fast as looked for; longer ones would take much memory.
constexpr size_t kMinBytes = 512;
constexpr size_t kMaxBytes = 1 << 20;
// Of the special tokens of a text, cuts are made behind so many kinds, the last ones.
constexpr size_t kMaxSeparators = 16;

// Whether `other`, where it begins before the end of `text`, can end after it.
bool can_straddle(std::string_view other, std::string_view text) {
  const size_t at = other.find(text);
  if (at != std::string_view::npos && at + text.size() < other.size()) return true;
  for (size_t size = 1; size < text.size() && size < other.size(); ++size) {
    if (text.substr(text.size() - size) == other.substr(0, size)) return true;
  }
  return false;
}

bool is_blank(char byte) { return std::isspace(static_cast<unsigned char>(byte)) != 0; }

size_t num_common(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

PromptTokenizer::PromptTokenizer(SpecialTokens specials, Tokenize tokenize)
    : specials_(std::move(specials)), tokenize_(std::move(tokenize)) {}

std::vector<Token> PromptTokenizer::tokenize(const std::string& text,
                                             const std::string& cache_namespace) const {
  if (specials_.empty() || text.size() < kMinBytes || text.size() > kMaxBytes) {
    return tokenize_(text, /*is_whole=*/true);
  }
  Prompt prompt{cache_namespace, text, {}, {}};
  const auto [known, cut] = longest(text, cache_namespace);
  if (known != nullptr) {
    const auto begin = known->tokens.begin();
    prompt.tokens.assign(begin, begin + static_cast<ptrdiff_t>(cut.num_tokens));
    prompt.cuts.assign(known->cuts.begin(), std::ranges::find(known->cuts, cut.end, &Cut::end) + 1);
  }
  const std::string rest = text.substr(cut.end);
  const auto tokens = tokenize_(rest, /*is_whole=*/known == nullptr);
  for (const Cut& found : cuts_of(rest, tokens)) {
    prompt.cuts.push_back({cut.end + found.end, cut.num_tokens + found.num_tokens});
  }
  prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
  auto result = prompt.tokens;
  keep(std::move(prompt));
  return result;
}

std::pair<std::shared_ptr<const PromptTokenizer::Prompt>, PromptTokenizer::Cut>
PromptTokenizer::longest(const std::string& text, const std::string& cache_namespace) const {
  std::vector<std::shared_ptr<const Prompt>> prompts;
  {
    std::lock_guard lock(mutex_);
    prompts.assign(prompts_.begin(), prompts_.end());
  }
  std::pair<std::shared_ptr<const Prompt>, Cut> best;
  for (const auto& prompt : prompts) {
    if (prompt->cache_namespace != cache_namespace) continue;
    const size_t common = num_common(prompt->text, text);
    const auto after = std::ranges::upper_bound(prompt->cuts, common, {}, &Cut::end);
    if (after == prompt->cuts.begin()) continue;
    const Cut cut = *std::prev(after);
    if (cut.end > best.second.end) best = {prompt, cut};
  }
  return best;
}

// A special token is where its text is, unless another took a part of it: then there are
// fewer of the one than of the other, and no cut is made behind any of them.
std::vector<PromptTokenizer::Cut> PromptTokenizer::cuts_of(const std::string& text,
                                                           const std::vector<Token>& tokens) const {
  std::map<Token, std::vector<Cut>> found;
  std::set<Token> met;
  for (size_t i = tokens.size(); i-- > 0;) {
    const auto special = specials_.find(tokens[i]);
    if (special == specials_.end() || !special->second.parts) continue;
    if (met.size() == kMaxSeparators && !met.contains(tokens[i])) continue;
    met.insert(tokens[i]);
    if (is_separator(*special)) found[tokens[i]].push_back({0, i + 1});
  }
  std::vector<Cut> cuts;
  for (auto& [token, of_token] : found) {
    std::ranges::reverse(of_token);
    const std::string& separator = specials_.at(token).text;
    size_t count = 0;
    for (size_t at = text.find(separator); at != std::string::npos;
         at = text.find(separator, at + separator.size())) {
      if (count < of_token.size()) of_token[count].end = at + separator.size();
      ++count;
    }
    if (count == of_token.size()) cuts.insert(cuts.end(), of_token.begin(), of_token.end());
  }
  std::ranges::sort(cuts, {}, &Cut::end);
  return cuts;
}

bool PromptTokenizer::is_separator(const SpecialTokens::value_type& special) const {
  std::lock_guard lock(mutex_);
  const auto [found, is_new] = separators_.try_emplace(special.first, false);
  if (is_new) {
    found->second = std::ranges::none_of(specials_, [&](const auto& other) {
      return can_straddle(other.second.text, special.second.text);
    });
  }
  return found->second;
}

void PromptTokenizer::keep(Prompt prompt) const {
  auto kept = std::make_shared<const Prompt>(std::move(prompt));
  std::lock_guard lock(mutex_);
  std::erase_if(prompts_, [&](const auto& other) {
    return other->cache_namespace == kept->cache_namespace && kept->text == other->text;
  });
  prompts_.push_front(std::move(kept));
  if (prompts_.size() > kMaxPrompts) prompts_.pop_back();
}

std::unique_ptr<PromptTokenizer> make_prompt_tokenizer(const llama_model* model) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  std::array<char, 32> kind{};
  llama_model_meta_val_str(model, "tokenizer.ggml.model", kind.data(), kind.size());
  const std::string_view name = kind.data();
  SpecialTokens specials;
  if ((name == "gpt2" || name == "llama") && !llama_vocab_get_add_eos(vocab)) {
    for (Token id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
      const int attributes = llama_vocab_get_attr(vocab, id);
      constexpr int kSpecial =
          LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN;
      constexpr int kStrips = LLAMA_TOKEN_ATTR_LSTRIP | LLAMA_TOKEN_ATTR_RSTRIP;
      if ((attributes & kSpecial) == 0) continue;
      const std::string text = llama_vocab_get_text(vocab, id);
      if (text.empty()) continue;
      // The token that is put before a whole prompt has no text there; and a blank at an end may
      // be another token's, which strips.
      const bool has_place = id != llama_vocab_bos(vocab) || !llama_vocab_get_add_bos(vocab);
      const bool has_ends = !is_blank(text.front()) && !is_blank(text.back());
      const bool is_control = (attributes & LLAMA_TOKEN_ATTR_CONTROL) != 0;
      specials[id] = {text, is_control && has_place && has_ends && (attributes & kStrips) == 0};
    }
  }
  return std::make_unique<PromptTokenizer>(
      std::move(specials), [vocab](const std::string& text, bool is_whole) {
        return common_tokenize(vocab, text, /*add_special=*/is_whole, /*parse_special=*/true);
      });
}

}  // namespace snapllm
