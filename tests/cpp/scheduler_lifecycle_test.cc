// How requests end before their time, what they wait for, and what is counted of them.
#include "scheduler_fixture.h"

namespace snapllm {
namespace {

using Fixture = testing::SchedulerFixture;
using testing::fake_info;
using testing::to_tokens;

TEST(scheduler_lifecycle, cancelled_in_the_queue_is_never_computed) {
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

TEST(scheduler_lifecycle, a_request_counts_as_running_from_its_first_step_on) {
  Fixture f;
  f.context->script("a", to_tokens("x"));
  CHECK(f.submit(1, "a").ok());
  CHECK_EQ(f.scheduler.stats().num_waiting, 1);
  f.context->on_decode = [&] {
    CHECK_EQ(f.scheduler.stats().num_running, 1);
    CHECK_EQ(f.scheduler.stats().num_waiting, 0);
  };
  f.run();
  CHECK_EQ(f.scheduler.stats().num_running, 0);
}

TEST(scheduler_lifecycle, cancelled_before_its_first_step_ends_in_that_step) {
  Fixture f;
  CHECK(f.submit(1, "no script").ok());
  CHECK(f.scheduler.cancel(1));
  f.step();
  CHECK_EQ(f.finish_reason(1), FinishReason::kCancelled);
  CHECK(!f.scheduler.has_work());
  CHECK(f.context->batches().empty());
}

TEST(scheduler_lifecycle, cancelled_in_prefill_ends_in_one_step_and_frees_its_sequence) {
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

TEST(scheduler_lifecycle, cancelled_in_decode_ends_in_one_step_and_others_go_on) {
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

TEST(scheduler_lifecycle, failing_decode_ends_its_requests_with_the_error_and_no_others) {
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

TEST(scheduler_lifecycle, failing_sample_ends_only_its_own_request) {
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

TEST(scheduler_lifecycle, full_kv_memory_is_an_error_and_not_a_stall) {
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

TEST(scheduler_lifecycle, reserved_cells_never_exceed_the_context) {
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

TEST(scheduler_lifecycle, what_is_shared_but_counts_for_both_waits_for_room_for_both) {
  // Without a hot prefix that the beginning could be of.
  Fixture f(testing::fake_info(/*kv_cells=*/512));
  const std::string prompt(200, 'p');
  f.context->script(prompt, to_tokens(std::string(80, 'a')));
  REQUIRE(f.submit(1, prompt).ok());
  f.step();
  REQUIRE(f.submit(2, prompt).ok());
  for (int i = 0; i < 10; ++i) f.step();
  CHECK_EQ(f.scheduler.stats().num_waiting, 1);  // 300 cells each
  f.run();
  CHECK_EQ(f.answers[1].text, std::string(80, 'a'));
  CHECK_EQ(f.answers[2].text, f.answers[1].text);
}

TEST(scheduler_lifecycle, small_request_does_not_overtake_one_that_waits_for_room) {
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

TEST(scheduler_lifecycle, full_queue_refuses_and_answers_what_it_took) {
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

TEST(scheduler_lifecycle, closed_refuses_new_requests_and_finishes_old_ones) {
  Fixture f;
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  f.scheduler.close();
  CHECK_EQ(f.submit(2, "hi").code(), StatusCode::kClosed);
  f.run();
  CHECK_EQ(f.answers[1].text, "abc");
  f.scheduler.wait_idle(testing::far_deadline());
}

TEST(scheduler_lifecycle, abort_answers_every_request_wherever_it_is) {
  Fixture f(fake_info(4096, 1));
  f.context->script("hi", to_tokens("abc"));
  CHECK(f.submit(1, "hi").ok());
  CHECK(f.submit(2, "hi").ok());
  f.step();
  CHECK(f.submit(3, "hi").ok());
  f.scheduler.abort_all({StatusCode::kClosed, "unloaded"});
  f.collect();
  for (const uint64_t id : {1, 2, 3}) {
    CHECK_EQ(f.finish_reason(id), FinishReason::kError);
    CHECK_EQ(f.answers[id].last.error.code(), StatusCode::kClosed);
  }
  CHECK(!f.scheduler.has_work());
  CHECK_EQ(f.context->num_cells(), 0);
  f.scheduler.wait_idle(testing::far_deadline());
}

TEST(scheduler_lifecycle, stats_count_what_happened) {
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

}  // namespace
}  // namespace snapllm
