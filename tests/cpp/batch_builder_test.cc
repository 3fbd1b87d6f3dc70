#include "scheduler/batch_builder.h"

#include "backend/text_backend.h"
#include "check.h"

namespace snapllm {
namespace {

using Shares = std::vector<std::pair<size_t, int32_t>>;

Shares plan(const std::vector<PendingWork>& running, int32_t batch_tokens, int32_t prefill_tokens) {
  Shares shares;
  for (const BatchShare& share : plan_batch(running, batch_tokens, prefill_tokens)) {
    shares.emplace_back(share.index, share.num_tokens);
  }
  return shares;
}

TEST(batch_builder, every_decoding_sequence_gets_its_token_first) {
  const std::vector<PendingWork> running = {{0, 100, false}, {40, 1, true}, {50, 1, true}};
  CHECK(plan(running, 512, 512) == (Shares{{1, 1}, {2, 1}, {0, 100}}));
}

TEST(batch_builder, prefill_takes_only_what_decoding_leaves) {
  const std::vector<PendingWork> running = {{0, 100, false}, {40, 1, true}, {50, 1, true}};
  CHECK(plan(running, 64, 512) == (Shares{{1, 1}, {2, 1}, {0, 62}}));
  CHECK(plan(running, 2, 512) == (Shares{{1, 1}, {2, 1}}));
}

TEST(batch_builder, prefill_keeps_to_its_budget) {
  const std::vector<PendingWork> running = {{0, 90, false}, {0, 40, false}, {0, 50, false}};
  CHECK(plan(running, 2048, 128) == (Shares{{0, 90}, {1, 38}}));
  CHECK(plan(running, 2048, 500) == (Shares{{0, 90}, {1, 40}, {2, 50}}));
  CHECK(plan(running, 2048, 0).empty());
}

TEST(batch_builder, short_prompts_do_not_wait_for_the_end_of_a_long_one) {
  const std::vector<PendingWork> running = {{1024, 9000, false}, {0, 2000, false}, {0, 28, false}};
  CHECK(plan(running, 2048, 64) == (Shares{{0, 32}, {2, 28}, {1, 4}}));
  CHECK(plan(running, 2048, 512) == (Shares{{0, 256}, {2, 28}, {1, 228}}));
  CHECK(plan({{1024, 9000, false}}, 2048, 512) == (Shares{{0, 512}}));
}

TEST(batch_builder, unfinished_chunk_ends_at_a_block_boundary) {
  CHECK(plan({{0, 1000, false}}, 600, 600) == (Shares{{0, 512}}));
  CHECK(plan({{100, 900, false}}, 300, 300) == (Shares{{0, 156}}));
  CHECK(plan({{256, 744, false}}, 256, 256) == (Shares{{0, 256}}));
}

TEST(batch_builder, chunk_without_a_boundary_inside_uses_the_budget) {
  CHECK(plan({{10, 900, false}}, 100, 100) == (Shares{{0, 100}}));
  CHECK(plan({{256, 900, false}}, 100, 100) == (Shares{{0, 100}}));
}

TEST(batch_builder, chunk_that_ends_the_prompt_is_not_cut) {
  CHECK(plan({{0, 600, false}}, 600, 600) == (Shares{{0, 600}}));
  CHECK(plan({{0, 255, false}}, 600, 600) == (Shares{{0, 255}}));
}

TEST(batch_builder, prompts_that_are_scored_share_the_rows_of_logits) {
  PendingWork scored{0, 100, false};
  scored.is_scored = true;
  CHECK(plan({scored}, 512, 512) == (Shares{{0, kMaxScoredTokens}}));
  CHECK(plan({scored, scored, {0, 60, false}}, 512, 512) ==
        (Shares{{0, kMaxScoredTokens}, {2, 60}}));
  scored.num_pending = 20;
  CHECK(plan({scored, scored}, 512, 512) == (Shares{{0, 20}, {1, kMaxScoredTokens - 20}}));
}

TEST(batch_builder, sequences_without_work_get_nothing) {
  CHECK(plan({{5, 0, false}}, 64, 64).empty());
  CHECK(plan({}, 64, 64).empty());
}

TEST(batch_builder, prefill_budget_alone_is_what_a_new_request_can_wait_for) {
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 0.1), 2048);
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 0.4), 1024);
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 2.0), 224);
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 7.0), 64);
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 5000.0), 32);
}

TEST(batch_builder, prefill_budget_of_what_can_stop_is_a_longer_one_where_a_ubatch_is_slow) {
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 0.1), 2048);
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 0.9), 512);
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 2.0), 512);
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 25.0), 160);
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 5000.0), 32);
  CHECK_EQ(prefill_budget(PrefillPace::kStoppable, 2048, 512, 0.0), 64);
}

TEST(batch_builder, the_first_prefill_is_short_for_the_speed_is_not_known) {
  CHECK_EQ(prefill_budget(PrefillPace::kAlone, 2048, 512, 0.0), 64);
  CHECK_EQ(prefill_budget(PrefillPace::kShared, 2048, 512, 0.0), 64);
  CHECK_EQ(prefill_budget(PrefillPace::kShared, 2048, 16, 0.0), 16);
}

TEST(batch_builder, prefill_budget_beside_others_follows_the_measured_speed) {
  CHECK_EQ(prefill_budget(PrefillPace::kShared, 2048, 512, 2.0), 96);
  CHECK_EQ(prefill_budget(PrefillPace::kShared, 2048, 512, 1000.0), 32);
  CHECK_EQ(prefill_budget(PrefillPace::kShared, 2048, 512, 0.001), 512);
}

}  // namespace
}  // namespace snapllm
