#include "chat/answer_rules.h"

#include "check.h"

namespace snapllm {
namespace {

std::shared_ptr<const AnswerRules> make_rules() {
  return std::make_shared<const AnswerRules>(common_chat_params{}, /*vocab=*/nullptr,
                                             std::vector<llama_token>{}, /*must_call=*/false,
                                             /*is_json=*/false);
}

TEST(answer_rules, are_found_by_what_the_prompt_begins_the_answer_with) {
  AnswerRulesCache cache;
  const auto rules = make_rules();
  cache.add("key", "user", "<bot>", /*tells=*/false, rules);
  CHECK(cache.find("key", "<bot>") == rules);
  CHECK(cache.find("key", "<bot><think>") == nullptr);
  CHECK(cache.find("other", "<bot>") == nullptr);
  CHECK(cache.find_by_end("key", "user", "hello<bot>") == nullptr);  // it does not tell
}

TEST(answer_rules, are_found_by_the_prompts_end_behind_the_same_role) {
  AnswerRulesCache cache;
  const auto rules = make_rules(), thinking = make_rules();
  cache.add("key", "user", "<bot>", /*tells=*/true, rules);
  cache.add("key", "user", "</tool><bot>", /*tells=*/true, thinking);
  CHECK(cache.find_by_end("key", "user", "hello<bot>") == rules);
  CHECK(cache.find_by_end("key", "user", "hello</tool><bot>") == thinking);  // the longest
  CHECK(cache.find_by_end("key", "tool", "hello<bot>") == nullptr);
  CHECK(cache.find_by_end("key", "user", "hello") == nullptr);
}

TEST(answer_rules, of_requests_that_came_at_once_take_one_place) {
  AnswerRulesCache cache;
  const auto first = make_rules(), last = make_rules();
  cache.add("other", "user", "<bot>", /*tells=*/true, first);
  for (int i = 0; i < 40; ++i) cache.add("key", "user", "<bot>", /*tells=*/true, last);
  CHECK(cache.find("other", "<bot>") == first);
  CHECK(cache.find("key", "<bot>") == last);
}

TEST(answer_rules, are_not_kept_where_what_they_follow_from_is_too_long) {
  AnswerRulesCache cache;
  cache.add("key", "user", std::string(size_t{1} << 21, 'x'), /*tells=*/true, make_rules());
  CHECK(cache.find("key", std::string(size_t{1} << 21, 'x')) == nullptr);
}

}  // namespace
}  // namespace snapllm
