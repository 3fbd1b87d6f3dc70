#include "registry/residency.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/finally.h"
#include "base/guard.h"
#include "registry/room.h"

namespace snapllm {
namespace {

using Claim = ModelRegistry::Claim;

const Status kClosedStatus{StatusCode::kClosed, "the engine is closed"};
constexpr std::chrono::seconds kLeaseTimeout{10};
// For which a call may hold a model without a request of it.
constexpr std::chrono::seconds kCallTime{1};
// Between two looks at whether there is room by now.
constexpr std::chrono::milliseconds kPause{5};

int64_t unix_time_ms() {
  using std::chrono::duration_cast;
  return duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::chrono::nanoseconds to_duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(seconds));
}

bool is_same(const Result<RoomChoice>& one, const Result<RoomChoice>& other) {
  if (!one.ok() || !other.ok()) return one.ok() == other.ok();
  const MemoryPlan& a = one.value().plan;
  const MemoryPlan& b = other.value().plan;
  return a.context_size == b.context_size && a.kv_cells == b.kv_cells &&
         one.value().victims == other.value().victims;
}

}  // namespace

Residency::Residency(TextBackend& backend, ModelRegistry& registry, ComputeThread& compute,
                     CalibrationFile* calibrations, Environment environment,
                     ResidencyOptions options)
    : backend_(backend),
      registry_(registry),
      compute_(compute),
      calibrations_(calibrations),
      environment_(std::move(environment)),
      options_(options),
      watcher_([this] { watch_keep_alive(); }) {}

Residency::~Residency() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  watcher_.join();
}

Status Residency::unless_closed(Status status) const {
  return closed_ ? kClosedStatus : std::move(status);
}

Result<Residency::Lease> Residency::load(const std::string& model_id, const ModelOptions& options) {
  if (closed_) return kClosedStatus;
  auto claim = claim_intact([&] { return registry_.claim_load(model_id, options); });
  if (!claim.ok()) return unless_closed(claim.status());
  if (claim.value().model != nullptr) {
    wake_watcher();
    return claim.value().model;
  }
  return bring_in(model_id, std::move(claim).value(), Patience::kNone);
}

Result<Residency::Lease> Residency::acquire(const std::string& model_id) {
  if (closed_) return kClosedStatus;
  auto claim = claim_intact([&] { return registry_.claim_use(model_id); });
  if (!claim.ok()) return unless_closed(claim.status());
  if (claim.value().model != nullptr) return claim.value().model;
  const std::string id = claim.value().model_id;
  auto lease = bring_in(id, std::move(claim).value(), Patience::kWaitForBusy);
  if (lease.ok()) num_reloads_.fetch_add(1, std::memory_order_relaxed);
  return lease;
}

Result<Residency::Lease> Residency::acquire_embedding(const std::string& model_id) {
  const auto deadline = Clock::now() + to_duration(options_.max_wait_s);
  for (;; std::this_thread::sleep_for(kPause)) {
    // Not kept while it waits: two that wait for each other's room would wait for ever.
    const auto model = acquire(model_id);
    if (!model.ok()) return model.status();
    const uint64_t bytes = model.value()->scheduler->context().embedder_bytes();
    // Asked before: what ends in between can go.
    const bool may_free = bytes > 0 && may_free_external();
    Status status = make_embedder(model.value());
    if (status.ok()) return model;
    const bool may_wait = status.code() == StatusCode::kOutOfMemory && Clock::now() < deadline &&
                          may_get_room(model.value(), bytes, may_free);
    if (!may_wait) return status;
  }
}

Result<Claim> Residency::claim_intact(const std::function<Result<Claim>()>& claim) {
  for (;;) {
    auto claimed = claim();
    if (!claimed.ok()) return claimed;
    Lease& model = claimed.value().model;
    if (model == nullptr || model->model->is_intact()) return claimed;
    discard(std::exchange(model, nullptr));
  }
}

void Residency::discard(Lease model) {
  const auto before = registry_.begin_discard(model);
  if (!before) return;  // somebody else sees to it
  const std::string id = model->info.id;
  ModelStats stats = *before;
  {
    // Also where memory runs out: whoever waits for the model would wait for ever.
    const Finally end([&] { registry_.end_discard(id, std::move(stats)); });
    const Status reason(StatusCode::kGenerationFailed,
                        "the file of model " + id +
                            " was written to while it was in memory: it is loaded anew");
    stats.add_counters(drop(std::move(model), reason));
  }
  num_evictions_.fetch_add(1, std::memory_order_relaxed);
  bound_snapshots();
}

Result<Residency::Lease> Residency::bring_in(const std::string& model_id, Claim claim,
                                             Patience patience) {
  // Whatever happens ends the load, or the id would be loading for ever.
  auto loaded = guard(StatusCode::kInvalidModel, [&]() -> Result<Lease> {
    if (closed_) return kClosedStatus;
    auto lease = load_claimed(model_id, claim, patience);
    // Attached first: whoever finds the model may submit to it at once.
    if (lease.ok()) compute_.attach(lease.value()->scheduler);
    return lease;
  });
  registry_.end_load(model_id, *claim.ticket, loaded);
  wake_watcher();
  return loaded;
}

Result<Residency::Lease> Residency::load_claimed(const std::string& model_id, const Claim& claim,
                                                 Patience patience) {
  const auto start = Clock::now();
  auto plan = make_room(model_id, claim, patience);
  if (!plan.ok()) return plan.status();
  auto loaded = backend_.load(model_id, claim.options, plan.value(), claim.ticket->cancelled);
  if (!loaded.ok()) return loaded.status();
  auto resident = std::make_shared<ResidentModel>();
  resident->model = loaded.value().model;
  resident->info = resident->model->info();
  resident->scheduler = environment_.make_scheduler(std::move(loaded).value());
  TextContext& context = resident->scheduler->context();
  choose_threads(*resident->model, context, claim.options);
  ModelInfo& info = resident->info;
  const ContextMemory memory = context.memory();
  info.kv_bytes = memory.kv_bytes;
  info.compute_bytes = memory.compute_bytes;
  info.gpu_bytes = memory.gpu_bytes;
  info.num_threads = context.num_threads();
  info.loaded_at_ms = unix_time_ms();
  info.load_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  resident->charge = {plan.value().weights_key, info.weights_bytes, own_bytes(info, context)};
  return Lease(std::move(resident));
}

void Residency::choose_threads(const TextModel& model, TextContext& context,
                               const ModelOptions& options) {
  if (options.num_threads > 0 || !model.info().supports_generation) return;
  const int32_t max_threads = context.num_threads();
  const std::string key = model.fingerprint().hex() + " " + std::to_string(max_threads);
  if (calibrations_ != nullptr) {
    if (const auto known = calibrations_->find(key)) {
      context.set_num_threads(std::clamp(*known, 1, max_threads));
      return;
    }
  }
  // One decode at a time: the other models' streams go on in between.
  const int32_t best = fastest_num_threads(max_threads, [&](int32_t num_threads) {
    double us = 0.0;
    compute_.run([&] { us = context.time_decode(num_threads); });
    return us;
  });
  compute_.run([&] { context.set_num_threads(best); });
  if (calibrations_ != nullptr) calibrations_->remember(key, best);
}

Result<MemoryPlan> Residency::make_room(const std::string& model_id, const Claim& claim,
                                        Patience patience) {
  auto moved_at = Clock::now();  // when a model last was seen to come or go
  const auto deadline = moved_at + to_duration(options_.max_wait_s);
  const auto plan = [&](const ModelOptions& options, uint64_t max_bytes) {
    return backend_.plan(options, max_bytes);
  };
  const auto pause = [] { std::this_thread::sleep_for(kPause); };
  for (;;) {
    if (closed_ || claim.ticket->cancelled) {
      return Status(StatusCode::kClosed, "the load of model " + model_id + " was cancelled");
    }
    const auto now = Clock::now();
    MemoryUse use = memory_use();
    const auto holdings = registry_.holdings();
    if (std::ranges::any_of(holdings, &Holding::moving)) moved_at = now;
    const MachineBudget machine = machine_budget(holdings, use, environment_.snapshots().bytes,
                                                 backend_.available_bytes());
    const auto choose_beside = [&](std::span<const Holding> others, Victims allowed) {
      return choose_room(model_id, claim.options, claim.last, others, use, allowed, plan);
    };
    const auto choose = [&](Victims allowed) { return choose_beside(holdings, allowed); };
    Victims allowed = Victims::kIdle;
    use.budget_bytes = machine.certain_bytes;
    auto choice = choose(allowed);
    if (machine.certain_bytes < machine.most_bytes && now < deadline) {
      use.budget_bytes = machine.most_bytes;
      if (!is_same(choice, choose(allowed))) {
        pause();  // the end of the loads under way will tell
        continue;
      }
      use.budget_bytes = machine.certain_bytes;
    }
    const bool is_full = !choice.ok() && choice.status().code() == StatusCode::kOutOfMemory;
    const bool holds_external = is_full && use.external_bytes > 0;
    // Asked before: what ends in between can go.
    const bool may_free =
        holds_external && patience == Patience::kWaitForBusy && may_free_external();
    if (holds_external && free_external()) continue;
    if (is_full && patience == Patience::kNone && now < deadline) {
      // As if it came after the loads under way: then they take less, or can go. Whoever loaded a
      // model holds it a moment longer.
      const bool leases_end = now < moved_at + kCallTime;
      if (choose_beside(at_rest(holdings, leases_end), allowed).ok()) {
        pause();
        continue;
      }
    }
    if (is_full && patience == Patience::kWaitForBusy) {
      allowed = Victims::kIdleAndBusy;
      choice = choose(allowed);
      // Memory may be given back, or be about to belong to a model that can go.
      const auto may_come = [&] {
        if (std::ranges::any_of(holdings, &Holding::moving)) return true;
        if (!may_free) return false;
        const uint64_t external_bytes = std::exchange(use.external_bytes, 0);
        const bool would_fit = choose(allowed).ok();
        use.external_bytes = external_bytes;
        return would_fit;
      };
      if (!choice.ok() && now < deadline && may_come()) {
        pause();
        continue;
      }
    }
    if (!choice.ok()) return choice.status();
    if (choice.value().victims.empty()) {
      if (reserve(model_id, choice.value().charge)) {
        bound_snapshots();
        return choice.value().plan;
      }
    } else if (!evict(choice.value().victims, allowed, deadline, claim.ticket->cancelled) &&
               Clock::now() >= deadline) {
      return Status(StatusCode::kOutOfMemory,
                    explain_refusal("model " + model_id, choice.value().plan.total_bytes,
                                    registry_.holdings(), use, kSmallerContext));
    }
  }
}

bool Residency::evict(const std::vector<std::string>& victims, Victims allowed,
                      Clock::time_point deadline, const std::atomic<bool>& cancelled) {
  const auto eviction = registry_.begin_eviction(victims, allowed);
  if (!eviction) return false;
  // Also where memory runs out: whoever waits for a victim would wait for ever.
  const Finally give_up([&] { registry_.give_up_eviction(victims, *eviction); });
  bool all_gone = true;
  for (const std::string& id : victims) {
    Lease lease = registry_.take_idle(id, *eviction, deadline, cancelled);
    if (lease == nullptr) {
      all_gone = false;
      continue;
    }
    // take_idle has counted it, and nothing runs that would hear of the reason.
    (void)drop(std::move(lease), {StatusCode::kClosed, "model " + id + " was evicted"});
    registry_.end_eviction(id);
    num_evictions_.fetch_add(1, std::memory_order_relaxed);
  }
  bound_snapshots();
  return all_gone;
}

void Residency::evict_idle(const std::vector<std::string>& victims) {
  const std::atomic<bool> never_cancelled{false};
  (void)evict(victims, Victims::kIdle, Clock::now(), never_cancelled);
}

void Residency::bound_snapshots() {
  // One at a time: a bound worked out before another's load or unload must not come after its.
  std::lock_guard lock(bound_mutex_);
  const MemoryUse use = memory_use();
  const uint64_t taken = charged_bytes(registry_.holdings()) + use.external_bytes;
  environment_.bound_snapshots(use.budget_bytes > taken ? use.budget_bytes - taken : 0);
}

ModelStats Residency::drop(Lease lease, const Status& reason) {
  Scheduler& scheduler = *lease->scheduler;
  scheduler.close();
  compute_.run([&] { scheduler.abort_all(reason); });
  compute_.detach(&scheduler);
  // Leases, and schedulers without them, are held for the length of a call; the memory is free
  // when the last is back.
  const auto give_up = Clock::now() + kLeaseTimeout;
  while ((lease.use_count() > 1 || lease->scheduler.use_count() > 1) && Clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return scheduler.stats();
}

ModelStats Residency::finish_removal(const std::string& model_id, Lease lease,
                                     const Status& reason) {
  ModelStats stats;
  {
    // Also where memory runs out: the id would be leaving for ever.
    const Finally end([&] { stats.add_counters(registry_.end_remove(model_id)); });
    if (lease != nullptr) stats = drop(std::move(lease), reason);
  }
  stats.id = model_id;
  bound_snapshots();
  return stats;
}

Status Residency::set_pinned(const std::string& model_id, bool pinned) {
  if (closed_) return kClosedStatus;
  Status status = registry_.set_pinned(model_id, pinned);
  if (status.ok()) wake_watcher();
  return status;
}

Result<ModelStats> Residency::unload(const std::string& model_id) {
  if (closed_) return kClosedStatus;
  auto removed = registry_.begin_remove(model_id);
  if (!removed.ok()) return unless_closed(removed.status());
  return finish_removal(model_id, std::move(removed).value(),
                        {StatusCode::kClosed, "model " + model_id + " was unloaded"});
}

MemoryStats Residency::memory() const {
  const MemoryUse use = memory_use();
  const auto holdings = registry_.holdings();
  MemoryStats stats;
  stats.budget_bytes = use.budget_bytes;
  stats.models_bytes = charged_bytes(holdings);
  stats.snapshot_bytes = environment_.snapshots().bytes;
  stats.external_bytes = use.external_bytes;
  stats.used_bytes = stats.models_bytes + stats.snapshot_bytes + use.external_bytes;
  stats.num_evictions = num_evictions_.load(std::memory_order_relaxed);
  stats.num_reloads = num_reloads_.load(std::memory_order_relaxed);
  return stats;
}

void Residency::wake_watcher() {
  {
    std::lock_guard lock(mutex_);
    recheck_ = true;
  }
  wake_.notify_all();
}

void Residency::watch_keep_alive() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    recheck_ = false;
    lock.unlock();
    for (const std::string& id : registry_.expired(Clock::now(), options_.keep_alive_s)) {
      // One that memory runs out for is looked at again.
      (void)guard(StatusCode::kOutOfMemory, [&]() -> Status {
        evict_idle({id});
        return {};
      });
    }
    const auto next = registry_.next_expiry(Clock::now(), options_.keep_alive_s);
    lock.lock();
    const auto is_woken = [&] { return stopping_ || recheck_; };
    if (next) {
      // Not at once: a model that expired and could not go is looked at again later.
      constexpr std::chrono::milliseconds kLeastPause{20};
      wake_.wait_until(lock, std::max(*next, Clock::now() + kLeastPause), is_woken);
    } else {
      wake_.wait(lock, is_woken);
    }
  }
}

bool Residency::drain(Clock::time_point deadline) {
  closed_ = true;
  registry_.cancel_loads();
  {
    const auto schedulers = registry_.schedulers();
    for (const auto& scheduler : schedulers) scheduler->close();
    for (const auto& scheduler : schedulers) scheduler->wait_idle(deadline);
  }
  const auto any_in_use = [&] {  // by embeddings
    return std::ranges::any_of(registry_.holdings(), &Holding::in_use);
  };
  while (any_in_use()) {
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void Residency::close() {
  closed_ = true;
  const Status reason(StatusCode::kClosed, "the engine was closed before the request was done");
  // Until nothing is left: a load that was about to begin may still come and go.
  for (auto ids = registry_.cancel_loads(); !ids.empty(); ids = registry_.cancel_loads()) {
    for (const std::string& id : ids) {
      auto removed = registry_.begin_remove(id);
      if (!removed.ok()) continue;  // leaving, or gone already
      finish_removal(id, std::move(removed).value(), reason);
    }
    registry_.wait_unless_empty(Clock::now() + std::chrono::milliseconds(5));
  }
}

}  // namespace snapllm
