#include "scheduler/scheduler.h"

#include "check.h"
#include "fake_backend.h"

namespace snapllm {
namespace {

using testing::FakeChatPrompt;
using testing::fake_info;
using testing::FakeTextContext;
using testing::FakeTextModel;
using testing::kControlToken;
using testing::kEndToken;
using testing::make_sequence;
using testing::to_tokens;

// All that a request was answered so far.
struct Answer {
  std::string text;
  std::vector<Token> tokens;
  int num_outputs = 0;
  RequestOutput last;
};

// A scheduler over the fake, stepped by hand.
struct Fixture {
  explicit Fixture(ModelInfo info = fake_info(), int32_t max_queued = 64,
                   int32_t batch_tokens = 2048)
      : model(std::make_shared<FakeTextModel>(std::move(info), batch_tokens,
                                              std::min(batch_tokens, 512))),
        context(new FakeTextContext(model)),
        scheduler({model, std::unique_ptr<TextContext>(context)}, max_queued) {}

  Status submit(uint64_t id, const std::string& prompt, int32_t max_tokens = 100,
                std::vector<std::string> stop = {},
                std::shared_ptr<const ChatPrompt> chat = nullptr) {
    return scheduler.submit(make_sequence(id, prompt, max_tokens, outputs, std::move(stop), chat));
  }

  void collect() {
    for (RequestOutput& output : outputs->drain()) {
      Answer& answer = answers[output.request_id];
      CHECK(!answer.last.finished());
      answer.text += output.text;
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      ++answer.num_outputs;
      answer.last = std::move(output);
    }
  }

  void step() {
    scheduler.step();
    collect();
    const int32_t reserved = scheduler.stats().num_kv_cells_used;
    CHECK(reserved <= model->info().kv_cells);
    CHECK(context->num_cells() <= static_cast<size_t>(reserved));
  }

  void run() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 10'000);
      step();
    }
    CHECK_EQ(context->num_cells(), 0);
    CHECK_EQ(scheduler.stats().num_kv_cells_used, 0);
  }

  FinishReason finish_reason(uint64_t id) { return answers[id].last.finish_reason; }

  const std::shared_ptr<OutputQueue> outputs = std::make_shared<OutputQueue>();
  const std::shared_ptr<FakeTextModel> model;
  FakeTextContext* const context;  // owned by the scheduler
  Scheduler scheduler;
  std::map<uint64_t, Answer> answers;
};

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

TEST(scheduler, each_token_says_where_its_text_ends_in_the_answer) {
  Fixture f;
  f.context->script("hi", to_tokens("a\xE2\x82\xAC!END?"));
  auto sequence = make_sequence(1, "hi", 100, f.outputs, {"END"});
  CHECK(f.scheduler.submit(std::move(sequence)).ok());
  std::vector<size_t> ends;
  while (f.scheduler.has_work()) {
    f.scheduler.step();
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
  CHECK_EQ(sizes, (std::vector<size_t>{256, 256, 256, 232, 1, 1}));
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

TEST(scheduler, cancelled_in_the_queue_is_never_computed) {
  Fixture f(fake_info(4096, 1));
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  CHECK(f.submit(2, "no script").ok());
  f.step();
  CHECK_EQ(f.scheduler.stats().num_waiting, 1);
  CHECK(f.scheduler.cancel(2));
  CHECK(f.scheduler.cancel(2));  // a second time does no harm
  f.step();
  CHECK_EQ(f.finish_reason(2), FinishReason::kCancelled);
  CHECK_EQ(f.scheduler.stats().num_waiting, 0);
  CHECK(!f.scheduler.cancel(2));
  f.run();
  CHECK_EQ(f.answers[1].text, "abc");
}

TEST(scheduler, cancelled_before_its_first_step_ends_in_that_step) {
  Fixture f;
  CHECK(f.submit(1, "no script").ok());
  CHECK(f.scheduler.cancel(1));
  f.step();
  CHECK_EQ(f.finish_reason(1), FinishReason::kCancelled);
  CHECK(!f.scheduler.has_work());
  CHECK(f.context->batches().empty());
}

TEST(scheduler, cancelled_in_prefill_ends_in_one_step_and_frees_its_sequence) {
  Fixture f(fake_info(4096), 64, 64);
  CHECK(f.submit(1, std::string(1000, 'p')).ok());
  f.step();
  CHECK_EQ(f.context->num_cells(), 64);
  CHECK(f.scheduler.cancel(1));
  f.step();
  CHECK_EQ(f.finish_reason(1), FinishReason::kCancelled);
  CHECK_EQ(f.context->batches().size(), 1);
  CHECK_EQ(f.context->cleared().size(), 1);
  CHECK_EQ(f.context->num_cells(), 0);
  CHECK_EQ(f.scheduler.stats().num_kv_cells_used, 0);
}

TEST(scheduler, cancelled_in_decode_ends_in_one_step_and_others_go_on) {
  Fixture f;
  f.context->script("a", to_tokens(std::string(50, 'a')));
  f.context->script("b", to_tokens(std::string(50, 'b')));
  CHECK(f.submit(1, "a").ok());
  CHECK(f.submit(2, "b").ok());
  for (int i = 0; i < 3; ++i) f.step();
  CHECK(f.scheduler.cancel(1));
  f.step();
  CHECK_EQ(f.finish_reason(1), FinishReason::kCancelled);
  CHECK_EQ(f.answers[1].text, "aaa");
  CHECK_EQ(f.context->cleared().size(), 1);
  CHECK_EQ(f.scheduler.stats().num_running, 1);
  CHECK(!f.scheduler.cancel(1));
  f.run();
  CHECK_EQ(f.answers[2].text, std::string(50, 'b'));
}

TEST(scheduler, failing_decode_ends_its_requests_with_the_error_and_no_others) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  CHECK(f.submit(2, "hi").ok());
  f.step();
  f.context->fail_next_decode({StatusCode::kGenerationFailed, "broken"});
  f.step();
  for (const uint64_t id : {1, 2}) {
    CHECK_EQ(f.finish_reason(id), FinishReason::kError);
    CHECK_EQ(f.answers[id].last.error.code(), StatusCode::kGenerationFailed);
    CHECK_EQ(f.answers[id].last.error.message(), "broken");
    CHECK_EQ(f.answers[id].text, "a");
  }
  CHECK_EQ(f.context->num_cells(), 0);
  CHECK(f.submit(3, "hi").ok());
  f.run();
  CHECK_EQ(f.answers[3].text, "abc");
  CHECK_EQ(f.scheduler.stats().num_failed, 2);
}

TEST(scheduler, failing_sample_ends_only_its_own_request) {
  Fixture f;
  f.context->script("good", to_tokens("abc"));
  f.context->fail_samples_of("bad");
  CHECK(f.submit(1, "bad").ok());
  CHECK(f.submit(2, "good").ok());
  f.run();
  CHECK_EQ(f.finish_reason(1), FinishReason::kError);
  CHECK(!f.answers[1].last.error.ok());
  CHECK_EQ(f.answers[2].text, "abc");
  CHECK_EQ(f.finish_reason(2), FinishReason::kStop);
}

TEST(scheduler, full_kv_memory_is_an_error_and_not_a_stall) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  f.context->fill_next_decode();
  f.step();
  CHECK_EQ(f.finish_reason(1), FinishReason::kError);
  CHECK(f.submit(2, "hi").ok());
  f.run();
  CHECK_EQ(f.answers[2].text, "abc");
}

TEST(scheduler, reserved_cells_never_exceed_the_context) {
  Fixture f(fake_info(100, 8));
  size_t most_running = 0;
  for (uint64_t id = 0; id < 40; ++id) {
    const std::string prompt(1 + id * 7 % 50, static_cast<char>('A' + id));
    f.context->script(prompt, to_tokens(std::string(30, 'x')));
    CHECK(f.submit(id, prompt, static_cast<int32_t>(1 + id * 13 % 50)).ok());
  }
  while (f.scheduler.has_work()) {
    f.step();  // checks the bound
    most_running = std::max(most_running, static_cast<size_t>(f.scheduler.stats().num_running));
  }
  CHECK(most_running > 1);
  for (uint64_t id = 0; id < 40; ++id) {
    CHECK_EQ(f.answers[id].text, std::string(std::min<uint64_t>(30, 1 + id * 13 % 50), 'x'));
  }
}

TEST(scheduler, small_request_does_not_overtake_one_that_waits_for_room) {
  Fixture f(fake_info(100));
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi", 50).ok());
  CHECK(f.submit(2, "hi", 60).ok());
  CHECK(f.submit(3, "hi", 3).ok());
  f.step();
  CHECK_EQ(f.scheduler.stats().num_running, 1);
  CHECK_EQ(f.scheduler.stats().num_waiting, 2);
  while (f.finish_reason(1) == FinishReason::kNone) f.step();
  f.step();
  CHECK_EQ(f.scheduler.stats().num_running, 2);
  f.run();
  CHECK_EQ(f.answers[3].text, "abc");
}

TEST(scheduler, full_queue_refuses_and_answers_what_it_took) {
  Fixture f(fake_info(4096, 1), /*max_queued=*/2);
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  CHECK(f.submit(2, "hi").ok());
  CHECK_EQ(f.submit(3, "hi").code(), StatusCode::kQueueFull);
  f.step();  // the first one runs now
  CHECK(f.submit(4, "hi").ok());
  CHECK_EQ(f.submit(5, "hi").code(), StatusCode::kQueueFull);
  f.run();
  for (const uint64_t id : {1, 2, 4}) CHECK_EQ(f.answers[id].text, "abc");
  CHECK_EQ(f.answers.size(), 3);
  CHECK_EQ(f.scheduler.stats().num_requests, 3);
}

TEST(scheduler, closed_refuses_new_requests_and_finishes_old_ones) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  f.scheduler.close();
  CHECK_EQ(f.submit(2, "hi").code(), StatusCode::kClosed);
  f.run();
  CHECK_EQ(f.answers[1].text, "abc");
  f.scheduler.wait_idle(testing::far_deadline());
}

TEST(scheduler, abort_answers_every_request_wherever_it_is) {
  for (const Status& status : {Status(), Status(StatusCode::kClosed, "unloaded")}) {
    Fixture f(fake_info(4096, 1));
    f.context->script("hi", to_tokens("abc"));
    CHECK(f.submit(1, "hi").ok());
    CHECK(f.submit(2, "hi").ok());
    f.step();
    CHECK(f.submit(3, "hi").ok());
    f.scheduler.abort_all(status);
    f.collect();
    for (const uint64_t id : {1, 2, 3}) {
      CHECK_EQ(f.finish_reason(id), status.ok() ? FinishReason::kCancelled : FinishReason::kError);
      CHECK_EQ(f.answers[id].last.error.code(), status.code());
    }
    CHECK(!f.scheduler.has_work());
    CHECK_EQ(f.context->num_cells(), 0);
    f.scheduler.wait_idle(testing::far_deadline());
  }
}

TEST(scheduler, stats_count_what_happened) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi", 2).ok());
  CHECK(f.submit(2, "hi").ok());
  f.step();
  CHECK(f.scheduler.cancel(2));
  f.run();
  const ModelStats stats = f.scheduler.stats();
  CHECK_EQ(stats.id, "fake");
  CHECK_EQ(stats.num_requests, 2);
  CHECK_EQ(stats.num_finished, 2);
  CHECK_EQ(stats.num_cancelled, 1);
  CHECK_EQ(stats.num_failed, 0);
  CHECK_EQ(stats.num_prompt_tokens, 4);
  CHECK_EQ(stats.num_generated_tokens, 3);
  CHECK_EQ(stats.num_steps, 2);
  CHECK_EQ(stats.num_running, 0);
  CHECK_EQ(stats.num_waiting, 0);
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
