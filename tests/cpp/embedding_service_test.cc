#include "embedding_service.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

#include "check.h"
#include "fake_backend.h"

namespace snapllm::testing {
namespace {

struct Fixture {
  Fixture() {
    ModelInfo info = fake_info();
    info.embedding_size = 2;
    model = std::make_shared<FakeTextModel>(info, 64, 64);
    context = new FakeTextContext(model);
    scheduler = std::make_unique<Scheduler>(
        LoadedModel{model, std::unique_ptr<TextContext>(context)}, 8);
  }
  Result<std::vector<Embedding>> run(std::vector<std::vector<Token>> inputs, int32_t dimensions = 0,
                                     Pooling pooling = Pooling::kAuto) {
    EmbedRequest request;
    request.inputs = std::move(inputs);
    request.dimensions = dimensions;
    request.pooling = pooling;
    return embed(compute, *model, *scheduler, request);
  }
  StatusCode refusal(std::vector<std::vector<Token>> inputs, int32_t dimensions = 0,
                     Pooling pooling = Pooling::kAuto) {
    auto result = run(std::move(inputs), dimensions, pooling);
    return result.ok() ? StatusCode::kOk : result.status().code();
  }

  std::shared_ptr<FakeTextModel> model;
  FakeTextContext* context = nullptr;  // owned by the scheduler
  std::unique_ptr<Scheduler> scheduler;
  ModelStats stats() const { return scheduler->stats(); }

  ComputeThread compute;
};

bool is_close(float a, double b) { return std::abs(a - b) < 1e-6; }

}  // namespace

TEST(embedding_service, vectors_have_length_one_and_the_inputs_order) {
  Fixture fixture;
  auto result = fixture.run({{4, 1, 1}, {0, 5}, {2, 2, 2, 2, 2}});
  REQUIRE(result.ok());
  const auto& vectors = result.value();
  REQUIRE(vectors.size() == 3);
  CHECK(is_close(vectors[0][0], 0.6));
  CHECK(is_close(vectors[0][1], 0.8));
  CHECK(is_close(vectors[1][0], 1.0));
  CHECK(is_close(vectors[2][0], 5 / std::sqrt(29.0)));
  // Two tokens a step: 2 + 1 + 3.
  CHECK_EQ(fixture.context->fake_embedder().num_steps(), 6);
}

TEST(embedding_service, fewer_dimensions_are_the_first_ones_normalised_again) {
  Fixture fixture;
  auto result = fixture.run({{4, 1, 1}}, 1);
  REQUIRE(result.ok());
  REQUIRE(result.value()[0].size() == 1);
  CHECK(is_close(result.value()[0][0], 1.0));
  CHECK_EQ(normalized({0, 0}, 0), Embedding({0, 0}));
}

TEST(embedding_service, what_cannot_be_embedded_is_refused_before_anything_is_computed) {
  Fixture fixture;
  CHECK_EQ(fixture.refusal({}), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({{1}, {}}), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({{1}, {-1}}), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({{258}}), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({std::vector<Token>(9, 1)}), StatusCode::kContextLengthExceeded);
  CHECK_EQ(fixture.refusal({{1}}, 3), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({{1}}, -1), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.refusal({{1}}, 0, Pooling::kLast), StatusCode::kInvalidRequest);
  CHECK_EQ(fixture.context->fake_embedder().num_steps(), 0);
}

TEST(embedding_service, a_failure_ends_the_job) {
  Fixture fixture;
  fixture.context->fake_embedder().fail({StatusCode::kGenerationFailed, "no"});
  CHECK_EQ(fixture.refusal({{1}, {2}}), StatusCode::kGenerationFailed);
  CHECK_EQ(fixture.context->fake_embedder().num_steps(), 1);
}

TEST(embedding_service, an_unload_ends_the_job_between_two_steps) {
  Fixture fixture;
  FakeEmbedder& embedder = fixture.context->fake_embedder();
  embedder.on_step = [&] {
    if (embedder.num_steps() == 2) fixture.scheduler->abort_all({StatusCode::kClosed, "unloaded"});
  };
  CHECK_EQ(fixture.refusal({{1}, {2}, {3}, {4}}), StatusCode::kClosed);
  CHECK_EQ(embedder.num_steps(), 2);
  CHECK_EQ(fixture.stats().num_failed, 4u);
  CHECK_EQ(fixture.refusal({{1}}), StatusCode::kClosed);
  CHECK_EQ(embedder.num_steps(), 2);
}

TEST(embedding_service, each_input_is_counted_as_a_request) {
  Fixture fixture;
  REQUIRE(fixture.run({{4, 1, 1}, {0, 5}}).ok());
  ModelStats stats = fixture.stats();
  CHECK_EQ(stats.num_requests, 2u);
  CHECK_EQ(stats.num_finished, 2u);
  CHECK_EQ(stats.num_embedded_tokens, 5u);
  CHECK_EQ(stats.queue_time.count, 2u);
  CHECK_EQ(stats.num_running + stats.num_waiting, 0);
  fixture.refusal({{1}, {}});
  CHECK_EQ(fixture.stats().num_requests, 2u);
  fixture.context->fake_embedder().fail({StatusCode::kGenerationFailed, "no"});
  fixture.refusal({{1}, {2}, {3}});
  stats = fixture.stats();
  CHECK_EQ(stats.num_requests, 5u);
  CHECK_EQ(stats.num_finished, 5u);
  CHECK_EQ(stats.num_failed, 3u);
  CHECK_EQ(stats.num_embedded_tokens, 5u);
}

TEST(embedding_service, inputs_wait_for_their_turn_and_then_run) {
  Fixture fixture;
  Embedder& embedder = *fixture.context->embedder().value();
  std::unique_lock turn(embedder.turn());
  std::thread job([&] { REQUIRE(fixture.run({{1}, {2}}).ok()); });
  while (fixture.stats().num_waiting == 0) std::this_thread::yield();
  CHECK_EQ(fixture.stats().num_waiting, 2);
  CHECK_EQ(fixture.stats().num_running, 0);
  std::mutex block;
  std::unique_lock blocked(block);
  std::atomic<bool> is_blocked{false};
  std::thread blocker([&] {
    fixture.compute.run([&] {
      is_blocked = true;
      std::lock_guard wait(block);
    });
  });
  while (!is_blocked) std::this_thread::yield();
  turn.unlock();
  while (fixture.stats().num_waiting > 0) std::this_thread::yield();
  CHECK_EQ(fixture.stats().num_running, 2);
  blocked.unlock();
  job.join();
  blocker.join();
  CHECK_EQ(fixture.stats().num_running, 0);
}

TEST(embedding_service, jobs_of_several_threads_do_not_mix) {
  Fixture fixture;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        auto result = fixture.run({std::vector<Token>(8, t), std::vector<Token>(3, t + 4)});
        REQUIRE(result.ok());
        CHECK(is_close(result.value()[0][0], 8 / std::hypot(8.0, t)));
        CHECK(is_close(result.value()[1][0], 3 / std::hypot(3.0, t + 4)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace snapllm::testing
