#include "registry/residency.h"

#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fake_backend.h"
#include "residency_fixture.h"

namespace snapllm {
namespace {

using testing::kModelBytes;
using testing::kOwnBytes;
using testing::kWeightsBytes;
using Fixture = testing::ResidencyFixture;

TEST(residency, models_stay_as_far_as_the_budget_goes) {
  Fixture f(2);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());
  CHECK_EQ(f.residency.memory().used_bytes, 2 * kModelBytes);
  CHECK(f.load("c").ok());
  CHECK_EQ(f.backend.num_alive(), 2);
  CHECK_EQ(f.residency.memory().num_evictions, 1);
  CHECK_EQ(f.registry.infos().size(), 3);
}

TEST(residency, round_robin_over_more_models_than_fit_works) {
  Fixture f(2);
  for (const char* id : {"a", "b", "c"}) CHECK(f.load(id).ok());
  for (int round = 0; round < 10; ++round) {
    for (const char* id : {"a", "b", "c"}) {
      const auto lease = f.residency.acquire(id);
      REQUIRE(lease.ok());
      CHECK_EQ(lease.value()->info.id, id);
    }
  }
  const MemoryStats memory = f.residency.memory();
  CHECK(memory.num_reloads >= 10);
  CHECK_EQ(memory.num_evictions, memory.num_reloads + 1);
  CHECK_EQ(memory.used_bytes, 2 * kModelBytes);
}

TEST(residency, a_load_that_cannot_fit_is_refused_and_harms_nobody) {
  Fixture f(2);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());
  const auto lease = f.residency.acquire("a").value();
  CHECK(f.registry.set_pinned("b", true).ok());
  const int loads_before = f.backend.num_loads;
  const Status status = f.load("c");
  CHECK_EQ(status.code(), StatusCode::kOutOfMemory);
  for (const char* part : {"model c", "a 1.1 KiB (in use)", "b 1.1 KiB (pinned)"}) {
    CHECK(status.message().find(part) != std::string::npos);
  }
  CHECK_EQ(f.backend.num_loads, loads_before);
  CHECK_EQ(f.state("a"), "resident");
  CHECK_EQ(f.registry.infos().size(), 2);
}

TEST(residency, a_request_for_an_evicted_model_waits_for_a_busy_one_to_end) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());  // evicts a
  f.start("b", 50);
  const auto lease = f.residency.acquire("a");
  REQUIRE(lease.ok());
  CHECK_EQ(f.state("b"), "evicted");
  // The request ran to its end all the same.
  int num_tokens = 0;
  for (const RequestOutput& output : f.outputs->drain()) {
    num_tokens += static_cast<int>(output.tokens.size());
    if (output.finished()) CHECK_EQ(output.finish_reason, FinishReason::kLength);
  }
  CHECK_EQ(num_tokens, 50);
}

TEST(residency, ids_of_one_file_share_its_weights_in_the_budget) {
  Fixture f(1);
  CHECK(f.load("a", "/same").ok());
  f.backend.max_alive = 2;
  CHECK_EQ(f.load("b", "/same").code(), StatusCode::kOk);  // a had to go for b's own bytes
  Fixture two(2);
  CHECK(two.load("a", "/same").ok());
  CHECK(two.load("b", "/same").ok());
  CHECK_EQ(two.residency.memory().models_bytes, kWeightsBytes + 2 * kOwnBytes);
}

TEST(residency, a_model_whose_file_was_written_to_is_loaded_anew_by_the_next_use) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.registry.set_pinned("a", true).ok());
  f.start("a");
  *f.backend.intact("/a") = false;
  CHECK(!f.registry.find("a").ok());
  CHECK(f.residency.acquire("a").ok());
  CHECK_EQ(f.backend.num_loads, 2);
  CHECK_EQ(f.backend.num_alive(), 1);
  CHECK(f.registry.info("a").value().pinned);
  const auto outputs = f.outputs->drain();
  REQUIRE(!outputs.empty());
  CHECK_EQ(outputs.back().finish_reason, FinishReason::kError);
  CHECK(outputs.back().error.message().find("was written to") != std::string::npos);
  *f.backend.intact("/a") = false;
  CHECK(f.load("a").ok());
  CHECK_EQ(f.backend.num_loads, 3);
  const MemoryStats memory = f.residency.memory();
  CHECK_EQ(memory.num_evictions, 2);
  CHECK_EQ(memory.used_bytes, kModelBytes);
  CHECK_EQ(f.registry.stats().front().num_evictions, 2);
  CHECK_EQ(f.registry.stats().front().num_requests, 1);
}

TEST(residency, of_many_who_want_a_model_whose_file_was_written_to_one_loads_it) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  for (int round = 0; round < 20; ++round) {
    *f.backend.intact("/a") = false;
    const int before = f.backend.num_loads;
    std::vector<std::thread> threads;
    std::atomic<int> num_found{0};
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] { num_found += f.residency.acquire("a").ok(); });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK_EQ(num_found, 8);
    CHECK_EQ(f.backend.num_loads, before + 1);
  }
}

TEST(residency, a_file_that_was_written_to_and_is_no_model_any_more_fails_its_requests_only) {
  Fixture f(2);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());
  *f.backend.intact("/a") = false;
  f.on_scheduler = [] { throw std::runtime_error("no model"); };
  CHECK_EQ(f.residency.acquire("a").status().code(), StatusCode::kInvalidModel);
  CHECK_EQ(f.state("a"), "evicted");
  CHECK(f.residency.acquire("b").ok());
  f.on_scheduler = nullptr;
  CHECK(f.residency.acquire("a").ok());
}

TEST(residency, failures_are_passed_on_and_leave_the_id_free) {
  Fixture f(2);
  CHECK_EQ(f.load("a", "/missing").code(), StatusCode::kFileNotFound);
  CHECK_EQ(f.load("a", "/broken").code(), StatusCode::kInvalidModel);
  CHECK_EQ(f.residency.memory().used_bytes, 0);
  CHECK(f.load("a").ok());
}

TEST(residency, an_exception_fails_the_load_and_leaves_the_id_free) {
  Fixture f(2);
  CHECK_EQ(f.load("a", "/vast").code(), StatusCode::kOutOfMemory);
  const Status odd = f.load("a", "/odd");
  CHECK_EQ(odd.code(), StatusCode::kInvalidModel);
  CHECK(odd.message().find("odd") != std::string::npos);
  CHECK_EQ(f.residency.memory().used_bytes, 0);
  CHECK(f.load("a").ok());
}

TEST(residency, an_exception_while_a_model_comes_back_leaves_it_evicted) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());  // evicts a
  f.on_scheduler = [] { throw std::runtime_error("no thread"); };
  CHECK_EQ(f.residency.acquire("a").status().code(), StatusCode::kInvalidModel);
  CHECK_EQ(f.backend.num_alive(), 0);
  CHECK_EQ(f.state("a"), "evicted");
  f.on_scheduler = nullptr;
  CHECK(f.residency.acquire("a").ok());
}

TEST(residency, many_loads_of_one_id_make_one_model) {
  Fixture f(2);
  std::vector<std::future<Status>> loads;
  for (int i = 0; i < 8; ++i) {
    loads.push_back(std::async(std::launch::async, [&] { return f.load("a"); }));
  }
  for (auto& one : loads) CHECK(one.get().ok());
  CHECK_EQ(f.backend.num_loads.load(), 1);
}

TEST(residency, memory_is_declared_free_when_it_is) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.residency.unload("a").ok());
  CHECK_EQ(f.alive_when_bounded.load(), 0);
  CHECK(f.load("b").ok());
  // Held as by a thread that looks for the scheduler of a request.
  auto schedulers = f.registry.schedulers();
  auto unload = std::async(std::launch::async, [&] { return f.residency.unload("b").ok(); });
  CHECK(unload.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout);
  CHECK_EQ(f.residency.memory().models_bytes, kModelBytes);
  schedulers.clear();
  CHECK(unload.get());
  CHECK_EQ(f.alive_when_bounded.load(), 0);
}

TEST(residency, an_unload_ends_a_slow_load) {
  Fixture f(2);
  auto load = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  CHECK(f.load("a").ok());  // and nobody waits for it
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(load.get().code(), StatusCode::kClosed);
  CHECK_EQ(f.residency.memory().used_bytes, kModelBytes);
}

TEST(residency, unloading_a_model_that_is_being_evicted_ends_its_requests) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());  // evicts a
  f.start("b");
  auto lease = std::async(std::launch::async, [&] { return f.residency.acquire("a").ok(); });
  while (f.state("b") != "evicting") std::this_thread::yield();
  const auto stats = f.residency.unload("b");
  REQUIRE(stats.ok());
  CHECK_EQ(stats.value().num_failed, 1u);
  CHECK(lease.get());
  const auto outputs = f.outputs->drain();
  REQUIRE(!outputs.empty());
  CHECK_EQ(outputs.back().error.code(), StatusCode::kClosed);
}

TEST(residency, unloading_any_model_of_an_eviction_ends_its_requests_at_once) {
  for (const std::string unloaded : {"a", "b"}) {
    Fixture f(2);
    CHECK(f.load("c", "/large").ok());
    CHECK(f.load("a").ok());  // evicts c
    CHECK(f.load("b").ok());
    f.start("a");
    f.start("b");
    auto lease = std::async(std::launch::async, [&] { return f.residency.acquire("c").ok(); });
    for (const char* id : {"a", "b"}) {
      while (f.state(id) != "evicting") std::this_thread::yield();
    }
    const auto stats = f.residency.unload(unloaded);
    REQUIRE(stats.ok());
    CHECK_EQ(stats.value().num_failed, 1u);
    const std::string other = unloaded == "a" ? "b" : "a";
    CHECK_EQ(f.state(other), "evicting");  // its request goes on
    CHECK(f.residency.unload(other).ok());
    CHECK(lease.get());
    CHECK_EQ(f.residency.memory().used_bytes, 2 * kModelBytes);
  }
}

TEST(residency, requests_that_wait_for_a_model_at_the_end_hear_that_it_is_the_end) {
  Fixture f(1);
  CHECK(f.load("a").ok());
  CHECK(f.load("b").ok());  // evicts a
  f.start("b");
  std::vector<std::future<StatusCode>> requests;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(std::async(std::launch::async,
                                  [&] { return f.residency.acquire("a").status().code(); }));
  }
  while (f.state("b") != "evicting") std::this_thread::yield();
  f.residency.close();
  for (auto& request : requests) CHECK_EQ(request.get(), StatusCode::kClosed);
}

TEST(residency, closing_ends_loads_and_requests) {
  Fixture f(3);
  CHECK(f.load("a").ok());
  f.start("a");
  auto load = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads < 2) std::this_thread::yield();
  CHECK(!f.residency.drain(ModelRegistry::Clock::now() + std::chrono::milliseconds(20)));
  f.residency.close();
  CHECK_EQ(load.get().code(), StatusCode::kClosed);
  CHECK_EQ(f.backend.num_alive(), 0);
  const auto outputs = f.outputs->drain();
  REQUIRE(!outputs.empty());
  CHECK_EQ(outputs.back().error.code(), StatusCode::kClosed);
  CHECK_EQ(f.load("b").code(), StatusCode::kClosed);
  CHECK_EQ(f.residency.acquire("a").status().code(), StatusCode::kClosed);
}

TEST(residency, models_nobody_uses_expire_and_come_back) {
  Fixture f(2, /*keep_alive_s=*/0.05);
  CHECK(f.load("a").ok());
  const auto deadline = testing::far_deadline();
  while (f.state("a") != "evicted" && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK_EQ(f.state("a"), "evicted");
  CHECK_EQ(f.backend.num_alive(), 0);
  CHECK(f.residency.acquire("").ok());
  CHECK_EQ(f.residency.memory().num_reloads, 1);
}

TEST(residency, a_model_that_is_no_longer_pinned_expires) {
  Fixture f(1, /*keep_alive_s=*/0.05);
  ModelOptions options;
  options.path = "/a";
  options.pinned = true;
  REQUIRE(f.residency.load("a", options).ok());
  // The watcher finds nothing to wait for.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK_EQ(f.state("a"), "resident");
  REQUIRE(f.residency.set_pinned("a", false).ok());
  const auto deadline = testing::far_deadline();
  while (f.state("a") != "evicted" && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK_EQ(f.state("a"), "evicted");
}

TEST(residency, random_use_from_many_threads_stays_within_the_budget) {
  Fixture f(2);
  std::vector<std::future<void>> threads;
  for (unsigned seed = 0; seed < 6; ++seed) {
    threads.push_back(std::async(std::launch::async, [&f, seed] {
      const std::string ids[] = {"a", "b", "c", "d"};
      unsigned state = seed * 7919 + 1;
      for (int i = 0; i < 150; ++i) {
        state = state * 1664525u + 1013904223u;
        const std::string& id = ids[state >> 30];
        switch ((state >> 20) % 6) {
          case 0: (void)f.residency.unload(id); break;
          case 1: (void)f.load(id); break;
          case 2: (void)f.registry.set_active(id); break;
          default:
            if (const auto lease = f.residency.acquire(id); lease.ok()) {
              CHECK_EQ(lease.value()->info.id, id);
              CHECK_EQ(lease.value()->info.path, "/" + id);
            }
        }
      }
    }));
  }
  for (auto& thread : threads) thread.get();
  for (const char* id : {"a", "b", "c", "d"}) (void)f.residency.unload(id);
  CHECK_EQ(f.backend.num_alive(), 0);
  CHECK_EQ(f.residency.memory().used_bytes, 0);
  CHECK(f.registry.infos().empty());
}

}  // namespace
}  // namespace snapllm
