// Prefixes that stay in the KV memory: lent to the request that goes on from them, pinned, demoted,
// and stored when nothing computes.
#include "scheduler/hot_pool.h"

#include "check.h"
#include "prefix_fixture.h"

namespace snapllm {
namespace {

using testing::info_with_hot;
using testing::kHead;
using testing::to_tokens;
using testing::Tokens;
using Fixture = testing::PrefixFixture;

TEST(hot_tier, a_pinned_prefix_stays_whatever_runs) {
  ModelInfo info = info_with_hot(4);
  info.max_foreign_tokens = 0;
  Fixture f(info);
  f.submit(1, kHead, "first");
  f.run();
  REQUIRE(f.promote(kHead).ok());
  f.submit(2, std::string(300, 'o') + "other", "second");
  f.run();
  f.submit(3, kHead + "two", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 300);
}

// A pinned prefix that requests go on from.
struct LendingFixture : Fixture {
  explicit LendingFixture(ModelInfo info = info_with_hot(4)) : Fixture(std::move(info)) {
    submit(1, kHead, "first");
    run();
    scheduler.demote({}, to_tokens(kHead), {});
    REQUIRE(promote(kHead).ok());
  }

  // Nothing is left under any id once the prefix goes with all that begins like it.
  void check_end() {
    run();
    CHECK(is_hot(kHead));
    scheduler.demote({}, to_tokens(kHead.substr(0, 1)), {});
    CHECK_EQ(context->num_cells(), 0);
    CHECK_EQ(scheduler.stats().num_hot_tokens, 0);
  }
};

TEST(hot_tier, a_prefix_is_lent_to_one_request_and_forked_by_others) {
  LendingFixture f;
  f.submit(2, kHead + "two", "second");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens(), 0);
  f.submit(3, kHead + "other", "third");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens(), 300);
  f.run();
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 300);
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 300);
  CHECK(f.is_hot(kHead + "twosecon"));
  f.submit(4, kHead + "more", "fourth");  // it was given back
  f.scheduler.step({});
  // The second request's answer has stayed, under another id.
  CHECK_EQ(f.context->num_forked_tokens(), 300 + 309);
  f.check_end();
}

TEST(hot_tier, what_a_request_shares_with_an_earlier_one_is_added_to_what_is_lent) {
  LendingFixture f;
  f.submit(2, kHead + "question one", "second");
  f.run();
  const int num_before = f.context->num_forked_tokens();
  f.submit(3, kHead + "question two", "third");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens() - num_before, 9);
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 309);
  f.check_end();
}

TEST(hot_tier, what_is_hot_already_is_pinned_in_its_cells) {
  Fixture f(info_with_hot(4));
  f.submit(1, kHead + "question one", "first");
  f.run();
  REQUIRE(f.promote(kHead).ok());
  CHECK_EQ(f.context->num_restores(), 0);
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 317);
  CHECK_EQ(f.context->num_cells(), 317);
  // What was there goes on from it now, and so may be lent.
  const int num_before = f.context->num_forked_tokens();
  f.submit(2, kHead + "question two", "second");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens() - num_before, 9);
  f.run();
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 309);
  f.scheduler.demote({}, to_tokens(kHead + "question one"), {});
  CHECK(f.is_hot(kHead + "question two"));
  f.scheduler.demote({}, to_tokens(kHead), {});
  CHECK_EQ(f.context->num_cells(), 0);
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 0);
}

TEST(hot_tier, what_others_were_forked_off_is_pinned_in_its_cells) {
  Fixture f(info_with_hot(6));
  f.submit(1, kHead + "question one", "first");
  f.run();
  f.submit(2, kHead + "question two", "second");  // shares 309 of it
  f.run();
  f.scheduler.demote({}, to_tokens(kHead + "question one"), {});
  REQUIRE(f.promote(kHead).ok());
  REQUIRE(f.promote(kHead.substr(0, 200)).ok());
  CHECK_EQ(f.context->num_restores(), 0);
  CHECK_EQ(f.context->num_cells(), 318);
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 318);
  const int num_before = f.context->num_forked_tokens();
  f.submit(3, kHead + "other", "third");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens(), num_before);
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 300);
  f.scheduler.demote({}, to_tokens(kHead.substr(0, 200)), {});
  CHECK_EQ(f.context->num_cells(), 0);
}

TEST(hot_tier, a_beginning_is_pinned_though_there_is_no_slot_left) {
  Fixture f(info_with_hot(2));
  f.submit(1, std::string(100, 'p'), "other");
  f.run();
  f.submit(2, kHead + "question one", "first");
  f.run();
  REQUIRE(f.promote(kHead).ok());  // in the other's slot
  CHECK_EQ(f.context->num_cells(), 317);
}

TEST(hot_tier, a_pinned_document_stays_when_its_beginning_is_pinned_too) {
  Fixture f(info_with_hot(4));
  const std::string document(600, 'd');
  f.submit(1, document + "question", "first");
  f.run();
  REQUIRE(f.promote(document).ok());
  REQUIRE(f.promote(document.substr(0, 500)).ok());
  CHECK(f.is_hot(document));
  f.submit(2, std::string(500, 'o') + "question", "second");
  f.run();
  // More than may be pinned: it takes the place of what was.
  REQUIRE(f.promote(std::string(500, 'o')).ok());
  CHECK(!f.is_hot(document));
}

TEST(hot_tier, a_question_needs_no_more_of_an_earlier_one_than_the_document) {
  ModelInfo info = info_with_hot(8);
  info.max_foreign_tokens = 64;
  Fixture f(info);
  f.submit(1, kHead + std::string(400, 'q'), "first");
  f.run();
  REQUIRE(f.promote(kHead).ok());
  for (uint64_t id = 2; id <= 4; ++id) {
    f.submit(id, kHead + std::to_string(id), "answer");
    f.run();
  }
  CHECK(!f.is_hot(kHead + "q"));
}

TEST(hot_tier, a_document_that_is_demoted_while_it_is_used_is_not_pinned_afterwards) {
  ModelInfo info = info_with_hot(4);
  info.max_foreign_tokens = 0;
  LendingFixture f(info);
  f.submit(2, kHead + "two", "second");
  f.scheduler.step({});
  f.scheduler.demote({}, to_tokens(kHead), {});
  f.run();
  f.submit(3, std::string(300, 'o'), "third");
  f.run();
  CHECK(!f.is_hot(kHead));
}

TEST(hot_tier, a_prefix_that_is_lent_already_does_not_hide_a_shorter_one) {
  LendingFixture f;
  f.submit(2, kHead + "question", "second");
  f.run();
  REQUIRE(f.is_hot(kHead + "questionsecond"));
  f.submit(3, kHead + "questionsecond: one", "third");
  f.scheduler.step({});
  const int num_before = f.context->num_forked_tokens();
  f.submit(4, kHead + "questionsecond, two", "fourth");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens() - num_before, 14);
  f.check_end();
}

TEST(hot_tier, a_short_beginning_is_not_lent) {
  LendingFixture f;
  const std::string more(310, 'm');
  f.submit(2, kHead + more + "one", "second");
  f.run();
  const int num_before = f.context->num_forked_tokens();
  f.submit(3, kHead + more + "two", "third");
  f.scheduler.step({});
  CHECK_EQ(f.context->num_forked_tokens() - num_before, 610);
  f.check_end();
}

TEST(hot_tier, a_request_that_is_cancelled_leaves_a_lent_prefix_as_it_was) {
  LendingFixture f;
  for (const int num_steps : {1, 2, 3}) {
    f.submit(2, kHead + "two", "second", 50);
    for (int i = 0; i < num_steps; ++i) f.scheduler.step({});
    CHECK(f.scheduler.cancel(2));
    f.expected.clear();
    f.run();
    CHECK(f.is_hot(kHead));
    f.scheduler.demote({}, to_tokens(kHead + "two"), {});
    f.submit(3, kHead + std::to_string(num_steps), "third");
    f.run();
    CHECK_EQ(f.last[3].cache.num_hot_tokens, 300);
    f.texts.clear();
  }
  f.expected.clear();
  f.check_end();
}

TEST(hot_tier, a_lent_prefix_cannot_be_demoted_and_stays_whole) {
  LendingFixture f;
  f.submit(2, kHead + "two", "second");
  f.scheduler.step({});
  f.scheduler.demote({}, to_tokens(kHead), {});
  f.check_end();
}

TEST(hot_tier, what_a_request_with_a_lent_prefix_computes_is_shared_while_it_runs) {
  LendingFixture f;
  const std::string more = kHead + std::string(100, 'm');
  f.submit(2, more + "two", "second");
  f.scheduler.step({});
  f.submit(3, more + "other", "third");
  f.scheduler.step({});
  f.submit(4, kHead + "new", "fourth");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 400);
  CHECK_EQ(f.last[4].cache.num_hot_tokens, 300);
  f.check_end();
}

TEST(hot_tier, a_preempted_request_gives_a_lent_prefix_back) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = 1024;
  LendingFixture f(info);
  const auto long_answer = [](char first) {
    std::string text;
    for (int i = 0; i < 350; ++i) text += static_cast<char>(first + i % 7);
    return text;
  };
  f.submit(2, kHead + "two", long_answer('a'), 400);
  f.submit(3, kHead + "other", long_answer('k'), 400);
  f.run();
  CHECK(f.scheduler.stats().num_preemptions > 0);
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 300);
  f.check_end();
}

TEST(hot_tier, what_another_shares_only_in_part_is_not_lent_in_its_place) {
  ModelInfo info = info_with_hot(6);
  LendingFixture f(info);
  const std::string common = kHead + std::string(100, 'c');
  f.submit(2, common + "one", "a");
  f.run();
  f.submit(3, common + "two", "b");  // goes on from a part of it
  f.run();
  f.submit(4, common + "twob and more", "first of two");
  f.scheduler.step({});
  f.submit(5, common + "twobelse", "second of two");  // its base is lent, and has "one"
  f.run();
  CHECK_EQ(f.last[5].cache.num_hot_tokens, 404);
  f.check_end();
}

TEST(hot_tier, a_request_that_fails_gives_a_lent_prefix_back) {
  LendingFixture f;
  f.submit(2, kHead + "two", "second");
  f.scheduler.step({});
  f.context->fail_next_decode({StatusCode::kGenerationFailed, "told to fail"});
  f.expected.clear();
  f.run();
  CHECK(f.last[2].finish_reason == FinishReason::kError);
  f.submit(3, kHead + "other", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 300);
  f.check_end();
}

TEST(hot_tier, the_end_of_a_model_takes_back_what_is_lent) {
  LendingFixture f(info_with_hot(4));
  f.submit(2, kHead + "two", "second");
  f.scheduler.step({});
  f.expected.clear();
  f.scheduler.abort_all({StatusCode::kClosed, "the model is unloaded"});
  f.check_end();
}

TEST(hot_tier, a_promoted_prefix_is_hot_until_it_is_demoted) {
  Fixture f(info_with_hot(2));
  f.submit(1, kHead, "first");
  f.run();
  const Tokens head = to_tokens(kHead);
  const Hash128 root;
  f.scheduler.demote(root, head, {});
  CHECK(!f.scheduler.is_hot(root, head));
  const StoreScope scope{f.model->fingerprint(), root, KvKind::kBlocks};
  const auto stored = f.store->match(scope, head, 300, Reading::kAll);
  REQUIRE(stored.num_tokens == 300);
  CHECK(f.scheduler.promote(root, head, stored).ok());
  CHECK(f.scheduler.is_hot(root, head));
  f.submit(2, kHead + "two", "second");
  f.run();
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 300);
  CHECK(f.scheduler.is_hot(root, head));
  f.scheduler.demote(root, head, {});
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 0);
  CHECK_EQ(f.context->num_cells(), 0);
}

TEST(hot_tier, a_promotion_that_fails_half_way_leaves_nothing_to_the_next_request) {
  Fixture f(info_with_hot(2));
  f.submit(1, kHead, "first");
  f.run();
  const Tokens head = to_tokens(kHead);
  f.scheduler.demote({}, head, {});
  const StoreScope scope{f.model->fingerprint(), {}, KvKind::kBlocks};
  const auto stored = f.store->match(scope, head, 300, Reading::kAll);
  REQUIRE(stored.parts.size() == 2);
  f.context->fail_restore_after(1);
  CHECK_EQ(f.scheduler.promote({}, head, stored).code(), StatusCode::kStorageFailed);
  CHECK_EQ(f.context->num_cells(), 0);
  f.submit(2, std::string(300, 'o'), "second");
  f.run();
}

TEST(hot_tier, what_is_demoted_leaves_others_what_they_share_with_it) {
  Fixture f(info_with_hot(4));
  const Hash128 root;
  const std::string start(100, 'h');
  const auto hot = [&](const std::string& rest) { return f.scheduler.is_hot(root, to_tokens(start + rest)); };
  f.submit(1, start + "one", "a");
  f.run();
  f.submit(2, start + "two", "b");
  f.run();
  REQUIRE(hot("one"));
  REQUIRE(hot("two"));
  f.scheduler.demote(root, to_tokens(start + "one"), {});
  CHECK(!hot("one"));
  CHECK(hot("two"));
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 104);  // the start, "two" and its answer
  f.submit(3, start + "two and more", "c");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 103);
}

TEST(hot_tier, a_prefix_that_another_needs_whole_stays_hot) {
  Fixture f(info_with_hot(4));
  const Hash128 root;
  const Tokens tokens = to_tokens(kHead);
  f.submit(1, kHead, "first");
  f.run();
  const std::vector<Tokens> others = {tokens};
  f.scheduler.demote(root, tokens, others);
  CHECK(f.scheduler.is_hot(root, tokens));
  f.scheduler.demote(root, tokens, {});
  CHECK(!f.scheduler.is_hot(root, tokens));
}

ModelInfo info_that_saves_when_idle(int32_t num_hot) {
  ModelInfo info = info_with_hot(num_hot);
  info.saves_when_idle = true;
  return info;
}

TEST(hot_tier, what_stays_hot_is_stored_piece_by_piece_when_nothing_computes) {
  Fixture f(info_that_saves_when_idle(4));
  f.submit(1, kHead + "one", "first");
  f.run();
  CHECK_EQ(f.store->stats().num_stored, 0);
  f.submit(2, kHead + "onefirst and more", "second");
  f.run();
  CHECK_EQ(f.last[2].cache.num_hot_tokens, 308);
  CHECK_EQ(f.store->stats().num_stored, 0);
  for (uint64_t num_stored = 1; f.scheduler.has_idle_work(); ++num_stored) {
    f.scheduler.step_idle();
    CHECK_EQ(f.store->stats().num_stored, std::min<uint64_t>(num_stored, 2));  // 256 and the rest
  }
  CHECK_EQ(f.store->stats().num_stored, 2);
  const Tokens tokens = to_tokens(kHead + "onefirst and moresecond");
  f.scheduler.demote({}, tokens, {});
  f.submit(3, kHead + "onefirst and moresecond!", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_warm_tokens, static_cast<int32_t>(tokens.size()));
}

TEST(hot_tier, storing_when_nothing_computes_ends_where_the_store_has_too_little_room) {
  // For no piece, for the first, and for all but the last of three.
  for (const uint64_t ram_bytes : {64u, 1100u, 2200u}) {
    Fixture f(info_that_saves_when_idle(4),
              std::make_shared<KvStore>(
                  KvStoreOptions{ram_bytes, 0, ""},
                  std::make_unique<testing::FakeFileEnv>(std::make_shared<testing::FakeDisk>())));
    f.submit(1, kHead + std::string(400, 'x'), "first");
    f.run();
    int num_steps = 0;
    for (; f.scheduler.has_idle_work() && num_steps < 100; ++num_steps) f.scheduler.step_idle();
    CHECK(num_steps <= 3);
  }
}

TEST(hot_tier, what_has_to_leave_the_kv_memory_is_stored_first) {
  Fixture f(info_that_saves_when_idle(1));
  f.submit(1, kHead, "first");
  f.run();
  f.submit(2, std::string(300, 'o'), "second");
  f.run();
  CHECK_EQ(f.scheduler.stats().num_hot_prefixes, 1);
  f.submit(3, kHead + "first!", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_warm_tokens, 305);
}

TEST(hot_tier, what_is_too_large_to_stay_hot_is_stored_at_once) {
  ModelInfo info = info_that_saves_when_idle(4);
  info.max_hot_tokens = info.max_foreign_tokens = 200;
  Fixture f(info);
  f.submit(1, kHead, "first");
  f.run();
  CHECK(!f.scheduler.has_idle_work());
  CHECK_EQ(f.store->stats().num_stored, 2);
}

TEST(hot_tier, the_end_of_a_model_stores_what_is_hot) {
  Fixture f(info_that_saves_when_idle(4));
  f.submit(1, kHead, "first");
  f.submit(2, std::string(300, 'o'), "second");
  f.run();
  CHECK_EQ(f.store->stats().num_stored, 0);
  f.scheduler.abort_all({StatusCode::kClosed, "the model is unloaded"});
  CHECK(!f.scheduler.has_idle_work());
  CHECK_EQ(f.store->stats().num_stored, 4);
}

TEST(hot_tier, what_is_prefilled_to_be_kept_is_stored_at_once) {
  Fixture f(info_that_saves_when_idle(4));
  GenerateRequest request;
  request.prompt = to_tokens(kHead);
  request.prefill_only = true;
  REQUIRE(f.scheduler
              .submit(std::make_unique<Sequence>(1, std::move(request),
                                                 std::make_unique<testing::FakeSampler>(1),
                                                 f.outputs))
              .ok());
  f.run();
  CHECK(!f.scheduler.has_idle_work());
  CHECK_EQ(f.store->stats().num_stored, 2);
}

TEST(hot_tier, all_cells_may_be_parked_but_those_made_hot_on_purpose_leave_room) {
  ModelInfo info = info_with_hot(4);
  info.max_foreign_tokens = 2048;
  Fixture f(info);
  const std::string document(1500, 'd');
  f.submit(1, document, "first");
  f.run();
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 1505);
  f.scheduler.demote({}, to_tokens(document), {});
  CHECK_EQ(f.promote(document).code(), StatusCode::kOutOfMemory);
  CHECK(f.promote(document.substr(0, 1024)).ok());
}

}  // namespace
}  // namespace snapllm
