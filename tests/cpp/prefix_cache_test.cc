#include "scheduler/prefix_cache.h"

#include "check.h"
#include "prefix_fixture.h"
#include "scheduler/cut_points.h"

namespace snapllm {
namespace {

using testing::info_with_hot;
using testing::kHead;
using testing::to_tokens;
using testing::Tokens;
using Fixture = testing::PrefixFixture;

TEST(prefix_cache, a_finished_prompt_is_gone_on_from_by_the_next) {
  Fixture f(info_with_hot(4));
  f.submit(1, kHead + "one", "first");
  f.run();
  f.submit(2, kHead + "onefirst and more", "second");
  f.run();
  // All but the token that was generated last, which was never computed.
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 300 + 3 + 5);
  CHECK_EQ(f.context->num_forked_tokens(), 0);
  CHECK_EQ(f.scheduler.stats().num_hot_prefixes, 1);
  f.submit(3, kHead + "two", "third");
  f.run();
  CHECK_EQ(f.cached(3), 300);
  CHECK_EQ(f.context->num_forked_tokens(), 300);
}

TEST(prefix_cache, what_a_request_does_not_use_leaves_the_kv_memory_and_comes_back) {
  ModelInfo info = info_with_hot(4);
  info.max_foreign_tokens = 64;
  Fixture f(info);
  f.submit(1, kHead + "one", "first");
  f.run();
  f.submit(2, kHead + "onefirst and more", "second");
  f.run();
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 308);
  f.submit(3, std::string(300, 'o') + "other", "third");
  f.run();
  CHECK_EQ(f.scheduler.stats().num_hot_prefixes, 1);
  f.submit(4, kHead + "onefirst!", "fourth");
  f.run();
  CHECK_EQ(f.last[4].cache.num_warm_tokens, 308);
}

TEST(prefix_cache, without_room_in_the_kv_memory_the_store_restores) {
  Fixture f(info_with_hot(0));
  f.submit(1, kHead + "one", "first");
  f.run();
  f.submit(2, kHead + "onefirst!", "second");
  f.run();
  CHECK_EQ(f.last[2].cache.num_warm_tokens, 308);
  CHECK_EQ(f.context->num_restores(), 2);
}

TEST(prefix_cache, a_part_of_a_block_is_restored_where_there_are_cells_for_all_of_it) {
  for (const bool has_victim : {false, true}) {
    ModelInfo info = info_with_hot(has_victim ? 2 : 0);
    info.kv_cells = info.context_size = 600;
    Fixture f(info);
    f.submit(1, kHead, "first");
    f.run();
    if (has_victim) {
      f.submit(2, std::string(200, 'z'), "second");
      f.run();
    }
    f.submit(3, std::string(has_victim ? 300 : 540, 'o'), "0123456789", 10);
    do {
      f.scheduler.step({});
    } while (f.context->batches().back().size() > 1);  // until it decodes
    f.submit(4, std::string(20, 'h') + "x", "fourth", 10);
    f.run();
    CHECK_EQ(f.cached(4), has_victim ? 20 : 0);
    CHECK_EQ(f.scheduler.stats().num_failed_restores, 0);
  }
}

TEST(prefix_cache, what_ram_had_no_room_for_when_a_request_came_is_read_when_it_starts) {
  const auto disk = std::make_shared<testing::FakeDisk>();
  const auto open = [&] {
    // RAM for the KV of one of the prompts.
    return std::make_shared<KvStore>(KvStoreOptions{310 * sizeof(Token), 1 << 20, "/w"},
                                     std::make_unique<testing::FakeFileEnv>(disk));
  };
  const std::string prompts[] = {kHead + "one", std::string(300, 'o') + "two"};
  for (const std::string& prompt : prompts) {
    Fixture f(info_with_hot(0), open());
    f.submit(1, prompt, "first");
    f.run();
    f.store->flush();
  }
  Fixture f(info_with_hot(0), open());
  f.store->open(f.model->fingerprint());
  const StoreScope scope{f.model->fingerprint(), {}, KvKind::kBlocks};
  for (uint64_t i = 0; i < 2; ++i) {
    const Tokens tokens = to_tokens(prompts[i]);
    PrefixSource source;
    source.prefetched = f.store->match(scope, tokens, 302, Reading::kFitting);
    CHECK_EQ(source.prefetched.num_tokens, i == 0 ? 302 : 0);
    f.submit(i + 1, prompts[i], "first", 50, std::move(source));
  }
  f.run();
  for (const uint64_t id : {1, 2}) CHECK_EQ(f.last[id].cache.num_cold_tokens, 302);
}

TEST(prefix_cache, what_a_failed_restore_lacks_is_computed) {
  for (const int num_restored : {0, 1}) {
    Fixture f(info_with_hot(0));
    f.submit(1, kHead + "one", "first");
    f.run();
    f.context->fail_restore_after(num_restored);
    f.submit(2, kHead + "one", "first");
    f.run();
    CHECK_EQ(f.cached(2), num_restored * kBlockTokens);
    CHECK_EQ(f.scheduler.stats().num_failed_restores, 1);
  }
}

TEST(prefix_cache, requests_that_come_together_compute_their_common_prefix_once) {
  for (const int32_t num_hot : {0, 1, 4}) {
    Fixture f(info_with_hot(num_hot), /*with_store=*/false);
    const std::string head(400, 'x');
    for (uint64_t id = 1; id <= 4; ++id) f.submit(id, head + std::to_string(id), "answer", 20);
    f.run();
    CHECK_EQ(f.cached(1), 0);
    for (uint64_t id = 2; id <= 4; ++id) CHECK_EQ(f.cached(id), 400);
  }
}

TEST(prefix_cache, what_is_restored_whole_waits_for_a_state_that_another_will_keep) {
  for (const bool with_store : {true, false}) {
    Fixture f(info_with_hot(4, "checkpoints"), with_store);
    const std::string head(400, 'x');
    for (uint64_t id = 1; id <= 4; ++id) f.submit(id, head + std::to_string(id), "answer", 20);
    f.run();
    CHECK_EQ(f.cached(1), 0);
    for (uint64_t id = 2; id <= 4; ++id) CHECK_EQ(f.cached(id), with_store ? 400 : 0);
  }
}

TEST(prefix_cache, what_is_restored_whole_does_not_wait_where_no_state_will_be_kept) {
  Fixture f(info_with_hot(4, "checkpoints"));
  const std::string head(400, 'x');
  for (uint64_t id = 1; id <= 4; ++id) {
    f.submit(id, head + std::to_string(id) + "tail", "answer", 20);
  }
  f.scheduler.step({});
  CHECK_EQ(f.scheduler.stats().num_running, 4);
  f.run();
  for (uint64_t id = 1; id <= 4; ++id) CHECK_EQ(f.cached(id), 0);
}

TEST(prefix_cache, hot_prefixes_give_way_to_running_requests) {
  Fixture f(info_with_hot(4));
  for (uint64_t id = 1; id <= 3; ++id) {
    f.submit(id, std::string(300, static_cast<char>('a' + id)), "short");
    f.run();
  }
  CHECK_EQ(f.scheduler.stats().num_hot_prefixes, 3);
  f.submit(9, std::string(1500, 'z'), "large", 500);
  f.run();
  CHECK(f.scheduler.stats().num_hot_prefixes < 3);
}

std::string long_answer(uint64_t id) {
  std::string answer;
  for (int i = 0; i < 900; ++i) answer += static_cast<char>('a' + (i * 7 + i / 50 + id * 3) % 26);
  return answer;
}

TEST(prefix_cache, answers_that_outgrow_the_kv_memory_take_turns) {
  for (const std::string kind : {"blocks", "checkpoints"}) {
    for (const bool with_store : {true, false}) {
      Fixture f(info_with_hot(4, kind), with_store);
      for (uint64_t id = 1; id <= 4; ++id) {
        f.submit(id, std::string(100, static_cast<char>('A' + id)), long_answer(id), 1000);
      }
      f.scheduler.step({});
      CHECK_EQ(f.scheduler.stats().num_running, 4);
      f.run();
      CHECK(f.scheduler.stats().num_preemptions > 0);
      CHECK_EQ(f.scheduler.stats().num_waiting, 0);
      for (uint64_t id = 1; id <= 4; ++id) {
        CHECK_EQ(f.last[id].num_prompt_tokens, 100);
        CHECK_EQ(f.last[id].num_cached_tokens, 0);
        CHECK_EQ(f.last[id].num_generated_tokens, 901);
      }
    }
  }
}

TEST(prefix_cache, a_prompt_preempted_half_way_was_not_cached) {
  Fixture f(info_with_hot(4));
  f.submit(1, std::string(100, 'A'), long_answer(1), 1000);
  for (int i = 0; i < 221; ++i) f.scheduler.step({});
  f.submit(2, std::string(1600, 'B'), "second");
  f.run();
  CHECK_EQ(f.scheduler.stats().num_preemptions, 1);
  CHECK_EQ(f.cached(2), 0);
}

TEST(prefix_cache, a_preempted_request_can_be_cancelled) {
  Fixture f(info_with_hot(4));
  for (uint64_t id = 1; id <= 4; ++id) {
    f.submit(id, std::string(100, static_cast<char>('A' + id)), long_answer(id), 1000);
  }
  while (f.scheduler.stats().num_preemptions == 0) f.scheduler.step({});
  CHECK_EQ(f.scheduler.stats().num_waiting, 1);
  CHECK(f.scheduler.cancel(4));
  f.expected.erase(4);
  f.run();
  CHECK(long_answer(4).starts_with(f.texts[4]));
  CHECK(f.last[4].finish_reason == FinishReason::kCancelled);
  CHECK_EQ(f.scheduler.stats().num_waiting, 0);
}

TEST(prefix_cache, a_hot_prefix_in_the_way_of_what_begins_like_it_goes) {
  Fixture f(info_with_hot(4));
  const std::string document(1000, 'h');
  f.submit(1, document, "first");
  f.run();
  REQUIRE(f.promote(document).ok());
  f.submit(2, kHead + std::string(1200, 'x'), long_answer(2).substr(0, 400), 500);
  f.run();
}

TEST(prefix_cache, checkpoint_models_reuse_whole_states_only) {
  Fixture f(info_with_hot(2, "checkpoints"));
  f.submit(1, kHead, "first");
  f.run();
  const auto length = static_cast<int32_t>(kHead.size());
  f.submit(2, kHead.substr(0, 200) + "other", "second");
  f.run();
  CHECK_EQ(f.cached(2), 0);  // the state went on with the rest of the first prompt
  f.submit(3, kHead + "firstx", "third");
  f.run();
  CHECK_EQ(f.cached(3), length + 5);
  f.submit(4, kHead, "fourth");
  f.run();
  CHECK_EQ(f.cached(4), length - 1);
}

TEST(prefix_cache, a_checkpoint_of_nothing_is_not_kept) {
  Fixture f(info_with_hot(2, "checkpoints"));
  for (uint64_t id = 1; id <= 3; ++id) {
    GenerateRequest request;
    request.prompt = Tokens(300, static_cast<Token>('a' + id));
    request.prefill_only = true;
    REQUIRE(f.scheduler
                .submit(std::make_unique<Sequence>(id, std::move(request),
                                                   std::make_unique<testing::FakeSampler>(1),
                                                   f.outputs))
                .ok());
  }
  // The first two have all of the step.
  f.scheduler.step({});
  CHECK(f.scheduler.cancel(3));
  f.scheduler.step({});
  f.run();
  CHECK_EQ(f.last[3].num_computed_prompt_tokens, 0);
  CHECK_EQ(f.store->stats().num_stored, 2);
}

TEST(prefix_cache, checkpoints_are_cut_at_the_first_and_the_last_two_turns) {
  // 1 opens a turn.
  const Tokens prompt = {1, 5, 5, 5, 1, 5, 5, 5, 1, 5, 5, 5, 1, 5};
  std::vector<bool> is_control;
  for (const Token token : prompt) is_control.push_back(token == 1);
  CHECK_EQ(checkpoint_cuts(prompt, is_control, 0, false, 1), (std::vector<int32_t>{4, 8, 12}));
  CHECK_EQ(checkpoint_cuts(prompt, is_control, 8, false, 1), (std::vector<int32_t>{12}));
  CHECK_EQ(checkpoint_cuts(prompt, is_control, 0, false, 6), (std::vector<int32_t>{8}));
}

TEST(prefix_cache, a_checkpoint_of_a_prompt_without_turns_is_cut_at_its_end) {
  const Tokens prompt = {1, 5, 5, 5};
  for (const bool begins_with_control : {false, true}) {
    std::vector<bool> is_control(prompt.size());
    is_control[0] = begins_with_control;
    CHECK_EQ(checkpoint_cuts(prompt, is_control, 0, false, 1), std::vector<int32_t>{3});
    CHECK_EQ(checkpoint_cuts(prompt, is_control, 3, false, 1), std::vector<int32_t>{});
    CHECK_EQ(checkpoint_cuts(prompt, is_control, 0, true, 1), std::vector<int32_t>{});
  }
}

}  // namespace
}  // namespace snapllm
