#include "snapllm/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <thread>
#include <utility>

#include "backend/llama_backend.h"
#include "base/machine.h"
#include "embedding_service.h"
#include "prefix_service.h"
#include "prompt_check.h"
#include "registry/model_registry.h"
#include "registry/residency.h"
#include "scheduler/compute_thread.h"
#include "scheduler/scheduler.h"
#include "store/store_options.h"

namespace snapllm {

namespace {

const Status kClosedStatus{StatusCode::kClosed, "the engine is closed"};

}  // namespace

class Engine::Impl {
 public:
  Impl(EngineOptions options, std::unique_ptr<FolderLock> workspace_lock);

  Result<uint64_t> submit(GenerateRequest request, std::shared_ptr<OutputQueue> outputs);
  Result<std::optional<uint64_t>> try_submit(const GenerateRequest& request,
                                             std::shared_ptr<OutputQueue> outputs);
  Result<std::vector<Embedding>> embed(const EmbedRequest& request);
  bool cancel(uint64_t request_id);
  bool drain(int64_t timeout_ms);
  void close();
  void abandon() {
    abandoned_ = true;
    closed_ = ended_ = true;
    residency_.stop_accepting();
    if (workspace_lock_ != nullptr) workspace_lock_->abandon();
  }

  Status switch_model(const std::string& model_id) {
    if (closed_) return kClosedStatus;
    Status status = registry_.set_active(model_id);
    if (status.ok()) num_switches_.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  Status check_open() const { return closed_ ? kClosedStatus : Status(); }
  // Whether this is a forked child: mutexes may be held for ever there.
  bool is_abandoned() const { return abandoned_; }
  // Held by what touches the workspace, which is another's once this engine has ended.
  Result<std::shared_lock<std::shared_mutex>> prefix_call() {
    if (ended_) return kClosedStatus;  // in a forked child the mutex may be held for ever
    std::shared_lock lock(prefix_calls_);
    if (ended_) return kClosedStatus;
    return lock;
  }
  Result<ModelRegistry::Lease> lease(const std::string& model_id, bool may_wait) {
    return may_wait ? residency_.acquire(model_id) : registry_.find(model_id);
  }
  ModelRegistry& registry() { return registry_; }
  Residency& residency() { return residency_; }
  PrefixService& prefixes() { return prefixes_; }
  EngineStats stats() const;

 private:
  Residency::Environment environment();
  Result<uint64_t> submit_to(const ResidentModel& resident, GenerateRequest request,
                             std::shared_ptr<OutputQueue> outputs, Reading reading);

  const EngineOptions options_;
  std::unique_ptr<FolderLock> workspace_lock_;  // null without a workspace, and once closed
  const std::unique_ptr<TextBackend> backend_;
  const std::unique_ptr<CalibrationFile> calibrations_;  // null without a workspace
  const std::shared_ptr<KvStore> store_;
  ModelRegistry registry_;
  std::atomic<uint64_t> next_request_id_{1};
  std::atomic<uint64_t> num_switches_{0};
  std::atomic<bool> closed_{false};  // nothing new is let in
  std::atomic<bool> ended_{false};   // by close or abandon
  std::atomic<bool> abandoned_{false};
  const std::shared_ptr<ComputeThread> compute_ = ComputeThread::shared();
  std::shared_mutex prefix_calls_;  // shared while one runs
  PrefixService prefixes_{*store_, registry_, *compute_, ended_};
  Residency residency_;
};

namespace {

std::unique_ptr<CalibrationFile> open_calibrations(const EngineOptions& options) {
  if (options.workspace.empty()) return nullptr;
  return std::make_unique<CalibrationFile>(options.workspace + "/calibration.txt",
                                           machine_description(), posix_file_env());
}

}  // namespace

Engine::Impl::Impl(EngineOptions options, std::unique_ptr<FolderLock> workspace_lock)
    : options_(std::move(options)),
      workspace_lock_(std::move(workspace_lock)),
      backend_(std::make_unique<LlamaBackend>(options_.num_threads)),
      calibrations_(open_calibrations(options_)),
      store_(std::make_shared<KvStore>(store_options(options_), posix_file_env())),
      residency_(*backend_, registry_, *compute_, calibrations_.get(), environment(),
                 {.budget_bytes = options_.memory_budget_bytes > 0 ? options_.memory_budget_bytes
                                                                   : backend_->available_bytes(),
                  .keep_alive_s = options_.keep_alive_s}) {}

Residency::Environment Engine::Impl::environment() {
  return {.make_scheduler =
              [this](LoadedModel loaded) {
                store_->open(loaded.model->fingerprint());
                return std::make_shared<Scheduler>(std::move(loaded), options_.max_queued_requests,
                                                   store_);
              },
          .snapshots =
              [this] {
                return SnapshotMemory{store_->ram_bytes(), store_->least_ram_bytes()};
              },
          .bound_snapshots = [this](uint64_t bytes) { store_->bound_ram(bytes); }};
}

namespace {

// Where the prompt's prefixes are in the store.
StoreScope scope_of(const TextModel& model, const GenerateRequest& request) {
  const Hash128 root = root_key(model.fingerprint(), model.kv_kind(), request.cache_namespace);
  return {model.fingerprint(), root, model.kv_kind()};
}

// Tokens of the prompt that need not be computed: the last one is, for what comes next.
int32_t num_reusable(const GenerateRequest& request) {
  return static_cast<int32_t>(request.prompt.size()) - !request.prefill_only;
}

}  // namespace

Result<std::optional<uint64_t>> Engine::Impl::try_submit(const GenerateRequest& request,
                                                         std::shared_ptr<OutputQueue> outputs) {
  if (closed_) return kClosedStatus;
  // Held until the request is queued, so that the model stays meanwhile.
  const auto lease = registry_.find(request.model_id);
  if (!lease.ok()) return std::optional<uint64_t>();
  const ResidentModel& resident = *lease.value();
  if (request.reuses_prefix() && store_->is_cold(scope_of(*resident.model, request), request.prompt,
                                                 num_reusable(request))) {
    return std::optional<uint64_t>();
  }
  auto request_id = submit_to(resident, request, std::move(outputs), Reading::kNone);
  if (!request_id.ok()) return request_id.status();
  return std::optional(request_id.value());
}

Result<uint64_t> Engine::Impl::submit(GenerateRequest request,
                                      std::shared_ptr<OutputQueue> outputs) {
  auto lease = residency_.acquire(request.model_id);
  if (!lease.ok()) return lease.status();
  // What is on disk only is read here, on the caller's thread, unless more requests wait than
  // RAM can hold the KV of: then when its turn comes.
  return submit_to(*lease.value(), std::move(request), std::move(outputs), Reading::kFitting);
}

Result<uint64_t> Engine::Impl::submit_to(const ResidentModel& resident, GenerateRequest request,
                                         std::shared_ptr<OutputQueue> outputs, Reading reading) {
  const TextModel& model = *resident.model;
  attach_media(request);
  if (Status status = check_prompt(request, model.info()); !status.ok()) return status;
  auto sampler = model.create_sampler(request.sampling, request.chat.get(), request.prompt);
  if (!sampler.ok()) return sampler.status();

  const int32_t room = model.info().context_size - static_cast<int32_t>(request.prompt.size());
  request.max_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  const StoreScope scope = scope_of(model, request);
  PrefixSource source;
  source.root = scope.root;
  if (request.reuses_prefix()) {
    source.prefetched = store_->match(scope, request.prompt, num_reusable(request), reading);
  }
  const uint64_t request_id = next_request_id_.fetch_add(1);
  auto sequence = std::make_unique<Sequence>(request_id, std::move(request),
                                             std::move(sampler).value(), std::move(outputs),
                                             std::move(source), model.info().draft_tokens);
  if (Status status = resident.scheduler->submit(std::move(sequence)); !status.ok()) {
    return status;
  }
  compute_->notify();
  return request_id;
}

Result<std::vector<Embedding>> Engine::Impl::embed(const EmbedRequest& request) {
  auto lease = residency_.acquire_embedding(request.model_id);
  if (!lease.ok()) return lease.status();
  return snapllm::embed(*compute_, *lease.value()->model, *lease.value()->scheduler, request);
}

bool Engine::Impl::cancel(uint64_t request_id) {
  if (abandoned_) return false;
  for (const auto& scheduler : registry_.schedulers()) {
    if (scheduler->cancel(request_id)) {
      compute_->notify();
      return true;
    }
  }
  return false;
}

bool Engine::Impl::drain(int64_t timeout_ms) {
  if (abandoned_) return true;
  closed_ = true;
  return residency_.drain(std::chrono::steady_clock::now() +
                          std::chrono::milliseconds(timeout_ms));
}

void Engine::Impl::close() {
  closed_ = true;
  if (ended_.exchange(true)) return;
  residency_.close();
  residency_.set_external_holder({});
  const std::lock_guard no_prefix_call(prefix_calls_);
  store_->flush();
  store_->clear_ram();  // whoever holds the engine may go on holding it
  workspace_lock_.reset();
}

EngineStats Engine::Impl::stats() const {
  EngineStats stats;
  if (abandoned_) return stats;
  stats.num_switches = num_switches_.load(std::memory_order_relaxed);
  stats.kv_store = store_->stats();
  stats.memory = residency_.memory();
  stats.models = registry_.stats();
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

Engine::~Engine() { impl_->close(); }

Result<ModelInfo> Engine::load(const std::string& model_id, const ModelOptions& options) {
  auto lease = impl_->residency().load(model_id, options);
  if (!lease.ok()) return lease.status();
  auto info = impl_->registry().info(model_id);
  // Another thread may have unloaded it already; it was loaded all the same.
  return info.ok() ? std::move(info).value() : lease.value()->info;
}

Result<ModelStats> Engine::unload(const std::string& model_id) {
  return impl_->residency().unload(model_id);
}

Status Engine::switch_model(const std::string& model_id) { return impl_->switch_model(model_id); }

std::string Engine::active_model() const {
  return impl_->is_abandoned() ? std::string() : impl_->registry().active();
}

Status Engine::set_pinned(const std::string& model_id, bool pinned) {
  return impl_->residency().set_pinned(model_id, pinned);
}

Status Engine::ensure_resident(const std::string& model_id) {
  const auto lease = impl_->residency().acquire(model_id);
  return lease.ok() ? Status() : lease.status();
}

Status Engine::set_external_memory(const std::string& name, uint64_t bytes,
                                   const std::string& what) {
  return impl_->residency().set_external(name, bytes, what);
}

void Engine::set_external_holder(ExternalHolder holder) {
  impl_->residency().set_external_holder(std::move(holder));
}

Result<ModelInfo> Engine::model_info(const std::string& model_id) const {
  if (Status status = impl_->check_open(); !status.ok()) return status;
  return impl_->registry().info(model_id);
}

std::vector<ModelInfo> Engine::models() const {
  return impl_->is_abandoned() ? std::vector<ModelInfo>() : impl_->registry().infos();
}

EngineStats Engine::stats() const { return impl_->stats(); }

std::vector<ResidencyEvent> Engine::residency_events(uint64_t after) const {
  return impl_->is_abandoned() ? std::vector<ResidencyEvent>() : impl_->registry().events(after);
}

Result<std::vector<Token>> Engine::tokenize(const std::string& model_id, const std::string& text,
                                            bool add_special, bool parse_special,
                                            bool may_wait) const {
  const auto lease = impl_->lease(model_id, may_wait);
  if (!lease.ok()) return lease.status();
  return lease.value()->model->tokenize(text, add_special, parse_special);
}

Result<std::vector<Token>> Engine::tokenize_infill(const std::string& model_id,
                                                   const std::string& prefix,
                                                   const std::string& suffix,
                                                   bool may_wait) const {
  const auto lease = impl_->lease(model_id, may_wait);
  if (!lease.ok()) return lease.status();
  return lease.value()->model->tokenize_infill(prefix, suffix);
}

Result<std::string> Engine::detokenize(const std::string& model_id,
                                       const std::vector<Token>& tokens, bool special,
                                       bool may_wait) const {
  const auto lease = impl_->lease(model_id, may_wait);
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
    const std::string& model_id, const ChatFormatRequest& request, bool may_wait) const {
  const auto lease = impl_->lease(model_id, may_wait);
  if (!lease.ok()) return lease.status();
  return lease.value()->model->format_chat(request);
}

Result<uint64_t> Engine::submit(GenerateRequest request, std::shared_ptr<OutputQueue> outputs) {
  return impl_->submit(std::move(request), std::move(outputs));
}

Result<std::optional<uint64_t>> Engine::try_submit(const GenerateRequest& request,
                                                   std::shared_ptr<OutputQueue> outputs) {
  return impl_->try_submit(request, std::move(outputs));
}

Result<PrefixInfo> Engine::prefix_info(const PrefixRef& prefix) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().info(prefix) : call.status();
}

Status Engine::pin_prefix(const PrefixRef& prefix) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().pin(prefix) : call.status();
}

Status Engine::persist_prefix(const PrefixRef& prefix) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().persist(prefix) : call.status();
}

Status Engine::discard_prefix(const PrefixRef& prefix, const std::vector<PrefixRef>& others) {
  if (Status status = impl_->check_open(); !status.ok()) return status;
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().discard(prefix, others) : call.status();
}

Status Engine::make_disk_room(uint64_t bytes) {
  const auto call = impl_->prefix_call();
  if (!call.ok()) return call.status();
  impl_->prefixes().make_disk_room(bytes);
  return {};
}

Result<PrefixInfo> Engine::prefix_usage(const std::vector<PrefixRef>& prefixes,
                                        const std::vector<Tier>& tiers) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().usage(prefixes, tiers) : call.status();
}

Result<PrefixStates> Engine::read_prefix(const PrefixRef& prefix) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().read(prefix) : call.status();
}

Status Engine::write_prefix(const PrefixRef& prefix, std::vector<StateBytes> states) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().write(prefix, std::move(states)) : call.status();
}

Status Engine::move_prefix(const PrefixRef& prefix, Tier tier,
                           const std::vector<PrefixRef>& others) {
  const auto call = impl_->prefix_call();
  return call.ok() ? impl_->prefixes().move(prefix, tier, others) : call.status();
}

Result<std::vector<Embedding>> Engine::embed(const EmbedRequest& request) {
  return impl_->embed(request);
}

bool Engine::cancel(uint64_t request_id) { return impl_->cancel(request_id); }

bool Engine::drain(int64_t timeout_ms) { return impl_->drain(timeout_ms); }

void Engine::close() { impl_->close(); }

void Engine::abandon() { impl_->abandon(); }

}  // namespace snapllm
