#include "prefix_service.h"

#include "check.h"
#include "fake_backend.h"
#include "kv_store_fixture.h"

namespace snapllm::testing {

TEST(prefix_service, what_is_written_ends_with_the_engine) {
  ModelRegistry registry;
  Fixture disk;
  const Tokens tokens = tokens_of(1, 300);
  const auto model = std::make_shared<FakeTextModel>(fake_info(), 2048, 512);
  const PrefixRef prefix{.model_id = "fake",
                         .fingerprint = model->fingerprint().hex(),
                         .kv_kind = "blocks",
                         .cache_namespace = "",
                         .tokens = tokens};
  ComputeThread compute;
  std::atomic<bool> has_ended{true};
  PrefixService prefixes(*disk.store, registry, compute, has_ended);
  CHECK_EQ(prefixes.write(prefix, std::vector<StateBytes>(2)).code(), StatusCode::kClosed);
  CHECK_EQ(disk.store->stats().num_stored, 0);
}

TEST(prefix_service, a_model_is_in_use_while_its_prefix_is_read_from_disk) {
  const auto model = std::make_shared<FakeTextModel>(fake_info(), 2048, 512);
  auto resident = std::make_shared<ResidentModel>();
  resident->model = model;
  resident->info = model->info();
  resident->charge = {"/m", 100, 10};
  resident->scheduler = std::make_shared<Scheduler>(
      LoadedModel{model, std::make_unique<FakeTextContext>(model)}, 8);
  ModelRegistry registry;
  const auto claim = registry.claim_load("fake", {});
  registry.end_load("fake", *claim.value().ticket, ModelRegistry::Lease(std::move(resident)));

  Fixture disk;
  KvStore& store = *disk.store;
  store.open(model->fingerprint());
  const Tokens tokens = tokens_of(1, 300);
  const PrefixRef prefix{.model_id = "fake",
                         .fingerprint = model->fingerprint().hex(),
                         .kv_kind = "blocks",
                         .cache_namespace = "",
                         .tokens = tokens};
  const StoreScope scope = snapllm::scope_of(prefix).value();
  disk.save(tokens, scope);
  REQUIRE(store.persist(scope, tokens).ok());
  REQUIRE(store.drop_from_ram(scope, tokens).ok());

  ComputeThread compute;
  const std::atomic<bool> has_ended{false};
  PrefixService prefixes(store, registry, compute, has_ended);
  int num_reads = 0;
  disk.disk->before_read = [&] {
    ++num_reads;
    CHECK(registry.holdings()[0].in_use);
    CHECK(!registry.begin_eviction({"fake"}, Victims::kIdle));
  };
  CHECK(prefixes.move(prefix, Tier::kWarm, {}).ok());
  disk.disk->before_read = nullptr;
  CHECK(num_reads > 0);
  CHECK(!registry.holdings()[0].in_use);
}

}  // namespace snapllm::testing
