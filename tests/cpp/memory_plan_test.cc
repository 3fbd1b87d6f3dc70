#include "backend/memory_plan.h"

#include "check.h"

namespace snapllm {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

GgufHeader small_model(int32_t train_context = 8192) {
  GgufHeader header;
  header.file_bytes = 100 * kMiB;
  header.train_context_size = train_context;
  header.kv_elements_per_token = 1024;  // 2 KiB a token as f16
  return header;
}

TEST(memory_plan, with_room_the_context_is_what_the_model_was_trained_for) {
  const auto plan = plan_memory(small_model(), {}, 64 * kGiB);
  REQUIRE(plan.ok());
  CHECK_EQ(plan.value().context_size, 8192);
  CHECK_EQ(plan.value().kv_cells, 16384);
  CHECK_EQ(plan.value().kv_bytes, uint64_t{16384} * 2048);
  CHECK_EQ(plan.value().weights_bytes, 100 * kMiB);
  CHECK(plan.value().total_bytes >= plan.value().weights_bytes + plan.value().kv_bytes);
}

TEST(memory_plan, the_states_of_each_sequence_are_part_of_what_a_model_needs) {
  GgufHeader header = small_model();
  header.state_bytes = 20 * kMiB;
  ModelOptions options;
  options.context_size = 512;
  options.max_sequences = 4;
  const auto bytes = [&](const GgufHeader& model) {
    return plan_memory(model, options, 64 * kGiB).value().total_bytes;
  };
  CHECK_EQ(bytes(header) - bytes(small_model()), 6 * 20 * kMiB);
  options.max_sequences = 64;
  CHECK_EQ(bytes(header) - bytes(small_model()), 10 * 20 * kMiB);
  const Status refused = plan_memory(header, options, 300 * kMiB).status();
  CHECK_EQ(refused.code(), StatusCode::kOutOfMemory);
  CHECK(refused.message().find("states 210 MB") != std::string::npos);
  header.state_bytes = uint64_t{1} << 62;
  CHECK_EQ(plan_memory(header, options, 64 * kGiB).status().code(), StatusCode::kOutOfMemory);
}

TEST(memory_plan, automatic_sizes_shrink_with_the_memory_and_never_exceed_it) {
  int32_t last_context = 0;
  for (uint64_t max_bytes = 170 * kMiB; max_bytes < 3 * kGiB; max_bytes += 13 * kMiB) {
    const auto plan = plan_memory(small_model(131072), {}, max_bytes);
    REQUIRE(plan.ok());
    CHECK(plan.value().total_bytes <= max_bytes);
    CHECK(plan.value().context_size >= last_context);
    CHECK(plan.value().kv_cells >= plan.value().context_size);
    CHECK_EQ(plan.value().kv_cells % 256, 0);
    last_context = plan.value().context_size;
  }
  CHECK_EQ(last_context, 131072);
}

TEST(memory_plan, a_gpu_with_room_has_cells_for_more_conversations) {
  ModelOptions options;
  options.context_size = 2048;
  const auto cells = [&](uint64_t max_bytes, bool is_on_gpu) {
    const auto plan = plan_memory(small_model(), options, max_bytes, 0, is_on_gpu);
    return plan.ok() ? plan.value().kv_cells : 0;
  };
  CHECK_EQ(cells(64 * kGiB, false), 4 * 2048);
  CHECK_EQ(cells(64 * kGiB, true), options.max_sequences * 2048);
  CHECK_EQ(cells(300 * kMiB, true), 16384);
  options.context_size = 512;
  CHECK_EQ(cells(64 * kGiB, true), options.max_sequences * 512);
}

TEST(memory_plan, given_sizes_are_kept) {
  ModelOptions options;
  options.context_size = 1000;
  options.kv_cells = 5000;
  const auto plan = plan_memory(small_model(), options, 64 * kGiB);
  REQUIRE(plan.ok());
  CHECK_EQ(plan.value().context_size, 1000);
  CHECK_EQ(plan.value().kv_cells, 5120);
}

TEST(memory_plan, context_never_exceeds_the_given_cells) {
  ModelOptions options;
  options.kv_cells = 2048;
  const auto plan = plan_memory(small_model(), options, 64 * kGiB);
  REQUIRE(plan.ok());
  CHECK_EQ(plan.value().context_size, 2048);
  CHECK_EQ(plan.value().kv_cells, 2048);
}

TEST(memory_plan, what_does_not_fit_is_refused_by_name) {
  ModelOptions options;
  options.context_size = 1 << 20;
  const auto too_long = plan_memory(small_model(), options, kGiB);
  REQUIRE(!too_long.ok());
  CHECK_EQ(too_long.status().code(), StatusCode::kOutOfMemory);
  CHECK(too_long.status().message().find("1048576 tokens") != std::string::npos);
  CHECK_EQ(plan_memory(small_model(), {}, 100 * kMiB).status().code(), StatusCode::kOutOfMemory);
  CHECK_EQ(plan_memory(small_model(), {}, 0).status().code(), StatusCode::kOutOfMemory);
}

TEST(memory_plan, kv_type_scales_the_bytes) {
  CHECK_EQ(kv_element_bytes("f32"), 4.0);
  CHECK_EQ(kv_element_bytes("f16"), 2.0);
  CHECK_EQ(kv_element_bytes("q8_0"), 34.0 / 32.0);
  CHECK_EQ(kv_element_bytes("q4_1000"), 0.0);
  ModelOptions options;
  options.kv_type = "f32";
  const auto plan = plan_memory(small_model(), options, 64 * kGiB);
  REQUIRE(plan.ok());
  CHECK_EQ(plan.value().kv_bytes, uint64_t{16384} * 4096);
}

TEST(memory_plan, model_without_kv_memory_or_known_context_gets_a_plan) {
  GgufHeader header = small_model(0);
  header.kv_elements_per_token = 0;
  const auto plan = plan_memory(header, {}, kGiB);
  REQUIRE(plan.ok());
  CHECK_EQ(plan.value().context_size, 4096);
  CHECK_EQ(plan.value().kv_bytes, 0);
}

TEST(memory_plan, absurd_train_context_does_not_overflow) {
  GgufHeader header = small_model(INT32_MAX);
  header.kv_elements_per_token = 0;
  const auto plan = plan_memory(header, {}, kGiB);
  REQUIRE(plan.ok());
  CHECK(plan.value().context_size > 0);
  CHECK(plan.value().kv_cells >= plan.value().context_size);
}

}  // namespace
}  // namespace snapllm
