#include "registry/residency.h"

#include <functional>
#include <future>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "fake_backend.h"

namespace snapllm {
namespace {

using testing::fake_info;
using testing::FakeTextContext;
using testing::FakeTextModel;
using testing::make_sequence;

constexpr uint64_t kWeightsBytes = 1000;
constexpr uint64_t kOwnBytes = 100;
constexpr uint64_t kModelBytes = kWeightsBytes + kOwnBytes;
constexpr int32_t kEndless = 40'000;  // tokens that no test waits for

uint64_t weights_of(const std::string& path) {
  return path == "/large" ? kWeightsBytes + kModelBytes : kWeightsBytes;
}

// Models of one size, but for a large one, which takes the room of two; counts what is in memory.
class FakeBackend : public TextBackend {
 public:
  Result<MemoryPlan> plan(const ModelOptions& options, uint64_t max_bytes) override {
    if (options.path == "/missing") return Status(StatusCode::kFileNotFound, "missing");
    MemoryPlan plan;
    plan.context_size = plan.kv_cells = 4096;
    plan.weights_key = options.path;
    plan.weights_bytes = weights_of(options.path);
    plan.kv_bytes = kOwnBytes;
    plan.total_bytes = plan.weights_bytes + kOwnBytes;
    if (plan.total_bytes > max_bytes) return Status(StatusCode::kOutOfMemory, "too large");
    return plan;
  }
  Result<LoadedModel> load(const std::string& model_id, const ModelOptions& options,
                           const MemoryPlan&, const std::atomic<bool>& cancelled) override {
    ++num_loads;
    const auto give_up = testing::far_deadline();
    while (options.path == "/slow" && !cancelled && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::yield();
    }
    if (cancelled) return Status(StatusCode::kClosed, "cancelled");
    if (options.path == "/broken") return Status(StatusCode::kInvalidModel, "broken");
    if (options.path == "/vast") throw std::bad_alloc();
    if (options.path == "/odd") throw std::runtime_error("odd");
    const auto num_alive = num_alive_;
    CHECK(++*num_alive <= max_alive);
    ModelInfo info = fake_info(2 * kEndless);
    info.id = model_id;
    info.path = options.path;
    info.weights_bytes = weights_of(options.path);
    info.kv_bytes = kOwnBytes;
    std::shared_ptr<FakeTextModel> model(new FakeTextModel(info, 2048, 512),
                                         [num_alive](FakeTextModel* gone) {
                                           delete gone;
                                           --*num_alive;
                                         });
    auto context = std::make_unique<FakeTextContext>(model);
    context->script("x", std::vector<Token>(kEndless, 'y'));
    return LoadedModel{model, std::move(context)};
  }
  uint64_t available_bytes() const override { return available; }
  int num_alive() const { return *num_alive_; }

  int max_alive = 1000;
  std::atomic<int> num_loads{0};
  std::atomic<uint64_t> available{uint64_t{1} << 40};

 private:
  std::shared_ptr<std::atomic<int>> num_alive_ = std::make_shared<std::atomic<int>>(0);
};

struct Fixture {
  explicit Fixture(size_t max_models, double keep_alive_s = 0.0)
      : residency(backend, registry, compute, nullptr,
                  {.make_scheduler =
                       [this](LoadedModel loaded) {
                         if (on_scheduler) on_scheduler();
                         return std::make_shared<Scheduler>(std::move(loaded), 64);
                       },
                   .snapshots =
                       [this] {
                         if (on_snapshots) on_snapshots();
                         std::lock_guard lock(snapshots_mutex);
                         return snapshots;
                       },
                   .bound_snapshots =
                       [this](uint64_t bytes) {
                         if (on_bound) on_bound();
                         last_bound = bytes;
                         alive_when_bounded = backend.num_alive();
                         std::lock_guard lock(snapshots_mutex);
                         snapshots.bytes =
                             std::max(snapshots.least_bytes, std::min(snapshots.bytes, bytes));
                       }},
                  {.budget_bytes = max_models * kModelBytes,
                   .keep_alive_s = keep_alive_s,
                   .max_wait_s = 10.0}) {
    backend.max_alive = static_cast<int>(max_models);
  }
  ~Fixture() { residency.close(); }

  Status load(const std::string& id, const std::string& path = "") {
    ModelOptions options;
    options.path = path.empty() ? "/" + id : path;
    const auto lease = residency.load(id, options);
    return lease.ok() ? Status() : lease.status();
  }
  std::string state(const std::string& id) { return registry.info(id).value().state; }
  // Runs until it is cancelled; returns its id.
  uint64_t start(const std::string& id, int32_t max_tokens = kEndless) {
    const auto lease = residency.acquire(id);
    REQUIRE(lease.ok());
    const uint64_t request_id = ++last_request_id;
    REQUIRE(lease.value()->scheduler->submit(make_sequence(request_id, "x", max_tokens, outputs)).ok());
    compute.notify();
    return request_id;
  }

  FakeBackend backend;
  ModelRegistry registry;
  ComputeThread compute;
  std::shared_ptr<OutputQueue> outputs = std::make_shared<OutputQueue>();
  uint64_t last_request_id = 0;
  std::mutex snapshots_mutex;
  SnapshotMemory snapshots;
  std::function<void()> on_scheduler;  // called before a model gets its scheduler
  std::function<void()> on_snapshots;  // called before each look at them
  std::function<void()> on_bound;      // called before each new bound is set
  std::atomic<uint64_t> last_bound{0};
  std::atomic<int> alive_when_bounded{-1};  // models in memory when it was last asked to
  Residency residency;
};

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

TEST(residency, external_memory_evicts_idle_models_or_is_refused) {
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

TEST(residency, a_load_and_external_memory_do_not_take_the_same_room) {
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

TEST(residency, of_two_that_want_the_same_room_at_once_one_gets_it) {
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

TEST(residency, what_a_load_was_granted_is_not_free_on_the_machine_though_not_yet_allocated) {
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

TEST(residency, loads_that_fit_the_machine_together_do_not_wait_for_each_other) {
  Fixture f(4);
  f.backend.available = 2 * kModelBytes;
  auto first = std::async(std::launch::async, [&] { return f.load("s", "/slow"); });
  while (f.backend.num_loads == 0) std::this_thread::yield();
  CHECK(f.load("a").ok());
  CHECK(f.residency.unload("s").ok());
  CHECK_EQ(first.get().code(), StatusCode::kClosed);
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

TEST(residency, an_embedder_is_charged_what_it_takes_while_its_model_is_in_memory) {
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

TEST(residency, an_embedder_that_does_not_fit_is_not_made) {
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

TEST(residency, an_embedder_that_cannot_be_made_is_not_charged) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  const auto lease = embedding_model(f);
  auto& context = static_cast<FakeTextContext&>(lease->scheduler->context());
  context.embedder_status = {StatusCode::kInvalidModel, "it ranks"};
  CHECK_EQ(f.residency.make_embedder(lease).code(), StatusCode::kInvalidModel);
  CHECK_EQ(f.residency.memory().models_bytes, kModelBytes);
}

TEST(residency, what_others_hold_goes_where_idle_models_are_not_enough) {
  Fixture f(2);
  REQUIRE(f.load("a").ok());
  REQUIRE(f.registry.set_pinned("a", true).ok());
  REQUIRE(f.residency.set_external("image", kModelBytes).ok());
  int num_calls = 0;
  f.residency.set_external_holder([&] {
    ++num_calls;
    return num_calls == 1 && f.residency.set_external("image", 0).ok();
  });
  CHECK(f.load("b").ok());
  CHECK_EQ(num_calls, 1);
  CHECK_EQ(f.residency.memory().external_bytes, uint64_t{0});
  REQUIRE(f.registry.set_pinned("b", true).ok());
  CHECK_EQ(f.residency.set_external("image", 1).code(), StatusCode::kOutOfMemory);
  CHECK_EQ(num_calls, 2);
}

TEST(residency, kept_kv_gives_way_to_models_down_to_its_least) {
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

TEST(residency, of_two_bounds_for_kept_kv_the_later_one_stays) {
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
