// What requests are answered, however they share the batches.
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "scheduler_fixture.h"

namespace snapllm {
namespace {

using Fixture = testing::SchedulerFixture;
using testing::Answer;
using testing::FakeChatPrompt;
using testing::fake_info;
using testing::kControlToken;
using testing::kEndToken;
using testing::make_sequence;
using testing::to_tokens;

TEST(scheduler, one_request_streams_its_tokens_in_order) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(!f.scheduler.has_work());
  CHECK(f.submit(1, "hi").ok());
  CHECK(f.scheduler.has_work());
  for (const char* so_far : {"a", "ab", "abc"}) {
    f.step();
    CHECK_EQ(f.answers[1].text, so_far);
  }
  f.run();
  const Answer& answer = f.answers[1];
  CHECK_EQ(answer.text, "abc");
  CHECK_EQ(answer.tokens, to_tokens("abc"));
  CHECK_EQ(answer.num_outputs, 4);
  CHECK_EQ(answer.last.seed, 1001);
  CHECK_EQ(answer.last.num_prompt_tokens, 2);
}

TEST(scheduler, an_answer_that_is_not_streamed_comes_in_one_output) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  GenerateRequest request;
  request.prompt = to_tokens("hi");
  request.stream = false;
  CHECK(f.scheduler
            .submit(std::make_unique<Sequence>(1, std::move(request),
                                               std::make_unique<testing::FakeSampler>(1), f.outputs,
                                               PrefixSource{}, 0))
            .ok());
  f.step();
  CHECK_EQ(f.answers[1].num_outputs, 0);
  f.run();
  CHECK_EQ(f.answers[1].text, "abc");
  CHECK_EQ(f.answers[1].tokens, to_tokens("abc"));
  CHECK_EQ(f.answers[1].num_outputs, 1);
}

// The fake has a token as likely as there are tokens before it.
TEST(scheduler, a_prompt_that_is_scored_gets_the_log_probability_of_each_token) {
  for (const bool generates : {true, false}) {
    Fixture f;
    const std::string prompt = std::string(100, 'x') + "end";
    f.context->script(prompt, to_tokens("abc"));
    f.context->script("hi", to_tokens(std::string(20, 'y')));
    CHECK(f.submit(2, "hi").ok());
    f.step();
    GenerateRequest request;
    request.prompt = to_tokens(prompt);
    request.num_prompt_logprobs = 0;
    request.stream = false;
    request.prefill_only = !generates;
    CHECK(f.scheduler
              .submit(std::make_unique<Sequence>(1, std::move(request),
                                                 std::make_unique<testing::FakeSampler>(1),
                                                 f.outputs, PrefixSource{}, 0))
              .ok());
    f.run();
    CHECK_EQ(f.answers[1].text, generates ? "abc" : "");
    CHECK_EQ(f.answers[2].text, std::string(20, 'y'));
    const auto& logprobs = f.answers[1].last.prompt_logprobs;
    REQUIRE(logprobs.size() == prompt.size());
    CHECK(std::isnan(logprobs.front().logprob));
    for (size_t i = 0; i < logprobs.size(); ++i) {
      CHECK_EQ(logprobs[i].token, to_tokens(prompt)[i]);
      if (i > 0) CHECK_EQ(logprobs[i].logprob, static_cast<float>(i));
    }
  }
}

TEST(scheduler, end_of_generation_finishes_with_stop) {
  Fixture f;
  f.context->script("hi", {'a', kEndToken});
  CHECK(f.submit(1, "hi").ok());
  f.run();
  CHECK_EQ(f.finish_reason(1), FinishReason::kStop);
  CHECK_EQ(f.answers[1].last.stop_sequence, "");
  CHECK_EQ(f.answers[1].tokens, to_tokens("a"));
}

TEST(scheduler, max_tokens_finishes_with_length) {
  Fixture f;
  f.context->script("hi", to_tokens("abcdef"));
  CHECK(f.submit(1, "hi", 3).ok());
  CHECK(f.submit(2, "hi", 1).ok());
  f.run();
  CHECK_EQ(f.finish_reason(1), FinishReason::kLength);
  CHECK_EQ(f.answers[1].text, "abc");
  CHECK_EQ(f.answers[1].last.num_generated_tokens, 3);
  CHECK_EQ(f.finish_reason(2), FinishReason::kLength);
  CHECK_EQ(f.answers[2].text, "a");
}

TEST(scheduler, requests_share_a_batch_and_do_not_mix) {
  Fixture f;
  for (const char* name : {"1", "2", "3", "4"}) {
    const std::string n = name;
    f.context->script("prompt " + n, to_tokens("answer " + n + " and more"));
    CHECK(f.submit(std::stoull(n), "prompt " + n).ok());
    f.step();  // each arrives while the others decode
  }
  CHECK_EQ(f.scheduler.stats().num_running, 4);
  f.step();
  CHECK_EQ(f.context->batches().back().size(), 4);
  f.run();
  for (const char* name : {"1", "2", "3", "4"}) {
    CHECK_EQ(f.answers[std::stoull(name)].text, "answer " + std::string(name) + " and more");
  }
}

TEST(scheduler, stop_string_over_several_tokens_is_cut) {
  Fixture f;
  f.context->script("hi", to_tokens("text END rest"));
  CHECK(f.submit(1, "hi", 100, {"END"}).ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "text ");
  CHECK_EQ(f.finish_reason(1), FinishReason::kStop);
  CHECK_EQ(f.answers[1].last.stop_sequence, "END");
  CHECK_EQ(f.answers[1].last.num_generated_tokens, 8);
}

TEST(scheduler, beginning_of_a_stop_string_comes_out_when_the_answer_ends) {
  Fixture f;
  f.context->script("hi", to_tokens("xEN"));
  CHECK(f.submit(1, "hi", 100, {"END"}).ok());
  CHECK(f.submit(2, "hi", 2, {"END"}).ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "xEN");
  CHECK_EQ(f.answers[1].last.stop_sequence, "");
  CHECK_EQ(f.answers[2].text, "xE");
}

TEST(scheduler, stop_strings_of_the_chat_hold_too) {
  Fixture f;
  f.context->script("hi", {'a', kControlToken, 'b', 'c', '<', 'e', '>', 'd'});
  const auto chat = std::make_shared<FakeChatPrompt>(std::vector<std::string>{"<e>"});
  CHECK(f.submit(1, "hi", 100, {}, chat).ok());
  CHECK(f.submit(2, "hi", 100, {"bc"}, chat).ok());
  CHECK(f.submit(3, "hi").ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "a<c>bc");  // the chat's reader needs the control token
  CHECK_EQ(f.answers[2].text, "a<c>");
  CHECK_EQ(f.answers[3].text, "abc<e>d");
}

TEST(scheduler, utf8_over_several_tokens_is_held_back_until_complete) {
  Fixture f;
  f.context->script("hi", to_tokens("\xE2\x82\xAC!\xF0\x9F"));
  CHECK(f.submit(1, "hi").ok());
  f.step();
  f.step();
  CHECK_EQ(f.answers[1].num_outputs, 0);
  f.step();
  CHECK_EQ(f.answers[1].text, "\xE2\x82\xAC");
  CHECK_EQ(f.answers[1].last.tokens.size(), 3);
  f.run();
  CHECK_EQ(f.answers[1].text, "\xE2\x82\xAC!\xEF\xBF\xBD");
}

TEST(scheduler, a_character_cut_off_at_the_end_comes_behind_what_a_stop_string_held_back) {
  Fixture f;
  f.context->script("hi", to_tokens("see <|\xE2\x82"));
  const auto chat = std::make_shared<FakeChatPrompt>(std::vector<std::string>{"<|end|>"});
  CHECK(f.submit(1, "hi", 8, {}, chat).ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "see <|\xEF\xBF\xBD");
}

TEST(scheduler, each_token_says_where_its_text_ends_in_the_answer) {
  Fixture f;
  f.context->script("hi", to_tokens("a\xE2\x82\xAC!END?"));
  auto sequence = make_sequence(1, "hi", 100, f.outputs, {"END"});
  CHECK(f.scheduler.submit(std::move(sequence)).ok());
  std::vector<size_t> ends;
  while (f.scheduler.has_work()) {
    f.scheduler.step({});
    for (const RequestOutput& output : f.outputs->drain()) {
      CHECK_EQ(output.token_ends.size(), output.tokens.size());
      ends.insert(ends.end(), output.token_ends.begin(), output.token_ends.end());
    }
  }
  CHECK_EQ(ends, std::vector<size_t>({1, 1, 1, 4, 5, 6, 7, 8}));
}

TEST(scheduler, long_prompt_is_computed_in_batches_and_answered_the_same) {
  Fixture f(fake_info(4096), 64, 300);
  const std::string prompt(1000, 'p');
  f.context->script(prompt, to_tokens("ok"));
  CHECK(f.submit(1, prompt).ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "ok");
  std::vector<size_t> sizes;
  for (const auto& batch : f.context->batches()) sizes.push_back(batch.size());
  CHECK_EQ(sizes, (std::vector<size_t>{64, 192, 256, 256, 232, 1, 1}));
}

TEST(scheduler, running_stream_gets_a_token_each_step_of_a_long_prefill) {
  Fixture f;
  const std::string prompt(2000, 'p');
  f.context->script(prompt, to_tokens("ok"));
  f.context->script("hi", to_tokens(std::string(60, 's')));
  CHECK(f.submit(1, "hi").ok());
  f.step();
  CHECK(f.submit(2, prompt).ok());
  size_t num_steps = 1;
  while (f.answers[2].tokens.empty()) {
    REQUIRE(num_steps < 50);
    f.step();
    CHECK_EQ(f.answers[1].tokens.size(), ++num_steps);
    CHECK(f.context->batches().back().size() <= 513);
  }
  CHECK(num_steps > 3);
  f.run();
  CHECK_EQ(f.answers[2].text, "ok");
}

TEST(scheduler, chunks_grow_again_after_a_slow_moment) {
  using namespace std::chrono_literals;
  Fixture f(fake_info(/*kv_cells=*/8192));
  const auto num_steps = [&f](uint64_t id) {
    const uint64_t before = f.scheduler.stats().num_steps;
    const std::string prompt(3000, static_cast<char>('a' + id));
    f.context->script(prompt, to_tokens("x"));
    CHECK(f.submit(id, prompt).ok());
    f.run();
    return f.scheduler.stats().num_steps - before;
  };
  f.context->slow_next_decode(700ms);
  num_steps(1);
  CHECK(num_steps(2) < 10);
}

TEST(scheduler, a_prompt_alone_gives_way_to_what_comes_and_is_computed_all_the_same) {
  Fixture f(fake_info(/*kv_cells=*/8192));
  const std::string prompt(700, 'p');
  f.context->script(prompt, to_tokens("long"));
  f.context->script("q", to_tokens("short"));
  CHECK(f.submit(1, prompt).ok());
  std::atomic<bool> is_wanted = false;
  f.context->on_decode = [&] {
    if (is_wanted.exchange(true)) return;
    CHECK(f.submit(2, "q").ok());
  };
  f.scheduler.step({.is_wanted = &is_wanted});
  CHECK_EQ(f.scheduler.stats().num_stopped_steps, 1);
  CHECK_EQ(f.context->num_cells(), 0);
  f.run();
  CHECK_EQ(f.answers[1].text, "long");
  CHECK_EQ(f.answers[2].text, "short");
}

TEST(scheduler, however_often_something_comes_a_prompt_is_computed) {
  using namespace std::chrono_literals;
  Fixture f(fake_info(/*kv_cells=*/8192), 64, /*batch_tokens=*/32);
  const std::string prompt(700, 'p');
  f.context->script(prompt, to_tokens("long"));
  CHECK(f.submit(1, prompt).ok());
  std::atomic<bool> is_wanted = true;
  bool is_first = true;
  f.context->on_decode = [&] {
    // The steps after it do not take ten times as long together.
    if (std::exchange(is_first, false)) std::this_thread::sleep_for(50ms);
  };
  while (f.scheduler.has_work()) f.scheduler.step({.is_wanted = &is_wanted});
  f.collect();
  CHECK_EQ(f.answers[1].text, "long");
  CHECK_EQ(f.scheduler.stats().num_stopped_steps, 1);
}

TEST(scheduler, what_cannot_stop_or_is_shared_goes_on) {
  std::atomic<bool> is_wanted = true;
  const auto num_stopped = [&](Fixture& f, bool others_wait) {
    f.context->script("prompt", to_tokens("answer"));
    CHECK(f.submit(1, "prompt").ok());
    while (f.scheduler.has_work()) {
      f.scheduler.step({.others_wait = others_wait, .is_wanted = &is_wanted});
    }
    f.collect();
    CHECK_EQ(f.answers[1].text, "answer");
    return f.scheduler.stats().num_stopped_steps;
  };
  Fixture beside_others;
  CHECK_EQ(num_stopped(beside_others, /*others_wait=*/true), 0);
  ModelInfo info = fake_info();
  info.can_stop = false;
  Fixture on_a_gpu(info);
  CHECK_EQ(num_stopped(on_a_gpu, /*others_wait=*/false), 0);
}

TEST(scheduler, guesses_change_nothing_but_the_number_of_steps) {
  // What is quoted from the prompt is guessed, what goes another way is not.
  const std::string prompt = "the quick brown fox jumps over the lazy dog; the ";
  const std::string text = "the quick brown fox jumps over the hazy fog and the quick brown cat";
  uint64_t plain_steps = 0;
  for (const int32_t max_draft_tokens : {0, 1, 4, 15}) {
    for (const int32_t max_tokens : {1, 7, 20, 200}) {
      Fixture f;
      f.context->script(prompt, to_tokens(text));
      CHECK(f.scheduler
                .submit(testing::make_sequence(1, prompt, max_tokens, f.outputs, {}, nullptr,
                                               max_draft_tokens))
                .ok());
      f.run();
      CHECK_EQ(f.answers[1].text, text.substr(0, static_cast<size_t>(max_tokens)));
      CHECK_EQ(f.answers[1].last.num_generated_tokens,
               std::min<int32_t>(max_tokens, static_cast<int32_t>(text.size()) + 1));
      const ModelStats stats = f.scheduler.stats();
      if (max_draft_tokens == 0) CHECK_EQ(stats.num_draft_tokens, 0);
      CHECK(stats.num_accepted_draft_tokens <= stats.num_draft_tokens);
      if (max_tokens != 200) continue;
      if (max_draft_tokens == 0) plain_steps = stats.num_steps;
      if (max_draft_tokens == 15) {
        CHECK(stats.num_steps * 2 < plain_steps);
        CHECK(stats.num_accepted_draft_tokens > 30);
      }
    }
  }
}

TEST(scheduler, a_stop_within_a_guess_ends_the_answer_there) {
  const std::string prompt = "one two three four five six; one two ";
  Fixture f;
  f.context->script(prompt, to_tokens("three four five six"));
  CHECK(f.scheduler
            .submit(testing::make_sequence(1, prompt, 100, f.outputs, {" five"}, nullptr, 15))
            .ok());
  f.run();
  CHECK_EQ(f.answers[1].text, "three four");
  CHECK_EQ(f.answers[1].last.stop_sequence, " five");
}

TEST(scheduler, many_streams_guess_nothing) {
  Fixture f;
  // From here on the speed is known, and the prompts fit into one step.
  const std::string first(80, 'p');
  f.context->script(first, to_tokens("ok"));
  CHECK(f.submit(100, first, 1).ok());
  f.run();
  const std::string prompt = "the quick brown fox jumps; the quick ";
  f.context->script(prompt, to_tokens("brown fox jumps; the quick brown fox jumps"));
  for (uint64_t id = 1; id <= 6; ++id) {
    CHECK(f.scheduler
              .submit(testing::make_sequence(id, prompt, 100, f.outputs, {}, nullptr, 8))
              .ok());
  }
  f.run();
  for (uint64_t id = 1; id <= 6; ++id) {
    CHECK_EQ(f.answers[id].text, "brown fox jumps; the quick brown fox jumps");
  }
  CHECK_EQ(f.scheduler.stats().num_draft_tokens, 0);
}

}  // namespace
}  // namespace snapllm
