// Prefixes of which others share the beginning: it is forked, what is not hot is restored behind it,
// and the end that nobody shares makes room.
#include "check.h"
#include "prefix_fixture.h"

namespace snapllm {
namespace {

using testing::info_with_hot;
using testing::kHead;
using testing::to_tokens;
using Fixture = testing::PrefixFixture;

const std::string kSystem(600, 's');
const std::string kTurns = kSystem + std::string(300, 't');

// The beginning of a stored conversation is hot, for another one began alike.
struct HalfHotFixture : Fixture {
  explicit HalfHotFixture(ModelInfo info = info_with_hot(4)) : Fixture(std::move(info)) {
    submit(1, kSystem + "other", "first");
    run();
    submit(2, kTurns, "second");
    run();
    scheduler.demote({}, to_tokens(kTurns), {});
    REQUIRE(!is_hot(kTurns));
    REQUIRE(is_hot(kSystem));
  }
};

TEST(shared_prefix, what_is_hot_of_a_stored_prefix_is_forked_and_the_rest_restored) {
  HalfHotFixture f;
  const int num_forked = f.context->num_forked_tokens();
  f.submit(3, kTurns + "second and more", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 512);  // up to the last block that is hot as a whole
  CHECK_EQ(f.last[3].cache.num_warm_tokens, 906 - 512);
  CHECK_EQ(f.context->num_forked_tokens() - num_forked, 512);
  CHECK_EQ(f.context->num_restores(), 2);
  // Shared cells are there once.
  CHECK_EQ(f.context->num_cells(), static_cast<size_t>(f.scheduler.stats().num_hot_tokens));
  f.scheduler.demote({}, to_tokens(kSystem), {});
  CHECK_EQ(f.context->num_cells(), 0);
}

TEST(shared_prefix, what_is_hot_is_used_whatever_of_the_rest_cannot_be_restored) {
  for (const int num_restored : {0, 1}) {
    HalfHotFixture f;
    f.context->fail_restore_after(num_restored);
    f.submit(3, kTurns + "second and more", "third");
    f.run();
    CHECK_EQ(f.last[3].cache.num_hot_tokens, 512);
    CHECK_EQ(f.last[3].cache.num_warm_tokens, num_restored * kBlockTokens);
    CHECK_EQ(f.scheduler.stats().num_failed_restores, 1);
  }
}

TEST(shared_prefix, the_beginning_stays_though_a_part_of_a_block_needs_room_to_be_restored) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = 1000;
  HalfHotFixture f(info);
  f.submit(3, kTurns.substr(0, 800) + "second", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 512);
  CHECK_EQ(f.last[3].cache.num_warm_tokens, 768 - 512);
}

TEST(shared_prefix, less_than_a_block_is_restored_with_the_rest) {
  Fixture f(info_with_hot(4));
  f.submit(1, kHead.substr(0, 200) + "other", "first");
  f.run();
  f.submit(2, kHead + "one", "second");
  f.run();
  f.scheduler.demote({}, to_tokens(kHead), {});
  f.submit(3, kHead + "onesecond and more", "third");
  f.run();
  CHECK_EQ(f.last[3].cache.num_hot_tokens, 0);
  CHECK_EQ(f.last[3].cache.num_warm_tokens, 309);
}

std::string long_answer() {
  std::string answer;
  for (int i = 0; i < 300; ++i) answer += static_cast<char>('a' + (i * 7 + i / 50) % 26);
  return answer;
}

TEST(shared_prefix, a_beginning_that_cannot_be_hot_counts_for_each_that_waits_to_share_it) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = 1400;
  info.max_sequences = 8;
  info.max_hot_tokens = info.max_foreign_tokens = 100;
  Fixture f(info);
  const std::string first(300, 'f'), second(300, 's');
  for (uint64_t id = 1; id <= 4; ++id) {  // 350 cells each, but for what is shared
    f.submit(id, id <= 2 ? first : second, std::string(50, 'a'));
    for (int i = 0; i < 4; ++i) f.scheduler.step({});
    CHECK(f.scheduler.stats().num_kv_cells_used <= info.kv_cells);
  }
  // More is hot by now than may be, and in use.
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 299);
  CHECK_EQ(f.scheduler.stats().num_running, 4);
  CHECK_EQ(f.scheduler.stats().num_kv_cells_used, 4 * 350 - 299);
  f.submit(5, second + "five", std::string(50, 'a'));
  f.scheduler.step({});
  CHECK_EQ(f.scheduler.stats().num_waiting, 1);
  f.run();
}

TEST(shared_prefix, the_end_that_nobody_shares_makes_room_for_what_runs) {
  for (const bool saves_when_idle : {false, true}) {
    ModelInfo info = info_with_hot(4);
    info.kv_cells = 1024;
    info.saves_when_idle = saves_when_idle;
    Fixture f(info);
    f.submit(1, kTurns, "first");
    f.run();
    f.submit(2, kSystem + "other", long_answer(), 400);
    f.run();
    CHECK_EQ(f.scheduler.stats().num_preemptions, 0);
    CHECK_EQ(f.last[2].cache.num_hot_tokens, 600);
    CHECK(f.is_hot(kSystem));
    CHECK(!f.is_hot(kTurns));
    f.submit(3, kTurns + "first and more", "third");
    f.run();
    CHECK_EQ(f.cached(3), 905);
    CHECK(f.last[3].cache.num_hot_tokens >= 512);
  }
}

TEST(shared_prefix, no_more_of_the_end_goes_than_is_needed) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = 1024;
  Fixture f(info);
  f.submit(1, kTurns, "first");
  f.run();
  f.submit(2, kSystem + "other", "second", 120);  // of 1,024 cells 904 are taken
  f.scheduler.step({});
  CHECK_EQ(f.scheduler.stats().num_hot_tokens, 904 - (125 - 120));
  f.run();
}

TEST(shared_prefix, a_pinned_prefix_is_not_cut) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = 1150;
  Fixture f(info);
  f.submit(1, kSystem, "first");
  f.run();
  REQUIRE(f.promote(kSystem).ok());
  // Both share half of it, and begin beside all of it, but cannot both end there.
  f.submit(2, kSystem.substr(0, 300) + "one", long_answer(), 400);
  f.submit(3, kSystem.substr(0, 300) + "other", long_answer(), 400);
  f.run();
  CHECK(f.scheduler.stats().num_preemptions > 0);
  CHECK(f.is_hot(kSystem));
}

TEST(shared_prefix, an_end_goes_before_what_is_pinned) {
  ModelInfo info = info_with_hot(4);
  info.kv_cells = info.max_foreign_tokens = 1400;
  Fixture f(info);
  const std::string pinned(300, 'p');
  f.submit(1, pinned, "first");
  f.run();
  REQUIRE(f.promote(pinned).ok());
  f.submit(2, kTurns, "second");
  f.run();
  f.submit(3, kSystem + "other", long_answer(), 400);
  f.run();
  CHECK(f.is_hot(pinned));
  CHECK(f.is_hot(kSystem));
  CHECK(!f.is_hot(kTurns));
}

}  // namespace
}  // namespace snapllm
