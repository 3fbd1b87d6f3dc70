#include "registry/model_registry.h"

#include <future>
#include <limits>
#include <thread>

#include "check.h"
#include "fake_backend.h"

namespace snapllm {
namespace {

using testing::fake_info;
using testing::FakeTextContext;
using testing::FakeTextModel;
using testing::make_sequence;
using Claim = ModelRegistry::Claim;
using Lease = ModelRegistry::Lease;

const std::atomic<bool> kNeverCancelled{false};

ModelOptions options_of(const std::string& id) {
  ModelOptions options;
  options.path = "/models/" + id;
  return options;
}

Lease make_model(const std::string& id, bool supports_generation = true) {
  constexpr uint64_t bytes = 100;
  ModelInfo info = fake_info();
  info.id = id;
  info.supports_generation = supports_generation;
  auto model = std::make_shared<FakeTextModel>(info, 2048, 512);
  auto resident = std::make_shared<ResidentModel>();
  resident->model = model;
  resident->info = info;
  resident->charge = {"/models/" + id, bytes, bytes / 10};
  resident->scheduler = std::make_shared<Scheduler>(
      LoadedModel{model, std::make_unique<FakeTextContext>(model)}, 8);
  return resident;
}

void load(ModelRegistry& registry, const std::string& id, ModelOptions options) {
  auto claim = registry.claim_load(id, options);
  REQUIRE(claim.ok() && claim.value().model == nullptr);
  registry.end_load(id, *claim.value().ticket, make_model(id));
}
void load(ModelRegistry& registry, const std::string& id) { load(registry, id, options_of(id)); }
void load_embedder(ModelRegistry& registry, const std::string& id) {
  const auto claim = registry.claim_load(id, options_of(id));
  registry.end_load(id, *claim.value().ticket, make_model(id, /*supports_generation=*/false));
}

void unload(ModelRegistry& registry, const std::string& id) {
  CHECK(registry.begin_remove(id).ok());
  registry.end_remove(id);
}

void evict(ModelRegistry& registry, const std::string& id) {
  const auto eviction = registry.begin_eviction({id}, Victims::kIdle);
  REQUIRE(eviction.has_value());
  REQUIRE(registry.take_idle(id, *eviction, testing::far_deadline(), kNeverCancelled) != nullptr);
  registry.end_eviction(id);
}

// Returns once somebody else waits for the load: whoever does holds its ticket, too.
void until_waited_for(const Claim& claim) {
  while (claim.ticket.use_count() < 3) std::this_thread::yield();  // the entry's and the claim's
}

// Begins the eviction of models with a request each, which nobody computes.
ModelRegistry::EvictionId evict_busy(ModelRegistry& registry, const std::vector<std::string>& ids) {
  auto outputs = std::make_shared<OutputQueue>();
  for (const std::string& id : ids) {
    const auto lease = registry.find(id).value();
    REQUIRE(lease->scheduler->submit(make_sequence(1, "x", 4, outputs)).ok());
  }
  const auto eviction = registry.begin_eviction(ids, Victims::kIdleAndBusy);
  REQUIRE(eviction.has_value());
  return *eviction;
}

TEST(model_registry, first_model_becomes_active_and_later_ones_do_not) {
  ModelRegistry registry;
  CHECK_EQ(registry.active(), "");
  load(registry, "b");
  load(registry, "a");
  CHECK_EQ(registry.active(), "b");
  CHECK_EQ(registry.find("").value()->info.id, "b");
  CHECK_EQ(registry.find("a").value()->info.id, "a");
  CHECK_EQ(registry.infos().size(), 2);
  CHECK_EQ(registry.infos()[0].id, "b");  // in the order of their loads
  CHECK(registry.infos()[0].active);
}

TEST(model_registry, unknown_models_are_not_found) {
  ModelRegistry registry;
  CHECK_EQ(registry.claim_use("").status().code(), StatusCode::kModelNotFound);
  load(registry, "a");
  CHECK_EQ(registry.claim_use("b").status().code(), StatusCode::kModelNotFound);
  CHECK(registry.claim_use("b").status().message().find("b") != std::string::npos);
  CHECK_EQ(registry.set_active("b").code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.set_pinned("b", true).code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.begin_remove("b").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.claim_load("", options_of("b")).status().code(), StatusCode::kInvalidRequest);
  CHECK_EQ(registry.active(), "a");
}

TEST(model_registry, switch_changes_the_default) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  CHECK(registry.set_active("b").ok());
  CHECK_EQ(registry.claim_use("").value().model->info.id, "b");
}

TEST(model_registry, a_second_load_of_the_id_waits_and_gets_the_same_model) {
  ModelRegistry registry;
  auto claim = registry.claim_load("a", options_of("a"));
  REQUIRE(claim.ok());
  auto second = std::async(std::launch::async,
                           [&] { return registry.claim_load("a", options_of("a")); });
  auto request = std::async(std::launch::async, [&] { return registry.claim_use("a"); });
  CHECK(second.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout);
  const Lease model = make_model("a");
  registry.end_load("a", *claim.value().ticket, model);
  CHECK(second.get().value().model == model);
  const auto used = request.get();  // before the id was known it may have been refused
  CHECK(!used.ok() || used.value().model == model);
}

TEST(model_registry, whoever_waits_for_a_load_fails_with_it) {
  ModelRegistry registry;
  auto claim = registry.claim_load("a", options_of("a"));
  auto second = std::async(std::launch::async,
                           [&] { return registry.claim_load("a", options_of("a")); });
  until_waited_for(claim.value());
  registry.end_load("a", *claim.value().ticket, Status(StatusCode::kOutOfMemory, "too large"));
  CHECK_EQ(second.get().status().code(), StatusCode::kOutOfMemory);
  CHECK_EQ(registry.active(), "");
  CHECK(registry.infos().empty());
  auto other = options_of("other");
  CHECK(registry.claim_load("a", other).value().ticket != nullptr);  // the id is free
}

TEST(model_registry, an_id_stands_for_one_file_and_its_options) {
  ModelRegistry registry;
  ModelOptions options = options_of("a");
  options.context_size = 1000;
  load(registry, "a", options);
  const auto again = [&](const ModelOptions& wanted) { return registry.claim_load("a", wanted); };
  CHECK(again(options).value().model != nullptr);
  CHECK(again(options_of("a")).value().model != nullptr);  // asks for nothing in particular
  ModelOptions other;
  other.path = "/proc/self/exe";
  CHECK_EQ(again(other).status().code(), StatusCode::kInvalidRequest);
  options.context_size = 2000;
  CHECK_EQ(again(options).status().code(), StatusCode::kInvalidRequest);
  options.context_size = 1000;
  options.kv_type = "q8_0";
  CHECK_EQ(again(options).status().code(), StatusCode::kInvalidRequest);
  options.kv_type = "f16";
  options.draft_tokens = 4;
  CHECK_EQ(again(options).status().code(), StatusCode::kInvalidRequest);
}

TEST(model_registry, a_projector_is_the_same_under_each_of_its_names) {
  ModelRegistry registry;
  ModelOptions options = options_of("a");
  options.mmproj_path = "/proc/self/exe";
  load(registry, "a", options);
  CHECK(registry.claim_load("a", options_of("a")).ok());
  options.mmproj_path = "/proc/self/../self/exe";
  CHECK(registry.claim_load("a", options).ok());
  options.mmproj_path = "/proc/self/maps";
  CHECK_EQ(registry.claim_load("a", options).status().code(), StatusCode::kInvalidRequest);
}

TEST(model_registry, a_second_load_pins_and_sets_the_keep_alive_where_it_asks_for_them) {
  ModelRegistry registry;
  load(registry, "a");
  ModelOptions options = options_of("a");
  options.pinned = true;
  options.keep_alive_s = 5.0;
  REQUIRE(registry.claim_load("a", options).value().model != nullptr);
  CHECK(registry.info("a").value().pinned);
  CHECK_EQ(registry.info("a").value().keep_alive_s, 5.0);
  REQUIRE(registry.claim_load("a", options_of("a")).ok());  // asks for nothing
  CHECK(registry.info("a").value().pinned);
  CHECK_EQ(registry.info("a").value().keep_alive_s, 5.0);
}

TEST(model_registry, a_keep_alive_out_of_range_is_refused_and_changes_nothing) {
  ModelRegistry registry;
  load(registry, "a");
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double seconds : {-2.0, 2e9, kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    ModelOptions options = options_of("a");
    options.keep_alive_s = seconds;
    options.pinned = true;
    for (const char* id : {"a", "b"}) {
      const auto claim = registry.claim_load(id, options);
      REQUIRE(!claim.ok());
      CHECK_EQ(claim.status().code(), StatusCode::kInvalidRequest);
    }
  }
  CHECK(!registry.info("a").value().pinned);
  CHECK_EQ(registry.expired(ModelRegistry::Clock::now(), 0.0), std::vector<std::string>{});
}

TEST(model_registry, an_unload_cancels_the_load_under_way) {
  ModelRegistry registry;
  auto claim = registry.claim_load("a", options_of("a"));
  auto removal = std::async(std::launch::async, [&] { return registry.begin_remove("a"); });
  while (!claim.value().ticket->cancelled) std::this_thread::yield();
  registry.end_load("a", *claim.value().ticket, Status(StatusCode::kClosed, "cancelled"));
  const auto removed = removal.get();
  CHECK(removed.ok() && removed.value() == nullptr);
  registry.end_remove("a");
  CHECK(registry.infos().empty());
}

TEST(model_registry, an_unload_ends_the_loads_that_wait_and_not_those_after_it) {
  ModelRegistry registry;
  auto claim = registry.claim_load("a", options_of("a"));
  const auto load_again = [&] { return registry.claim_load("a", options_of("a")); };
  auto waiting = std::async(std::launch::async, load_again);
  until_waited_for(claim.value());
  auto removal = std::async(std::launch::async, [&] { return registry.begin_remove("a"); });
  while (!claim.value().ticket->cancelled) std::this_thread::yield();
  auto later = std::async(std::launch::async, load_again);
  CHECK(later.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout);
  // It was too late to stop the load.
  registry.end_load("a", *claim.value().ticket, make_model("a"));
  CHECK_EQ(waiting.get().status().code(), StatusCode::kClosed);
  CHECK(removal.get().value() != nullptr);
  CHECK_EQ(registry.active(), "");
  CHECK(later.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout);
  registry.end_remove("a");
  CHECK(later.get().value().ticket != nullptr);
}

TEST(model_registry, an_unload_takes_a_model_that_drains_with_its_requests) {
  ModelRegistry registry;
  load(registry, "a");
  const auto eviction = evict_busy(registry, {"a"});
  auto taken = std::async(std::launch::async, [&] {
    return registry.take_idle("a", eviction, testing::far_deadline(), kNeverCancelled);
  });
  auto request = std::async(std::launch::async, [&] { return registry.claim_use("a"); });
  CHECK(request.wait_for(std::chrono::milliseconds(30)) == std::future_status::timeout);
  const Lease removed = registry.begin_remove("a").value();
  REQUIRE(removed != nullptr);
  CHECK(!removed->scheduler->is_idle());
  CHECK(taken.get() == nullptr);
  CHECK_EQ(request.get().status().code(), StatusCode::kModelNotFound);
  removed->scheduler->abort_all({StatusCode::kClosed, "closed"});
  registry.end_remove("a");
}

TEST(model_registry, an_eviction_that_breaks_off_leaves_nobody_waiting) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  const auto eviction = registry.begin_eviction({"a", "b"}, Victims::kIdle);
  REQUIRE(eviction.has_value());
  CHECK(registry.take_idle("a", *eviction, testing::far_deadline(), kNeverCancelled) != nullptr);
  auto request = std::async(std::launch::async, [&] { return registry.claim_use("b"); });
  registry.give_up_eviction({"a", "b", "gone"}, *eviction);
  CHECK(request.get().value().model != nullptr);
  const auto claim = registry.claim_use("a");  // to be loaded again
  CHECK(claim.value().ticket != nullptr);
  CHECK_EQ(claim.value().model_id, "a");
  // One that is over already is left alone.
  const auto later = registry.begin_eviction({"b"}, Victims::kIdle);
  CHECK(!later.has_value() || *later != *eviction);
  registry.give_up_eviction({"b"}, *eviction);
}

TEST(model_registry, an_unload_takes_a_victim_whose_eviction_still_waits_for_another) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  const auto eviction = evict_busy(registry, {"a", "b"});
  const auto schedulers = registry.schedulers();
  auto removal = std::async(std::launch::async, [&] { return registry.begin_remove("b"); });
  CHECK(removal.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
  const auto deadline = testing::far_deadline();
  CHECK(registry.take_idle("b", eviction, deadline, kNeverCancelled) == nullptr);
  CHECK(removal.get().value() != nullptr);
  registry.end_remove("b");
  // The id is free for another model, and its eviction is not mistaken for the first.
  load(registry, "b");
  const auto later = evict_busy(registry, {"b"});
  CHECK(registry.take_idle("b", eviction, deadline, kNeverCancelled) == nullptr);
  CHECK_EQ(registry.info("b").value().state, "evicting");
  for (const auto& scheduler : registry.schedulers()) scheduler->abort_all({StatusCode::kClosed, "closed"});
  CHECK(registry.take_idle("a", eviction, deadline, kNeverCancelled) != nullptr);
  CHECK(registry.take_idle("b", later, deadline, kNeverCancelled) != nullptr);
  schedulers[1]->abort_all({StatusCode::kClosed, "closed"});
}

TEST(model_registry, removing_the_active_model_passes_the_role_on) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  load(registry, "c");
  evict(registry, "b");
  unload(registry, "a");
  CHECK_EQ(registry.active(), "c");  // in memory, unlike b
  unload(registry, "c");
  CHECK_EQ(registry.active(), "b");
  unload(registry, "b");
  CHECK_EQ(registry.active(), "");
  load(registry, "d");
  CHECK_EQ(registry.active(), "d");
}

TEST(model_registry, of_those_left_the_one_used_last_becomes_active) {
  ModelRegistry registry;
  for (const char* id : {"a", "b", "c"}) load(registry, id);
  CHECK(registry.claim_use("b").ok());
  unload(registry, "a");
  CHECK_EQ(registry.active(), "b");
}

TEST(model_registry, evictions_and_returns_are_events_in_their_order) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  CHECK(registry.events(0).empty());
  evict(registry, "b");
  evict(registry, "a");
  load(registry, "b");
  std::string found;
  for (const ResidencyEvent& event : registry.events(0)) {
    found += (event.has_returned ? '+' : '-') + event.model_id;
  }
  CHECK_EQ(found, "-b-a+b");
  CHECK_EQ(registry.events(2).size(), size_t{1});
  CHECK(registry.events(3).empty());
  for (size_t i = 0; i < ModelRegistry::kMaxEvents; ++i) {
    evict(registry, "b");
    load(registry, "b");
  }
  CHECK_EQ(registry.events(0).size(), ModelRegistry::kMaxEvents);
  CHECK(registry.events(0).back().has_returned);
}

TEST(model_registry, a_file_that_is_not_there_is_said_to_be_missing_whoever_has_the_id) {
  ModelRegistry registry;
  load(registry, "a");
  const Status status = registry.claim_load("a", options_of("/none/of/these.gguf")).status();
  CHECK_EQ(status.code(), StatusCode::kFileNotFound);
}

TEST(model_registry, a_model_that_generates_is_active_rather_than_one_that_embeds) {
  ModelRegistry registry;
  load_embedder(registry, "e1");
  CHECK_EQ(registry.active(), "e1");
  load_embedder(registry, "e0");
  CHECK_EQ(registry.active(), "e1");
  load(registry, "b");
  CHECK_EQ(registry.active(), "b");
  load(registry, "z");
  evict(registry, "z");
  unload(registry, "b");
  CHECK_EQ(registry.active(), "z");  // though it has to come back
  unload(registry, "z");
  CHECK_EQ(registry.active(), "e0");
  load(registry, "a");
  CHECK_EQ(registry.active(), "a");
}

TEST(model_registry, a_switch_to_a_model_that_embeds_holds_until_that_is_unloaded) {
  ModelRegistry registry;
  load(registry, "a");
  load_embedder(registry, "e1");
  load_embedder(registry, "e2");
  CHECK(registry.set_active("e1").ok());
  load(registry, "b");
  CHECK_EQ(registry.active(), "e1");
  unload(registry, "a");
  unload(registry, "b");
  unload(registry, "e1");
  CHECK_EQ(registry.active(), "e2");
  load(registry, "a");
  CHECK_EQ(registry.active(), "a");
}

TEST(model_registry, an_id_being_unloaded_is_gone_for_requests_and_taken_for_loads) {
  ModelRegistry registry;
  load(registry, "a");
  const Lease lease = registry.find("a").value();
  CHECK(registry.begin_remove("a").value() == lease);
  CHECK_EQ(lease.use_count(), 1);
  CHECK_EQ(registry.claim_use("a").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.begin_remove("a").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(charged_bytes(registry.holdings()), 110);  // until its memory is free
  auto next = std::async(std::launch::async,
                         [&] { return registry.claim_load("a", options_of("new")); });
  CHECK(next.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  registry.end_remove("a");
  CHECK_EQ(next.get().value().options.path, "/models/new");
}

TEST(model_registry, an_evicted_model_stays_known_with_its_options_and_counters) {
  ModelRegistry registry;
  ModelOptions options = options_of("a");
  options.gpu_layers = 3;
  load(registry, "a", options);
  auto outputs = std::make_shared<OutputQueue>();
  const auto scheduler = registry.schedulers()[0];
  CHECK(scheduler->submit(make_sequence(1, "x", 4, outputs)).ok());
  scheduler->abort_all({StatusCode::kClosed, "closed"});
  evict(registry, "a");
  CHECK_EQ(registry.info("a").value().state, "evicted");
  CHECK(registry.infos()[0].active);
  CHECK_EQ(charged_bytes(registry.holdings()), 0);
  CHECK_EQ(registry.find("a").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.stats()[0].num_requests, 1);
  auto claim = registry.claim_use("");
  REQUIRE(claim.ok() && claim.value().ticket != nullptr);
  CHECK_EQ(claim.value().options.gpu_layers, 3);
  CHECK(claim.value().last.has_value());
  CHECK_EQ(registry.info("a").value().state, "loading");
  registry.end_load("a", *claim.value().ticket, make_model("a"));
  const ModelStats stats = registry.stats()[0];
  CHECK_EQ(stats.num_requests, 1);
  CHECK_EQ(stats.num_loads, 2);
  CHECK_EQ(stats.num_evictions, 1);
  CHECK(stats.resident);
}

TEST(model_registry, a_model_that_fails_to_come_back_stays_known) {
  ModelRegistry registry;
  load(registry, "a");
  evict(registry, "a");
  auto claim = registry.claim_use("a");
  registry.end_load("a", *claim.value().ticket, Status(StatusCode::kOutOfMemory, "no"));
  CHECK_EQ(registry.info("a").value().state, "evicted");
  CHECK(registry.claim_use("a").value().ticket != nullptr);
}

TEST(model_registry, leases_requests_and_pins_keep_a_model_from_eviction) {
  ModelRegistry registry;
  load(registry, "a");
  {
    const Lease lease = registry.find("a").value();
    CHECK(!registry.begin_eviction({"a"}, Victims::kIdle));
    CHECK(registry.holdings()[0].in_use);
  }
  CHECK(registry.set_pinned("a", true).ok());
  CHECK(!registry.begin_eviction({"a"}, Victims::kIdleAndBusy));
  CHECK(registry.set_pinned("a", false).ok());
  const auto scheduler = registry.schedulers()[0];
  auto outputs = std::make_shared<OutputQueue>();
  CHECK(scheduler->submit(make_sequence(1, "x", 4, outputs)).ok());
  CHECK(!registry.begin_eviction({"a"}, Victims::kIdle));
  CHECK(!registry.begin_eviction({"a", "nobody"}, Victims::kIdleAndBusy));
  const auto eviction = registry.begin_eviction({"a"}, Victims::kIdleAndBusy);
  REQUIRE(eviction.has_value());
  const auto soon = ModelRegistry::Clock::now() + std::chrono::milliseconds(30);
  CHECK(registry.take_idle("a", *eviction, soon, kNeverCancelled) == nullptr);
  CHECK_EQ(registry.info("a").value().state, "resident");
  scheduler->abort_all({StatusCode::kClosed, "closed"});
  evict(registry, "a");
}

TEST(model_registry, a_pin_ends_the_eviction_that_waits_for_the_models_requests) {
  ModelRegistry registry;
  load(registry, "a");
  const auto scheduler = registry.schedulers()[0];
  const auto eviction = evict_busy(registry, {"a"});
  CHECK(registry.set_pinned("a", true).ok());
  scheduler->abort_all({StatusCode::kClosed, "closed"});
  CHECK(registry.take_idle("a", eviction, testing::far_deadline(), kNeverCancelled) == nullptr);
  CHECK_EQ(registry.info("a").value().state, "resident");
}

TEST(model_registry, new_requests_wait_while_a_model_drains) {
  ModelRegistry registry;
  load(registry, "a");
  const auto scheduler = registry.schedulers()[0];
  const auto eviction = evict_busy(registry, {"a"});
  auto taken = std::async(std::launch::async, [&] {
    return registry.take_idle("a", eviction, testing::far_deadline(), kNeverCancelled);
  });
  auto request = std::async(std::launch::async, [&] { return registry.claim_use("a"); });
  CHECK(request.wait_for(std::chrono::milliseconds(50)) == std::future_status::timeout);
  scheduler->abort_all({StatusCode::kClosed, "closed"});
  CHECK(taken.get() != nullptr);
  registry.end_eviction("a");
  CHECK(request.get().value().ticket != nullptr);  // it is to be loaded again
}

TEST(model_registry, reservations_respect_the_budget) {
  ModelRegistry registry;
  load(registry, "a");  // 110 bytes
  auto claim = registry.claim_load("b", options_of("b"));
  CHECK(!registry.reserve("b", {"/models/b", 100, 20}, {200, 0, 0}));
  CHECK_EQ(charged_bytes(registry.holdings()), 110);
  CHECK(registry.reserve("b", {"/models/a", 100, 20}, {200, 0, 0}));  // a's weights
  CHECK_EQ(charged_bytes(registry.holdings()), 130);
  CHECK(!registry.reserve("b", {"/models/a", 100, 20}, {200, 50, 21}));
  registry.end_load("b", *claim.value().ticket, Status(StatusCode::kClosed, "no"));
  CHECK_EQ(charged_bytes(registry.holdings()), 110);
}

TEST(model_registry, keep_alive_expires_idle_models_only) {
  ModelRegistry registry;
  load(registry, "engine");
  ModelOptions own = options_of("own");
  own.keep_alive_s = 100.0;
  load(registry, "own", own);
  own = options_of("forever");
  own.keep_alive_s = 0.0;
  load(registry, "forever", own);
  load(registry, "pinned");
  CHECK(registry.set_pinned("pinned", true).ok());
  const auto now = ModelRegistry::Clock::now();
  using Ids = std::vector<std::string>;
  CHECK_EQ(registry.expired(now + std::chrono::seconds(50), 10.0), Ids{"engine"});
  CHECK_EQ(registry.expired(now + std::chrono::seconds(500), 0.0), Ids{"own"});
  CHECK(*registry.next_expiry(now, 10.0) <= now + std::chrono::seconds(10));
  const Lease lease = registry.find("engine").value();
  // In use: its time starts anew.
  CHECK_EQ(registry.expired(now + std::chrono::seconds(50), 10.0), Ids{});
  const auto later = now + std::chrono::seconds(50);
  CHECK(registry.next_expiry(later, 10.0) == later + std::chrono::seconds(10));
}

TEST(model_registry, keep_alive_counts_from_the_end_of_the_last_use) {
  ModelRegistry registry;
  load(registry, "a");
  load(registry, "b");
  const auto started = ModelRegistry::Clock::now();
  const auto scheduler = registry.find("a").value()->scheduler;
  auto outputs = std::make_shared<OutputQueue>();
  CHECK(scheduler->submit(make_sequence(1, "x", 4, outputs)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  const auto ended = ModelRegistry::Clock::now();
  scheduler->abort_all({StatusCode::kClosed, "closed"});
  using Ids = std::vector<std::string>;
  CHECK_EQ(registry.expired(started + std::chrono::milliseconds(1040), 1.0), Ids{"b"});
  CHECK(*registry.next_expiry(ended, 1.0) < ended + std::chrono::seconds(1));  // b's
  CHECK(registry.holdings()[0].idle_s < registry.holdings()[1].idle_s);
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  const auto embedded = ModelRegistry::Clock::now();
  scheduler->embed_counts().note_ended();
  CHECK_EQ(registry.expired(embedded + std::chrono::milliseconds(990), 1.0), Ids{"b"});
}

}  // namespace
}  // namespace snapllm
