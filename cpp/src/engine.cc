#include "snapllm/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "backend/llama_backend.h"
#include "base/machine.h"
#include "embedding_service.h"
#include "prefix_service.h"
#include "registry/model_registry.h"
#include "scheduler/compute_thread.h"
#include "scheduler/scheduler.h"

namespace snapllm {

using Lease = ModelRegistry::Lease;

namespace {

const Status kClosedStatus{StatusCode::kClosed, "the engine is closed"};

// Automatic bounds of the KV store.
constexpr uint64_t kMaxAutoRamBytes = uint64_t{8} << 30;
constexpr uint64_t kRamDivisor = 8;  // of the memory that is free
constexpr uint64_t kAutoDiskBytes = uint64_t{20} << 30;
constexpr uint64_t kDiskDivisor = 4;  // of the space that is free

KvStoreOptions store_options(const EngineOptions& options) {
  KvStoreOptions store;
  store.ram_bytes = options.kv_ram_bytes > 0
                        ? options.kv_ram_bytes
                        : std::min(available_memory_bytes() / kRamDivisor, kMaxAutoRamBytes);
  if (options.workspace.empty()) return store;
  store.folder = options.workspace + "/kv";
  store.disk_bytes = options.kv_disk_bytes;
  if (store.disk_bytes == 0) {
    std::error_code error;
    const auto space = std::filesystem::space(options.workspace, error);
    store.disk_bytes = error ? kAutoDiskBytes : std::min<uint64_t>(kAutoDiskBytes, space.available / kDiskDivisor);
  }
  return store;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(EngineOptions options, std::unique_ptr<FolderLock> workspace_lock)
      : options_(options),
        workspace_lock_(std::move(workspace_lock)),
        backend_(std::make_unique<LlamaBackend>(options.num_threads)),
        store_(std::make_shared<KvStore>(store_options(options), posix_file_env())) {}

  Result<ModelInfo> load(const std::string& model_id, const ModelOptions& options);
  Status unload(const std::string& model_id);
  Result<uint64_t> submit(GenerateRequest request, std::shared_ptr<OutputQueue> outputs);
  Result<std::vector<Embedding>> embed(const EmbedRequest& request);
  bool cancel(uint64_t request_id);
  void close(int64_t drain_timeout_ms);

  Status switch_model(const std::string& model_id) {
    if (closed_) return kClosedStatus;
    Status status = registry_.set_active(model_id);
    if (status.ok()) num_switches_.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  ModelInfo info_of(const Lease& lease) const {
    ModelInfo info = lease->info;
    info.active = registry_.active() == info.id;
    return info;
  }
  Result<Lease> find(const std::string& model_id) const;
  const ModelRegistry& registry() const { return registry_; }
  PrefixService& prefixes() { return prefixes_; }
  EngineStats stats() const;

 private:
  Result<Lease> make_resident(const std::string& model_id, const ModelOptions& options);
  void drop(const Lease& lease, const Status& reason);
  uint64_t free_bytes() const;

  const EngineOptions options_;
  std::unique_ptr<FolderLock> workspace_lock_;  // null without a workspace, and once closed
  const std::unique_ptr<TextBackend> backend_;
  const std::shared_ptr<KvStore> store_;
  ModelRegistry registry_;
  std::atomic<uint64_t> next_request_id_{1};
  std::atomic<uint64_t> num_switches_{0};
  std::atomic<bool> closed_{false};
  ComputeThread compute_;  // after the models: it stops before they go
  PrefixService prefixes_{*store_, registry_, compute_};
};

namespace {

Status check_prompt(const GenerateRequest& request, const ModelInfo& info) {
  if (!info.supports_generation) {
    return {StatusCode::kInvalidRequest,
            "model " + info.id + " is an embedding model: it cannot generate text"};
  }
  if (request.prompt.empty()) return {StatusCode::kInvalidRequest, "the prompt is empty"};
  if (request.max_tokens == 0 || request.max_tokens < -1) {
    return {StatusCode::kInvalidRequest, "max_tokens must be positive, or -1"};
  }
  const auto num_tokens = static_cast<int64_t>(request.prompt.size());
  if (num_tokens >= info.context_size) {
    return {StatusCode::kContextLengthExceeded,
            "the prompt has " + std::to_string(num_tokens) + " tokens, but the context of model " +
                info.id + " holds " + std::to_string(info.context_size) +
                " with at least one for the answer"};
  }
  for (const Token token : request.prompt) {
    if (token < 0 || token >= info.vocab_size) {
      return {StatusCode::kInvalidRequest,
              "token " + std::to_string(token) + " is not in the model's vocabulary"};
    }
  }
  return {};
}

int64_t unix_time_ms() {
  using std::chrono::duration_cast;
  return duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Result<Lease> Engine::Impl::find(const std::string& model_id) const {
  if (closed_) return kClosedStatus;
  return registry_.find(model_id);
}

uint64_t Engine::Impl::free_bytes() const {
  const uint64_t available = available_memory_bytes();
  if (options_.memory_budget_bytes == 0) return available;
  const uint64_t used = registry_.resident_bytes();
  const uint64_t budget = options_.memory_budget_bytes;
  return std::min(available, budget > used ? budget - used : 0);
}

Result<Lease> Engine::Impl::make_resident(const std::string& model_id,
                                          const ModelOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  auto loaded = backend_->load(model_id, options, free_bytes());
  if (!loaded.ok()) return loaded.status();
  auto resident = std::make_shared<ResidentModel>();
  resident->model = loaded.value().model;
  resident->info = resident->model->info();
  resident->scheduler =
      std::make_shared<Scheduler>(std::move(loaded).value(), options_.max_queued_requests, store_);
  store_->open(resident->model->fingerprint());
  TextContext& context = resident->scheduler->context();
  compute_.run([&] { context.calibrate(); });
  resident->info.num_threads = context.num_threads();
  resident->info.loaded_at_ms = unix_time_ms();
  resident->info.load_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return Lease(std::move(resident));
}

Result<ModelInfo> Engine::Impl::load(const std::string& model_id, const ModelOptions& options) {
  if (closed_) return kClosedStatus;
  auto claimed = registry_.begin_load(model_id, options.path);
  if (!claimed.ok()) return claimed.status();
  if (claimed.value() != nullptr) return info_of(claimed.value());
  auto resident = make_resident(model_id, options);
  if (!resident.ok()) {
    registry_.end_load(model_id, nullptr);
    return resident.status();
  }
  compute_.attach(resident.value()->scheduler);
  registry_.end_load(model_id, resident.value());
  return info_of(resident.value());
}

void Engine::Impl::drop(const Lease& lease, const Status& reason) {
  const auto& scheduler = lease->scheduler;
  scheduler->close();
  compute_.run([&] { scheduler->abort_all(reason); });
  compute_.detach(scheduler.get());
}

Status Engine::Impl::unload(const std::string& model_id) {
  if (closed_) return kClosedStatus;
  auto removed = registry_.remove(model_id);
  if (!removed.ok()) return removed.status();
  drop(removed.value(), {StatusCode::kClosed, "model " + model_id + " was unloaded"});
  return {};
}

Result<uint64_t> Engine::Impl::submit(GenerateRequest request,
                                      std::shared_ptr<OutputQueue> outputs) {
  auto lease = find(request.model_id);
  if (!lease.ok()) return lease.status();
  const TextModel& model = *lease.value()->model;
  if (Status status = check_prompt(request, model.info()); !status.ok()) return status;
  auto sampler = model.create_sampler(request.sampling, request.chat.get(), request.prompt);
  if (!sampler.ok()) return sampler.status();

  const int32_t room = model.info().context_size - static_cast<int32_t>(request.prompt.size());
  request.max_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  PrefixSource source;
  source.root = root_key(model.fingerprint(), request.cache_namespace);
  if (request.reuse_prefix) {
    // What is on disk only is read here, on the caller's thread.
    const StoreScope scope{model.fingerprint(), source.root, model.kv_kind()};
    const auto num_reusable = static_cast<int32_t>(request.prompt.size()) - !request.prefill_only;
    source.prefetched = store_->match(scope, request.prompt, num_reusable, /*load_cold=*/true);
  }
  const uint64_t request_id = next_request_id_.fetch_add(1);
  auto sequence = std::make_unique<Sequence>(request_id, std::move(request),
                                             std::move(sampler).value(), std::move(outputs),
                                             std::move(source));
  if (Status status = lease.value()->scheduler->submit(std::move(sequence)); !status.ok()) {
    return status;
  }
  compute_.notify();
  return request_id;
}

Result<std::vector<Embedding>> Engine::Impl::embed(const EmbedRequest& request) {
  auto lease = find(request.model_id);
  if (!lease.ok()) return lease.status();
  const ResidentModel& resident = *lease.value();
  return snapllm::embed(compute_, *resident.model, resident.scheduler->context(), request);
}

bool Engine::Impl::cancel(uint64_t request_id) {
  for (const Lease& lease : registry_.all()) {
    if (lease->scheduler->cancel(request_id)) {
      compute_.notify();
      return true;
    }
  }
  return false;
}

void Engine::Impl::close(int64_t drain_timeout_ms) {
  if (closed_.exchange(true)) return;
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(drain_timeout_ms);
  for (const Lease& lease : registry_.all()) {
    lease->scheduler->close();
    lease->scheduler->wait_idle(deadline);
  }
  for (const Lease& lease : registry_.all()) {
    if (registry_.remove(lease->info.id).ok()) drop(lease, {});
  }
  store_->flush();
  workspace_lock_.reset();
}

EngineStats Engine::Impl::stats() const {
  EngineStats stats;
  stats.num_switches = num_switches_.load(std::memory_order_relaxed);
  stats.kv_store = store_->stats();
  for (const Lease& lease : registry_.all()) stats.models.push_back(lease->scheduler->stats());
  return stats;
}

Result<std::unique_ptr<Engine>> Engine::create(EngineOptions options) {
  std::unique_ptr<FolderLock> lock;
  if (!options.workspace.empty()) {
    auto acquired = FolderLock::acquire(options.workspace);
    if (!acquired.ok()) return acquired.status();
    lock = std::move(acquired).value();
  }
  auto impl = std::make_unique<Impl>(std::move(options), std::move(lock));
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Engine::~Engine() { impl_->close(0); }

Result<ModelInfo> Engine::load(const std::string& model_id, const ModelOptions& options) {
  return impl_->load(model_id, options);
}

Status Engine::unload(const std::string& model_id) { return impl_->unload(model_id); }

Status Engine::switch_model(const std::string& model_id) { return impl_->switch_model(model_id); }

std::string Engine::active_model() const { return impl_->registry().active(); }

Result<ModelInfo> Engine::model_info(const std::string& model_id) const {
  auto lease = impl_->find(model_id);
  if (!lease.ok()) return lease.status();
  return impl_->info_of(lease.value());
}

std::vector<ModelInfo> Engine::models() const {
  std::vector<ModelInfo> infos;
  for (const Lease& lease : impl_->registry().all()) infos.push_back(impl_->info_of(lease));
  return infos;
}

EngineStats Engine::stats() const { return impl_->stats(); }

Result<std::vector<Token>> Engine::tokenize(const std::string& model_id, const std::string& text,
                                            bool add_special, bool parse_special) const {
  auto lease = impl_->find(model_id);
  if (!lease.ok()) return lease.status();
  return lease.value()->model->tokenize(text, add_special, parse_special);
}

Result<std::string> Engine::detokenize(const std::string& model_id,
                                       const std::vector<Token>& tokens, bool special) const {
  auto lease = impl_->find(model_id);
  if (!lease.ok()) return lease.status();
  const TextModel& model = *lease.value()->model;
  std::string bytes;
  for (const Token token : tokens) {
    if (token < 0 || token >= model.info().vocab_size) {
      return Status(StatusCode::kInvalidRequest,
                    "token " + std::to_string(token) + " is not in the model's vocabulary");
    }
    bytes += model.token_bytes(token, special);
  }
  return bytes;
}

Result<std::shared_ptr<const ChatPrompt>> Engine::format_chat(
    const std::string& model_id, const ChatFormatRequest& request) const {
  auto lease = impl_->find(model_id);
  if (!lease.ok()) return lease.status();
  return lease.value()->model->format_chat(request);
}

Result<uint64_t> Engine::submit(GenerateRequest request, std::shared_ptr<OutputQueue> outputs) {
  return impl_->submit(std::move(request), std::move(outputs));
}

Result<PrefixInfo> Engine::prefix_info(const PrefixRef& prefix) {
  return impl_->prefixes().info(prefix);
}

Status Engine::keep_prefix(const PrefixRef& prefix) { return impl_->prefixes().keep(prefix); }

Status Engine::pin_prefix(const PrefixRef& prefix) { return impl_->prefixes().pin(prefix); }

Status Engine::discard_prefix(const PrefixRef& prefix) {
  return impl_->prefixes().discard(prefix);
}

Status Engine::move_prefix(const PrefixRef& prefix, Tier tier) {
  return impl_->prefixes().move(prefix, tier);
}

Result<std::vector<Embedding>> Engine::embed(const EmbedRequest& request) {
  return impl_->embed(request);
}

bool Engine::cancel(uint64_t request_id) { return impl_->cancel(request_id); }

void Engine::close(int64_t drain_timeout_ms) { impl_->close(drain_timeout_ms); }

}  // namespace snapllm
