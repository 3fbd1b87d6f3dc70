// What of residency is in registry/residency_memory.cc.
#include "registry/residency.h"

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fake_backend.h"
#include "residency_fixture.h"

namespace snapllm {
namespace {

using testing::FakeTextContext;
using testing::kModelBytes;
using Fixture = testing::ResidencyFixture;

TEST(residency_memory, external_memory_evicts_idle_models_or_is_refused) {
  Fixture f(2);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());
  CHECK(f.registry.set_pinned("b", true).ok());
  CHECK(f.residency.set_external("image", kModelBytes).ok());
  CHECK_EQ(f.state("a"), "evicted");
  const Status refused = f.residency.set_external("image", kModelBytes + 1);
  CHECK_EQ(refused.code(), StatusCode::kOutOfMemory);
  CHECK_EQ(f.residency.memory().external_bytes, kModelBytes);
  CHECK_EQ(f.residency.acquire("a").status().code(), StatusCode::kOutOfMemory);
  CHECK(f.residency.set_external("image", 0).ok());
  CHECK(f.residency.acquire("a").ok());
}

TEST(residency_memory, a_load_and_external_memory_do_not_take_the_same_room) {
  // Charged at each look of the load at the memory, the last before its reservation among them.
  for (int look = 1; look <= 6; ++look) {
    Fixture f(1);
    int num_looks = 0;
    Status charged(StatusCode::kClosed, "not yet");
    f.on_snapshots = [&] {
      if (++num_looks == look) charged = f.residency.set_external("image", kModelBytes);
    };
    const Status loaded = f.load("a");
    f.on_snapshots = nullptr;
    CHECK(loaded.ok() != charged.ok());
    CHECK(f.residency.memory().used_bytes <= kModelBytes);
  }
}

TEST(residency_memory, of_two_that_want_the_same_room_at_once_one_gets_it) {
  Fixture f(1);
  for (int round = 0; round < 500; ++round) {
    std::atomic<int> num_ready{0};
    const auto charge = [&](const char* name) {
      ++num_ready;
      while (num_ready < 2) std::this_thread::yield();
      return f.residency.set_external(name, kModelBytes).ok();
    };
    auto one = std::async(std::launch::async, [&] { return charge("one"); });
    const bool has_other = charge("other");
    CHECK(one.get() != has_other);
    CHECK_EQ(f.residency.memory().external_bytes, kModelBytes);
    for (const char* name : {"one", "other"}) CHECK(f.residency.set_external(name, 0).ok());
  }
}

TEST(residency_memory, what_a_load_was_granted_is_not_free_on_the_machine_though_not_yet_allocated) {
  Fixture f(4);
  f.backend.available = kModelBytes;
  auto first = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  auto second = std::async(std::launch::async, [&] { return f.load("a"); });
  CHECK(second.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  CHECK_EQ(f.backend.num_loads.load(), 1);
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(first.get().code(), StatusCode::kClosed);
  CHECK(second.get().ok());
}

TEST(residency_memory, loads_that_fit_the_machine_together_do_not_wait_for_each_other) {
  Fixture f(4);
  f.backend.available = 2 * kModelBytes;
  auto first = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  CHECK(f.load("a").ok());
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(first.get().code(), StatusCode::kClosed);
}

TEST(residency_memory, a_load_waits_for_one_under_way_that_can_go_then) {
  Fixture f(1);
  auto first = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  auto second = std::async(std::launch::async, [&] { return f.load("a"); });
  CHECK(second.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(first.get().code(), StatusCode::kClosed);
  CHECK(second.get().ok());
}

TEST(residency_memory, of_many_loads_at_once_that_fit_one_by_one_none_is_refused) {
  Fixture f(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::future<Status>> loads;
    for (const char* id : {"a", "b", "c"}) {
      loads.push_back(std::async(std::launch::async, [&f, id] { return f.load(id); }));
    }
    for (auto& load : loads) CHECK_EQ(load.get().message(), "");
    for (const char* id : {"a", "b", "c"}) CHECK(f.residency.unload(id).ok());
  }
}

TEST(residency_memory, a_load_that_no_end_of_one_under_way_would_help_is_refused_at_once) {
  Fixture f(1);
  auto first = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  CHECK_EQ(f.load("l", "/large").code(), StatusCode::kOutOfMemory);
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(first.get().code(), StatusCode::kClosed);
}

TEST(residency_memory, a_load_waits_a_moment_for_a_model_that_somebody_holds_without_a_request) {
  Fixture f(1);
  REQUIRE(f.load("a").ok());
  auto lease = f.residency.acquire("a");
  REQUIRE(lease.ok());
  CHECK_EQ(f.load("b").code(), StatusCode::kOutOfMemory);  // not for long
  auto load = std::async(std::launch::async, [&] { return f.load("b"); });
  CHECK(load.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  lease = Status();
  CHECK(load.get().ok());
}

// The model, whose embedder takes as much as another model, or what else is said.
ModelRegistry::Lease embedding_model(Fixture& f, uint64_t takes = kModelBytes) {
  const auto lease = f.residency.acquire("a");
  REQUIRE(lease.ok());
  auto& context = static_cast<FakeTextContext&>(lease.value()->scheduler->context());
  context.embedder_estimate = kModelBytes;
  context.embedder_takes = takes;
  return lease.value();
}

TEST(residency_memory, an_embedder_is_charged_what_it_takes_while_its_model_is_in_memory) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  auto lease = embedding_model(f, kModelBytes / 2);
  CHECK(f.residency.make_embedder(lease).ok());
  CHECK_EQ(f.state("b"), "evicted");
  CHECK_EQ(f.residency.memory().models_bytes, kModelBytes + kModelBytes / 2);
  CHECK(f.residency.make_embedder(lease).ok());
  CHECK_EQ(f.residency.memory().models_bytes, kModelBytes + kModelBytes / 2);
  lease = nullptr;
  REQUIRE(f.residency.acquire("b").ok());  // at the cost of a, with its embedder
  CHECK_EQ(f.state("a"), "evicted");
  REQUIRE(f.residency.acquire("a").ok());
  CHECK_EQ(f.residency.memory().models_bytes, 2 * kModelBytes);
}

TEST(residency_memory, an_embedder_that_does_not_fit_is_not_made) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  REQUIRE(f.residency.set_pinned("b", true).ok());
  const auto lease = embedding_model(f);
  const Status refused = f.residency.make_embedder(lease);
  CHECK_EQ(refused.code(), StatusCode::kOutOfMemory);
  CHECK(refused.message().find("embedding context of model a") != std::string::npos);
  CHECK(lease->scheduler->context().embedder_bytes() > 0);
  CHECK_EQ(f.residency.memory().models_bytes, 2 * kModelBytes);
  f.backend.available = kModelBytes - 1;  // though the budget has room
  REQUIRE(f.residency.unload("b").ok());
  CHECK_EQ(f.residency.make_embedder(lease).code(), StatusCode::kOutOfMemory);
}

TEST(residency_memory, a_request_for_vectors_waits_for_a_busy_model_to_end) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  (void)embedding_model(f);
  f.start("b", 50);
  REQUIRE(f.residency.acquire_embedding("a").ok());
  CHECK_EQ(f.state("b"), "evicted");
  size_t num_tokens = 0;
  for (const RequestOutput& output : f.outputs->drain()) {
    num_tokens += output.tokens.size();
    if (output.finished()) CHECK_EQ(output.finish_reason, FinishReason::kLength);
  }
  CHECK_EQ(num_tokens, 50);
}

TEST(residency_memory, a_request_for_vectors_that_no_models_end_would_help_is_refused_at_once) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  REQUIRE(f.residency.set_pinned("b", true).ok());
  (void)embedding_model(f);
  f.start("b");
  const auto begun = std::chrono::steady_clock::now();
  CHECK_EQ(f.residency.acquire_embedding("a").status().code(), StatusCode::kOutOfMemory);
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(5));
  CHECK_EQ(f.state("a"), "resident");
}

TEST(residency_memory, an_embedder_that_cannot_be_made_is_not_charged) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  const auto lease = embedding_model(f);
  auto& context = static_cast<FakeTextContext&>(lease->scheduler->context());
  context.embedder_status = {StatusCode::kInvalidModel, "it ranks"};
  CHECK_EQ(f.residency.make_embedder(lease).code(), StatusCode::kInvalidModel);
  CHECK_EQ(f.residency.memory().models_bytes, kModelBytes);
}

TEST(residency_memory, what_others_hold_goes_where_idle_models_are_not_enough) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.registry.set_pinned("a", true).ok());
  REQUIRE(f.residency.set_external("image", kModelBytes).ok());
  int num_calls = 0;
  const auto give_back = [&] {
    ++num_calls;
    return num_calls == 1 && f.residency.set_external("image", 0).ok();
  };
  f.residency.set_external_holder({give_back, [] { return false; }});
  CHECK(f.load("b").ok());
  CHECK_EQ(num_calls, 1);
  CHECK_EQ(f.residency.memory().external_bytes, uint64_t{0});
  REQUIRE(f.registry.set_pinned("b", true).ok());
  CHECK_EQ(f.residency.set_external("image", 1).code(), StatusCode::kOutOfMemory);
  CHECK_EQ(num_calls, 2);
}

TEST(residency_memory, a_model_that_comes_back_waits_for_what_is_held_outside_and_busy) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  REQUIRE(f.residency.set_external("image", kModelBytes).ok());
  const std::string evicted = f.state("a") == "evicted" ? "a" : "b";
  REQUIRE(f.residency.set_pinned(evicted == "a" ? "b" : "a", true).ok());
  std::atomic<int> num_looks{0};
  const auto give_back = [&] {
    return num_looks >= 3 && f.residency.set_external("image", 0).ok();
  };
  f.residency.set_external_holder({give_back, [&] { return ++num_looks > 0; }});
  CHECK_EQ(f.load("c").code(), StatusCode::kOutOfMemory);  // a load does not wait
  CHECK_EQ(num_looks, 0);
  CHECK(f.residency.acquire(evicted).ok());
  CHECK(num_looks >= 3);
}

TEST(residency_memory, a_model_that_would_not_fit_without_it_does_not_wait_for_what_is_outside) {
  Fixture f(2);
  for (const char* id : {"a", "b", "c"}) REQUIRE(f.load(id).ok());
  const std::string evicted = f.state("a") == "evicted" ? "a" : "b";
  for (const char* id : {"a", "b", "c"}) {
    if (id != evicted) REQUIRE(f.residency.set_pinned(id, true).ok());
  }
  f.residency.set_external_holder({[] { return false; }, [] { return true; }});
  CHECK_EQ(f.residency.acquire(evicted).status().code(), StatusCode::kOutOfMemory);
}

TEST(residency_memory, kept_kv_gives_way_to_models_down_to_its_least) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  f.snapshots = {.bytes = kModelBytes, .least_bytes = 0};
  REQUIRE(f.load("b").ok());
  CHECK_EQ(f.state("a"), "resident");
  CHECK_EQ(f.snapshots.bytes, uint64_t{0});
  CHECK_EQ(f.residency.memory().used_bytes, 2 * kModelBytes);
  REQUIRE(f.residency.unload("b").ok());
  f.snapshots = {.bytes = kModelBytes, .least_bytes = kModelBytes / 2};
  REQUIRE(f.load("c").ok());
  CHECK_EQ(f.state("a"), "evicted");
  CHECK_EQ(f.snapshots.bytes, kModelBytes);
}

TEST(residency_memory, of_two_bounds_for_kept_kv_the_later_one_stays) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.load("b").ok());
  std::atomic<int> num_bounds{0};
  std::atomic<bool> unload_is_slow{false};
  f.on_bound = [&] {
    if (num_bounds++ > 0) return;
    unload_is_slow = true;
    const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
    while (num_bounds < 2 && std::chrono::steady_clock::now() < soon) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  auto unload = std::async(std::launch::async, [&] { return f.residency.unload("b").ok(); });
  while (!unload_is_slow) std::this_thread::yield();
  CHECK(f.load("c").ok());
  CHECK(unload.get());
  CHECK_EQ(f.last_bound, uint64_t{0});
  f.on_bound = nullptr;
}

}  // namespace
}  // namespace snapllm
