#include "registry/model_registry.h"

#include "check.h"

namespace snapllm {
namespace {

ModelRegistry::Lease make_model(const std::string& id, uint64_t weights_bytes = 0) {
  auto model = std::make_shared<ResidentModel>();
  model->info.id = id;
  model->info.path = "/models/" + id;
  model->info.weights_bytes = weights_bytes;
  model->info.kv_bytes = weights_bytes / 10;
  return model;
}

void load(ModelRegistry& registry, const ModelRegistry::Lease& model) {
  auto claim = registry.begin_load(model->info.id, model->info.path);
  REQUIRE(claim.ok() && claim.value() == nullptr);
  registry.end_load(model->info.id, model);
}

TEST(model_registry, first_model_becomes_active_and_later_ones_do_not) {
  ModelRegistry registry;
  CHECK_EQ(registry.active(), "");
  const auto b = make_model("b");
  load(registry, b);
  load(registry, make_model("a"));
  CHECK_EQ(registry.active(), "b");
  REQUIRE(registry.find("").ok());
  CHECK(registry.find("").value() == b);
  CHECK_EQ(registry.find("a").value()->info.id, "a");
  CHECK_EQ(registry.all().size(), 2);
}

TEST(model_registry, unknown_models_are_not_found) {
  ModelRegistry registry;
  CHECK_EQ(registry.find("").status().code(), StatusCode::kModelNotFound);
  load(registry, make_model("a"));
  CHECK_EQ(registry.find("b").status().code(), StatusCode::kModelNotFound);
  CHECK(registry.find("b").status().message().find("b") != std::string::npos);
  CHECK_EQ(registry.set_active("b").code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.remove("b").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.active(), "a");
}

TEST(model_registry, switch_changes_the_default) {
  ModelRegistry registry;
  load(registry, make_model("a"));
  load(registry, make_model("b"));
  CHECK(registry.set_active("b").ok());
  CHECK_EQ(registry.find("").value()->info.id, "b");
}

TEST(model_registry, id_is_claimed_while_it_loads) {
  ModelRegistry registry;
  REQUIRE(registry.begin_load("a", "/models/a").ok());
  CHECK_EQ(registry.begin_load("a", "/models/a").status().code(), StatusCode::kInvalidRequest);
  CHECK(registry.begin_load("b", "/models/b").ok());
  CHECK_EQ(registry.find("a").status().code(), StatusCode::kModelNotFound);
  CHECK_EQ(registry.remove("a").status().code(), StatusCode::kModelNotFound);
}

TEST(model_registry, failed_load_frees_the_id) {
  ModelRegistry registry;
  REQUIRE(registry.begin_load("a", "/models/a").ok());
  registry.end_load("a", nullptr);
  CHECK_EQ(registry.active(), "");
  CHECK(registry.all().empty());
  CHECK(registry.begin_load("a", "/models/other").ok());
}

TEST(model_registry, second_load_of_the_same_file_returns_the_resident_model) {
  ModelRegistry registry;
  const auto a = make_model("a");
  load(registry, a);
  auto again = registry.begin_load("a", "/models/a");
  REQUIRE(again.ok());
  CHECK(again.value() == a);
  CHECK_EQ(registry.begin_load("a", "/models/x").status().code(), StatusCode::kInvalidRequest);
  CHECK_EQ(registry.begin_load("", "/models/x").status().code(), StatusCode::kInvalidRequest);
}

TEST(model_registry, removing_the_active_model_passes_the_role_on) {
  ModelRegistry registry;
  load(registry, make_model("a"));
  load(registry, make_model("b"));
  CHECK(registry.remove("a").ok());
  CHECK_EQ(registry.active(), "b");
  CHECK(registry.remove("b").ok());
  CHECK_EQ(registry.active(), "");
  load(registry, make_model("c"));
  CHECK_EQ(registry.active(), "c");
}

TEST(model_registry, lease_outlives_the_removal) {
  ModelRegistry registry;
  load(registry, make_model("a"));
  const ModelRegistry::Lease lease = registry.find("a").value();
  CHECK(registry.remove("a").ok());
  CHECK_EQ(lease.use_count(), 1);
  CHECK_EQ(lease->info.id, "a");
}

TEST(model_registry, bytes_of_resident_models_add_up) {
  ModelRegistry registry;
  CHECK_EQ(registry.resident_bytes(), 0);
  load(registry, make_model("a", 100));
  load(registry, make_model("b", 1000));
  CHECK_EQ(registry.resident_bytes(), 110 + 1100);
  CHECK(registry.remove("b").ok());
  CHECK_EQ(registry.resident_bytes(), 110);
}

}  // namespace
}  // namespace snapllm
