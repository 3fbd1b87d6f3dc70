#include "chat/prompt_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <random>

#include "check.h"
#include "common.h"
#include "vocabulary.h"

namespace snapllm {
namespace {

// A vocabulary of single bytes and these.
const SpecialTokens kSpecials = {
    {1000, {"<end>", true}},  {1001, {"<end>!", true}}, {1002, {"<start>", true}},
    {1003, {"<tab>", false}}, {1004, {"]]", true}},     {1005, {"<a>", true}},
    {1006, {"[b]", true}}};

// Tokenises as llama.cpp does: the longest special token first; says how much it was given.
struct Tokenizer {
  size_t num_bytes = 0;

  std::vector<Token> operator()(const std::string& text, bool is_whole) {
    num_bytes += text.size();
    std::vector<Token> tokens;
    if (is_whole) tokens.push_back(-1);
    part(text, 100, tokens);
    return tokens;
  }

  static void part(std::string_view text, size_t longest, std::vector<Token>& tokens) {
    for (size_t size = longest; size > 0; --size) {
      for (const auto& [id, special] : kSpecials) {
        if (special.text.size() != size) continue;
        const size_t at = text.find(special.text);
        if (at == std::string_view::npos) continue;
        part(text.substr(0, at), size, tokens);
        tokens.push_back(id);
        return part(text.substr(at + size), size, tokens);
      }
    }
    for (const char byte : text) tokens.push_back(byte);
  }
};

const std::string kLong(2000, 'x');

TEST(prompt_tokenizer, the_beginning_of_another_prompt_is_not_tokenised_again) {
  Tokenizer tokenizer;
  PromptTokenizer prompts(kSpecials, std::ref(tokenizer));
  const std::string first = "<start>" + kLong + "<tab>" + kLong + "<start>";
  CHECK(prompts.tokenize(first + "hello", "") == Tokenizer()(first + "hello", true));
  tokenizer.num_bytes = 0;
  CHECK(prompts.tokenize(first + "help<a>me", "") == Tokenizer()(first + "help<a>me", true));
  CHECK_EQ(tokenizer.num_bytes, 9U);
  tokenizer.num_bytes = 0;
  CHECK(prompts.tokenize(first + "help<a>", "") == Tokenizer()(first + "help<a>", true));
  CHECK_EQ(tokenizer.num_bytes, 0U);
}

TEST(prompt_tokenizer, another_namespace_tokenises_anew) {
  Tokenizer tokenizer;
  PromptTokenizer prompts(kSpecials, std::ref(tokenizer));
  const std::string text = "<start>" + kLong + "<start>hello";
  prompts.tokenize(text, "a");
  tokenizer.num_bytes = 0;
  prompts.tokenize(text, "b");
  CHECK_EQ(tokenizer.num_bytes, text.size());
}

TEST(prompt_tokenizer, no_cut_is_made_where_a_longer_token_can_lie) {
  Tokenizer tokenizer;
  PromptTokenizer prompts(kSpecials, std::ref(tokenizer));
  for (const std::string end : {"<end>", "[b]"}) {
    const std::string text = kLong + end;
    for (const std::string rest : {"?", "!", "]"}) {
      CHECK(prompts.tokenize(text + rest, "") == Tokenizer()(text + rest, true));
    }
  }
}

TEST(prompt_tokenizer, prompts_of_any_form_have_the_tokens_of_the_whole) {
  const std::vector<std::string> pieces = {"<end>", "<end>!", "<start>", "<tab>", "]]",
                                           "<a>",   "[b]",    "<",       ">",     "!",
                                           "]",     "a",      "\n",      kLong};
  std::mt19937 random(1);
  Tokenizer tokenizer;
  PromptTokenizer prompts(kSpecials, std::ref(tokenizer));
  size_t num_bytes = 0;
  std::string text;
  for (int i = 0; i < 80; ++i) {
    if (text.size() > 20'000) text.clear();
    if (random() % 4 == 0) text.resize(text.size() / (1 + random() % 3));
    for (size_t k = random() % 6; k > 0; --k) text += pieces[random() % pieces.size()];
    REQUIRE(prompts.tokenize(text, "") == Tokenizer()(text, true));
    num_bytes += text.size();
  }
  CHECK(tokenizer.num_bytes < num_bytes / 2);
}

TEST(prompt_tokenizer, every_vocabulary_of_llama_cpp_gives_the_tokens_of_the_whole) {
  if (!std::filesystem::exists(SNAPLLM_VOCABULARIES)) SKIP("this checkout has no upstream sources");
  int num_seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SNAPLLM_VOCABULARIES)) {
    if (entry.path().extension() != ".gguf") continue;
    const Vocabulary vocabulary(entry.path());
    REQUIRE(vocabulary.model != nullptr);
    const llama_vocab* vocab = llama_model_get_vocab(vocabulary.model);
    std::vector<std::string> pieces = {" ",  "\n",   "\n\n", "Hello", " world",
                                       "  ", "1234", "\xc3\xa9",
                                       "\xf0\x9f\x98\x80", "<", "|>", "\t"};
    for (Token id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
      if (pieces.size() < 40 && (llama_vocab_get_attr(vocab, id) & LLAMA_TOKEN_ATTR_CONTROL) != 0) {
        pieces.push_back(llama_vocab_get_text(vocab, id));
      }
    }
    const auto prompts = make_prompt_tokenizer(vocabulary.model);
    std::mt19937 random(1);
    std::string text;
    for (int i = 0; i < 80; ++i) {
      if (text.size() > 4000) text.clear();
      if (random() % 4 == 0) text.resize(std::min(text.size(), text.rfind('<')));
      for (size_t k = random() % 60; k > 0; --k) text += pieces[random() % pieces.size()];
      REQUIRE(prompts->tokenize(text, "") == common_tokenize(vocab, text, true, true));
    }
    ++num_seen;
  }
  CHECK(num_seen > 0);
}

}  // namespace
}  // namespace snapllm
