// Residency over a backend that loads nothing.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "check.h"
#include "fake_backend.h"
#include "registry/residency.h"

namespace snapllm::testing {

inline constexpr uint64_t kWeightsBytes = 1000;
inline constexpr uint64_t kOwnBytes = 100;
inline constexpr uint64_t kModelBytes = kWeightsBytes + kOwnBytes;
inline constexpr int32_t kEndless = 40'000;  // tokens that no test waits for

inline uint64_t weights_of(const std::string& path) {
  return path == "/large" ? kWeightsBytes + kModelBytes : kWeightsBytes;
}

// Models of one size, but for a large one, which takes the room of two; counts what is in memory.
class SizedBackend : public TextBackend {
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
    const auto give_up = far_deadline();
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
    {
      std::lock_guard lock(intact_mutex_);
      intact_[options.path] = std::make_shared<std::atomic<bool>>(true);
    }
    std::shared_ptr<FakeTextModel> model(new FakeTextModel(info, 2048, 512),
                                         [num_alive](FakeTextModel* gone) {
                                           delete gone;
                                           --*num_alive;
                                         });
    model->intact = intact(options.path);
    auto context = std::make_unique<FakeTextContext>(model);
    context->script("x", std::vector<Token>(kEndless, 'y'));
    return LoadedModel{model, std::move(context)};
  }
  uint64_t available_bytes() const override { return available; }
  // Of the last load of that file: whether it still is what was loaded.
  std::shared_ptr<std::atomic<bool>> intact(const std::string& path) {
    std::lock_guard lock(intact_mutex_);
    return intact_.at(path);
  }
  int num_alive() const { return *num_alive_; }

  int max_alive = 1000;
  std::atomic<int> num_loads{0};
  std::atomic<uint64_t> available{uint64_t{1} << 40};

 private:
  std::mutex intact_mutex_;
  std::map<std::string, std::shared_ptr<std::atomic<bool>>> intact_;
  std::shared_ptr<std::atomic<int>> num_alive_ = std::make_shared<std::atomic<int>>(0);
};

struct ResidencyFixture {
  explicit ResidencyFixture(size_t max_models, double keep_alive_s = 0.0)
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
  ~ResidencyFixture() { residency.close(); }

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

  SizedBackend backend;
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

}  // namespace snapllm::testing
