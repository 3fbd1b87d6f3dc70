#include "registry/room.h"

#include <algorithm>

#include "check.h"

namespace snapllm {
namespace {

using Ids = std::vector<std::string>;

// 1,000 bytes of weights, 1 byte for each token of a context of at most 10,000.
Result<MemoryPlan> plan(const ModelOptions& options, uint64_t max_bytes) {
  MemoryPlan plan;
  plan.weights_key = "file";
  plan.weights_bytes = 1000;
  const uint64_t left = max_bytes > 1000 ? max_bytes - 1000 : 0;
  plan.context_size = options.context_size > 0
                          ? options.context_size
                          : static_cast<int32_t>(std::clamp<uint64_t>(left / 2, 512, 10'000));
  plan.kv_cells = std::max(options.kv_cells, plan.context_size);
  plan.total_bytes = 1000 + static_cast<uint64_t>(plan.kv_cells);
  if (plan.total_bytes > max_bytes) return Status(StatusCode::kOutOfMemory, "too large");
  return plan;
}

Holding other(const std::string& id, uint64_t bytes, bool in_use = false) {
  Holding holding;
  holding.id = id;
  holding.charge = {id, 0, bytes};
  holding.rebuild_ms = 100.0;
  holding.in_use = in_use;
  return holding;
}

Result<RoomChoice> choose(const std::vector<Holding>& holdings, uint64_t budget,
                          const ModelOptions& options = {},
                          const std::optional<ModelInfo>& last = std::nullopt,
                          Victims allowed = Victims::kIdle) {
  return choose_room("new", options, last, holdings, {budget, 0, 0}, allowed, plan);
}

TEST(room, with_room_nobody_goes_and_the_context_is_as_large_as_it_can_be) {
  const auto choice = choose({other("a", 5000)}, 100'000);
  REQUIRE(choice.ok());
  CHECK_EQ(choice.value().plan.context_size, 10'000);
  CHECK_EQ(choice.value().victims, Ids{});
  CHECK_EQ(choice.value().charge.own_bytes, 10'000);
}

TEST(room, a_context_that_is_useful_comes_before_the_others_places) {
  const auto choice = choose({other("a", 5000)}, 5000 + 1000 + 9000);
  REQUIRE(choice.ok());
  CHECK_EQ(choice.value().plan.context_size, 4500);
  CHECK_EQ(choice.value().victims, Ids{});
}

TEST(room, an_idle_model_makes_room_for_a_useful_context) {
  const auto choice = choose({other("a", 5000)}, 5000 + 1000 + 2000);
  REQUIRE(choice.ok());
  CHECK_EQ(choice.value().plan.context_size, 4096);
  CHECK_EQ(choice.value().victims, Ids{"a"});
}

TEST(room, without_anybody_to_evict_a_small_context_has_to_do) {
  const auto choice = choose({other("a", 5000, true)}, 5000 + 1000 + 2000);
  REQUIRE(choice.ok());
  CHECK_EQ(choice.value().plan.context_size, 1000);
  CHECK_EQ(choice.value().victims, Ids{});
}

TEST(room, sizes_that_were_asked_for_are_kept_or_refused) {
  ModelOptions options;
  options.context_size = 3000;
  CHECK_EQ(choose({other("a", 5000)}, 6000, options).value().victims, Ids{"a"});
  const auto refused = choose({other("a", 5000, true)}, 6000, options);
  REQUIRE(!refused.ok());
  CHECK_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  CHECK(refused.status().message().find("a 4.9 KiB (in use)") != std::string::npos);
  CHECK_EQ(choose({other("a", 5000, true)}, 6000, options, {}, Victims::kIdleAndBusy)
               .value().victims, Ids{"a"});
}

TEST(room, a_model_comes_back_as_it_was) {
  ModelInfo last;
  last.context_size = last.kv_cells = 700;
  const auto choice = choose({other("a", 5000)}, 100'000, {}, last);
  CHECK_EQ(choice.value().plan.context_size, 700);
  last.context_size = last.kv_cells = 99'000;  // the budget has shrunk since
  CHECK_EQ(choose({}, 6000, {}, last).value().plan.context_size, 4096);
}

TEST(room, shared_weights_need_no_room) {
  Holding sibling = other("a", 100, true);
  sibling.charge.weights_key = "file";
  sibling.charge.weights_bytes = 1000;
  ModelOptions options;
  options.context_size = 500;
  CHECK(choose({sibling}, 1000 + 100 + 500, options).ok());
  CHECK(!choose({sibling}, 1000 + 100 + 499, options).ok());
  sibling.in_use = false;  // its going frees its own bytes only
  CHECK_EQ(choose({sibling}, 1000 + 500, options).value().victims, Ids{"a"});
  CHECK(!choose({sibling}, 1000 + 499, options).ok());
}

}  // namespace
}  // namespace snapllm
