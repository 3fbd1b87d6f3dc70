#include "registry/governor.h"

#include <algorithm>
#include <random>

#include "check.h"

namespace snapllm {
namespace {

using Ids = std::vector<std::string>;

Holding holding(const std::string& id, uint64_t weights, uint64_t own, double rebuild_ms = 100.0,
                double idle_s = 0.0) {
  Holding h;
  h.id = id;
  h.charge = {"/models/" + id, weights, own};
  h.rebuild_ms = rebuild_ms;
  h.idle_s = idle_s;
  return h;
}

Ids victims(const std::vector<Holding>& holdings, uint64_t missing,
            Victims allowed = Victims::kIdle) {
  const auto chosen = choose_victims(holdings, missing, allowed);
  return chosen ? *chosen : Ids{"(refused)"};
}

TEST(governor, shared_weights_count_once) {
  std::vector<Holding> holdings = {holding("a", 100, 10), holding("b", 100, 20)};
  CHECK_EQ(charged_bytes(holdings), 230);
  holdings[1].charge.weights_key = holdings[0].charge.weights_key;
  CHECK_EQ(charged_bytes(holdings), 130);
  CHECK_EQ(free_bytes(holdings, {200, 30, 7}), 33);
  CHECK_EQ(free_bytes(holdings, {100, 0, 0}), 0);
  CHECK(has_weights(holdings, "/models/a"));
  CHECK(!has_weights(holdings, "/models/b"));
}

TEST(governor, the_machine_may_give_less_than_the_budget) {
  const std::vector<Holding> holdings = {holding("a", 100, 10)};
  const MachineBudget roomy = machine_budget(holdings, {1000, 0, 20}, 30, 5000);
  CHECK_EQ(roomy.most_bytes, 1000);
  CHECK_EQ(roomy.certain_bytes, 1000);
  const MachineBudget tight = machine_budget(holdings, {1000, 0, 20}, 30, 400);
  CHECK_EQ(tight.most_bytes, 560);
  CHECK_EQ(tight.certain_bytes, 560);
}

TEST(governor, where_nobody_knows_what_the_machine_has_the_budget_counts) {
  const std::vector<Holding> holdings = {holding("a", 100, 10)};
  const MachineBudget unknown = machine_budget(holdings, {1000, 0, 20}, 30, UINT64_MAX);
  CHECK_EQ(unknown.most_bytes, 1000);
  CHECK_EQ(unknown.certain_bytes, 1000);
}

TEST(governor, what_loads_were_granted_is_certain_only_when_they_have_ended) {
  std::vector<Holding> holdings = {holding("a", 100, 10), holding("b", 200, 20)};
  holdings[1].loading = holdings[1].moving = true;
  const MachineBudget some = machine_budget(holdings, {1000, 0, 0}, 0, 400);
  CHECK_EQ(some.most_bytes, 730);
  CHECK_EQ(some.certain_bytes, 510);
  const MachineBudget none = machine_budget(holdings, {1000, 0, 0}, 0, 100);
  CHECK_EQ(none.most_bytes, 430);
  CHECK_EQ(none.certain_bytes, 330);
}

TEST(governor, nobody_goes_when_nothing_is_missing) {
  CHECK_EQ(victims({holding("a", 1, 1)}, 0), Ids{});
  CHECK_EQ(victims({}, 0), Ids{});
  CHECK_EQ(victims({}, 1), Ids{"(refused)"});
}

TEST(governor, the_longest_unused_of_equals_goes_first) {
  const std::vector<Holding> holdings = {holding("a", 100, 10, 50, 3), holding("b", 100, 10, 50, 9),
                                         holding("c", 100, 10, 50, 1)};
  CHECK_EQ(victims(holdings, 50), Ids{"b"});
  CHECK_EQ(victims(holdings, 150), (Ids{"b", "a"}));
}

TEST(governor, what_is_cheap_to_rebuild_per_byte_goes_first) {
  CHECK_EQ(victims({holding("slow", 100, 10, 5000), holding("quick", 100, 10, 50)}, 60),
           Ids{"quick"});
  // Twice the time for ten times the bytes.
  CHECK_EQ(victims({holding("small", 100, 0, 100), holding("large", 1000, 0, 200)}, 60),
           Ids{"large"});
}

TEST(governor, pinned_busy_and_moving_models_stay) {
  std::vector<Holding> holdings = {holding("pinned", 100, 0), holding("busy", 100, 0),
                                   holding("moving", 100, 0)};
  holdings[0].pinned = holdings[1].in_use = holdings[2].moving = true;
  CHECK_EQ(victims(holdings, 1), Ids{"(refused)"});
  CHECK_EQ(victims(holdings, 100, Victims::kIdleAndBusy), Ids{"busy"});
  CHECK_EQ(victims(holdings, 101, Victims::kIdleAndBusy), Ids{"(refused)"});
}

TEST(governor, busy_models_go_only_after_all_idle_ones) {
  std::vector<Holding> holdings = {holding("busy", 100, 0, 1, 0), holding("idle", 100, 0, 9000, 0)};
  holdings[0].in_use = true;
  CHECK_EQ(victims(holdings, 100, Victims::kIdleAndBusy), Ids{"idle"});
  CHECK_EQ(victims(holdings, 101, Victims::kIdleAndBusy), (Ids{"idle", "busy"}));
}

TEST(governor, weights_are_freed_with_the_last_that_shares_them) {
  std::vector<Holding> holdings = {holding("a", 100, 10, 50, 9), holding("b", 100, 10, 50, 1),
                                   holding("c", 100, 10, 50, 5)};
  holdings[1].charge.weights_key = holdings[0].charge.weights_key;
  CHECK_EQ(victims(holdings, 10), Ids{"a"});
  // a frees 10 only, c another 110: then a is not needed.
  CHECK_EQ(victims(holdings, 60), Ids{"c"});
  CHECK_EQ(victims(holdings, 230), (Ids{"a", "c", "b"}));
}

TEST(governor, choices_free_enough_and_hold_none_that_is_needless) {
  std::mt19937 random(7);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Holding> holdings;
    for (int i = 0, n = pick(7); i < n; ++i) {
      Holding h = holding(std::to_string(i), static_cast<uint64_t>(pick(500)),
                          static_cast<uint64_t>(pick(100)), pick(1000), pick(50));
      if (i > 0 && pick(3) == 0) {
        h.charge.weights_key = holdings[0].charge.weights_key;
        h.charge.weights_bytes = holdings[0].charge.weights_bytes;
      }
      h.pinned = pick(5) == 0;
      h.in_use = pick(4) == 0;
      holdings.push_back(h);
    }
    const auto missing = static_cast<uint64_t>(pick(1200));
    const auto chosen = choose_victims(holdings, missing, Victims::kIdle);
    const auto without = [&](const Ids& gone) {
      std::vector<Holding> left;
      for (const Holding& h : holdings) {
        if (std::find(gone.begin(), gone.end(), h.id) == gone.end()) left.push_back(h);
      }
      return charged_bytes(holdings) - charged_bytes(left);
    };
    Ids candidates;
    for (const Holding& h : holdings) {
      if (!h.pinned && !h.in_use) candidates.push_back(h.id);
    }
    CHECK_EQ(chosen.has_value(), without(candidates) >= missing);
    if (!chosen) continue;
    CHECK(without(*chosen) >= missing);
    for (const std::string& id : *chosen) {
      CHECK(std::find(candidates.begin(), candidates.end(), id) != candidates.end());
      Ids fewer = *chosen;
      std::erase(fewer, id);
      CHECK(without(fewer) < missing);
    }
  }
}

TEST(governor, a_refusal_names_what_is_needed_and_who_holds_the_memory) {
  std::vector<Holding> holdings = {holding("a", 1 << 20, 1 << 20)};
  holdings[0].pinned = true;
  const std::string text = explain_refusal("model b", 3 << 20, holdings, {4 << 20, 0, 1 << 20}, "a smaller context");
  for (const char* part : {"model b", "3.0 MiB", "1.0 MiB of the budget of 4.0 MiB", "a 2.0 MiB (pinned)",
                           "image models 1.0 MiB", "Unload", "ask for a smaller context,"}) {
    CHECK(text.find(part) != std::string::npos);
  }
  for (const uint64_t needed : {3 << 20, 9 << 20}) {
    const std::string other = explain_refusal("b", needed, {}, {4 << 20, 2 << 20, 0}, "");
    CHECK_EQ(other.find("alone") != std::string::npos, needed == 9 << 20);
    CHECK_EQ(other.find("ask for"), std::string::npos);
  }
  CHECK_EQ(format_bytes(512), "512 bytes");
  CHECK_EQ(format_bytes(uint64_t{3} << 30), "3.0 GiB");
}

}  // namespace
}  // namespace snapllm
