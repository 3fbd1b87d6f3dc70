#include "registry/model_registry.h"

#include <algorithm>
#include <filesystem>
#include <thread>
#include <tuple>
#include <utility>

namespace snapllm {
namespace {

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  return a == b || std::filesystem::equivalent(a, b, error);
}

bool is_file(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

// Whether a load with `wanted` asks for nothing that `loaded` does not have; what is
// left at its default asks for nothing. What can change while it is in memory is not looked at.
bool agrees(const ModelOptions& wanted, const ModelOptions& loaded) {
  const ModelOptions defaults;
  const auto same = [&](auto field) {
    return wanted.*field == defaults.*field || wanted.*field == loaded.*field;
  };
  const bool same_projector =
      wanted.mmproj_path.empty() || is_same_file(wanted.mmproj_path, loaded.mmproj_path);
  return same_projector && same(&ModelOptions::gpu_layers) && same(&ModelOptions::context_size) &&
         same(&ModelOptions::kv_cells) && same(&ModelOptions::max_sequences) &&
         same(&ModelOptions::batch_tokens) && same(&ModelOptions::ubatch_tokens) &&
         same(&ModelOptions::num_threads) && same(&ModelOptions::flash_attention) &&
         same(&ModelOptions::kv_type) && same(&ModelOptions::draft_tokens) &&
         same(&ModelOptions::chat_template);
}

// Of options that the backend does not see where the model is in memory already.
Status check_keep_alive(double keep_alive_s) {
  constexpr double kMaxSeconds = 1e9;
  if (keep_alive_s == -1.0 || (keep_alive_s >= 0.0 && keep_alive_s <= kMaxSeconds)) return {};
  return {StatusCode::kInvalidRequest,
          "keep_alive_s must be between 0 and 1e9, or -1 for the engine's"};
}

}  // namespace

bool ModelRegistry::is_outdated(const Entry& entry) {
  return entry.model != nullptr && !entry.draining && entry.model->model->is_intact() &&
         !entry.model->model->is_of_its_files();
}

// What can be said at once; nothing when the caller has to wait.
std::optional<Result<ModelRegistry::Claim>> ModelRegistry::try_claim(Entry& entry) {
  if (entry.ticket != nullptr || entry.draining || entry.leaving) return std::nullopt;
  entry.used_at = Clock::now();
  Claim claim;
  claim.options = entry.options;
  claim.last = entry.last;
  if (entry.model != nullptr) {
    claim.model = entry.model;
  } else {
    claim.ticket = entry.ticket = std::make_shared<LoadTicket>();
  }
  return claim;
}

// Waits for whatever is under way with the entry, which may be gone afterwards.
Status ModelRegistry::wait_for_change(std::unique_lock<std::mutex>& lock, const Entry& entry) {
  // Who comes after the unload does not fail with the load that it cancelled.
  if (const auto ticket = entry.leaving ? nullptr : entry.ticket) {
    changed_.wait(lock, [&] { return ticket->done; });
    return ticket->status;
  }
  changed_.wait(lock);
  return {};
}

Result<ModelRegistry::Claim> ModelRegistry::claim_load(const std::string& model_id,
                                                       const ModelOptions& options) {
  if (model_id.empty()) return Status(StatusCode::kInvalidRequest, "model_id must not be empty");
  if (Status status = check_keep_alive(options.keep_alive_s); !status.ok()) return status;
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto [it, is_new] = entries_.try_emplace(model_id);
    Entry& entry = it->second;
    if (is_new) {
      entry.number = ++num_entries_;
      entry.options = options;
      entry.pinned = options.pinned;
    } else if (!entry.leaving) {
      if (!is_same_file(options.path, entry.options.path)) {
        if (!is_file(options.path)) {
          return Status(StatusCode::kFileNotFound, "Model file not found: " + options.path);
        }
        return Status(StatusCode::kInvalidRequest,
                      "model_id " + model_id + " is taken by " + entry.options.path);
      }
      if (!agrees(options, entry.options)) {
        return Status(StatusCode::kInvalidRequest,
                      "model_id " + model_id + " is loaded with other options: unload it first");
      }
      if (is_outdated(entry)) {
        return Status(StatusCode::kFileReplaced,
                      "model_id " + model_id +
                          " is of a file that was replaced since it was loaded, and the model goes "
                          "on with the old one: unload it first");
      }
      if (options.pinned) entry.pinned = true;
      if (options.keep_alive_s >= 0.0) entry.options.keep_alive_s = options.keep_alive_s;
    }
    if (auto claim = try_claim(entry)) return *std::move(claim);
    if (Status status = wait_for_change(lock, entry); !status.ok()) return status;
  }
}

Result<ModelRegistry::Claim> ModelRegistry::claim_use(const std::string& model_id) {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto it = entries_.find(model_id.empty() ? active_ : model_id);
    if (it == entries_.end() || it->second.leaving) return not_found(model_id);
    if (auto claim = try_claim(it->second)) {
      if (claim->ok()) claim->value().model_id = it->first;
      return *std::move(claim);
    }
    if (Status status = wait_for_change(lock, it->second); !status.ok()) return status;
  }
}

void ModelRegistry::end_load(const std::string& model_id, LoadTicket& ticket,
                             Result<Lease> loaded) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_.at(model_id);
  entry.ticket.reset();
  entry.charge = {};
  ticket.done = true;
  entry.used_at = Clock::now();
  if (ticket.cancelled) {
    ticket.status = {StatusCode::kClosed, "the load of model " + model_id + " was cancelled"};
  } else if (!loaded.ok()) {
    ticket.status = loaded.status();
  }
  if (loaded.ok()) {
    if (entry.last) note(model_id, true);
    entry.model = std::move(loaded).value();
    entry.last = entry.model->info;
    entry.charge = entry.model->charge;
    ++entry.past.num_loads;
    entry.past.load_ms += entry.model->info.load_ms;
    if (!entry.leaving && becomes_active(entry)) active_ = model_id;
  } else if (!entry.last && !entry.leaving) {
    entries_.erase(model_id);  // it never was there
  }
  changed_.notify_all();
}

Result<ModelRegistry::Lease> ModelRegistry::begin_remove(const std::string& model_id) {
  std::unique_lock lock(mutex_);
  const auto it = entries_.find(model_id);
  if (it == entries_.end() || it->second.leaving) return not_found(model_id);
  Entry& entry = it->second;  // stays until end_remove
  entry.leaving = true;
  pass_active_on(model_id);
  if (entry.ticket != nullptr) entry.ticket->cancelled = true;
  if (entry.model != nullptr) entry.draining.reset();  // whoever waits for it finds it gone
  changed_.notify_all();
  changed_.wait(lock, [&] { return entry.ticket == nullptr && !entry.draining; });
  return std::exchange(entry.model, nullptr);
}

ModelStats ModelRegistry::end_remove(const std::string& model_id) {
  std::lock_guard lock(mutex_);
  ModelStats past;
  const auto it = entries_.find(model_id);
  if (it != entries_.end() && it->second.leaving) {
    past = std::move(it->second.past);
    entries_.erase(it);
  }
  changed_.notify_all();
  return past;
}

bool ModelRegistry::becomes_active(const Entry& loaded) const {
  if (active_.empty()) return true;
  return !active_is_chosen_ && loaded.last->supports_generation &&
         !entries_.at(active_).last->supports_generation;
}

void ModelRegistry::pass_active_on(const std::string& model_id) {
  if (active_ != model_id) return;
  active_.clear();
  active_is_chosen_ = false;
  // One that generates, if there is one, of those one in memory, and of those the one used last.
  const auto now = Clock::now();
  const auto rank = [&](const Entry& entry) {
    return std::tuple(entry.last->supports_generation, entry.model != nullptr,
                      idle_since(entry, now));
  };
  for (const auto& [id, entry] : entries_) {
    if (entry.leaving || !entry.last) continue;
    if (active_.empty() || rank(entry) > rank(entries_.at(active_))) active_ = id;
  }
}

bool ModelRegistry::reserve(const std::string& model_id, const Charge& charge,
                            const MemoryUse& use) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_.at(model_id);
  entry.charge = charge;
  const uint64_t taken = charged_bytes(holdings_locked()) + use.snapshot_bytes + use.external_bytes;
  if (taken <= use.budget_bytes) return true;
  entry.charge = {};
  return false;
}

bool ModelRegistry::recharge(const Lease& model, uint64_t own_bytes, const MemoryUse& use) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(model->info.id);
  if (it == entries_.end() || it->second.model != model) return true;  // it is being unloaded
  const uint64_t before = std::exchange(it->second.charge.own_bytes, own_bytes);
  const uint64_t taken = charged_bytes(holdings_locked()) + use.snapshot_bytes + use.external_bytes;
  if (own_bytes <= before || taken <= use.budget_bytes) return true;
  it->second.charge.own_bytes = before;
  return false;
}

std::optional<ModelRegistry::EvictionId> ModelRegistry::begin_eviction(
    const std::vector<std::string>& model_ids, Victims allowed) {
  std::lock_guard lock(mutex_);
  for (const std::string& id : model_ids) {
    const auto it = entries_.find(id);
    if (it == entries_.end()) return std::nullopt;
    const Entry& entry = it->second;
    const bool stays = entry.model == nullptr || entry.draining || entry.leaving || entry.pinned;
    if (stays || (allowed == Victims::kIdle && is_busy(entry))) return std::nullopt;
  }
  const EvictionId eviction = ++num_evictions_;
  for (const std::string& id : model_ids) entries_.at(id).draining = eviction;
  return eviction;
}

ModelRegistry::Lease ModelRegistry::take_idle(const std::string& model_id, EvictionId eviction,
                                              Clock::time_point deadline,
                                              const std::atomic<bool>& cancelled) {
  // How often a lease held by a thread between two calls, and a cancellation, are seen.
  constexpr std::chrono::milliseconds kPatience{20};
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto it = entries_.find(model_id);
    // After an unload the id may be unknown, or stand for a model of another eviction.
    if (it == entries_.end() || it->second.draining != eviction) return nullptr;
    Entry& entry = it->second;
    const auto scheduler = entry.model->scheduler;
    if (!entry.pinned && !is_busy(entry)) {
      entry.past.add_counters(scheduler->stats());
      ++entry.past.num_evictions;
      note(model_id, false);
      return std::exchange(entry.model, nullptr);
    }
    if (entry.pinned || cancelled || Clock::now() >= deadline) {
      entry.draining.reset();
      changed_.notify_all();
      return nullptr;
    }
    lock.unlock();
    scheduler->wait_idle(std::min(deadline, Clock::now() + kPatience));
    if (scheduler->is_idle()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    lock.lock();
  }
}

void ModelRegistry::end_eviction(const std::string& model_id) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_.at(model_id);
  entry.draining.reset();
  entry.charge = {};
  changed_.notify_all();
}

void ModelRegistry::give_up_eviction(const std::vector<std::string>& model_ids,
                                     EvictionId eviction) {
  std::lock_guard lock(mutex_);
  for (const std::string& id : model_ids) {
    const auto it = entries_.find(id);
    if (it == entries_.end() || it->second.draining != eviction) continue;
    it->second.draining.reset();
    if (it->second.model == nullptr) it->second.charge = {};
  }
  changed_.notify_all();
}

std::optional<ModelStats> ModelRegistry::begin_discard(const Lease& model) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(model->info.id);
  if (it == entries_.end()) return std::nullopt;
  Entry& entry = it->second;
  if (entry.model != model || entry.draining || entry.leaving) return std::nullopt;
  entry.draining = ++num_evictions_;
  entry.model.reset();
  note(it->first, false);
  const ModelStats before = entry.past;
  // So that no counter falls until it has ended.
  entry.past.add_counters(model->scheduler->stats());
  ++entry.past.num_evictions;
  return before;
}

void ModelRegistry::end_discard(const std::string& model_id, ModelStats counted) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_.at(model_id);
  entry.past = std::move(counted);
  ++entry.past.num_evictions;
  entry.draining.reset();
  entry.charge = {};
  changed_.notify_all();
}

Status ModelRegistry::set_active(const std::string& model_id) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(model_id);
  if (it == entries_.end() || it->second.leaving || !it->second.last) return not_found(model_id);
  active_ = model_id;
  active_is_chosen_ = true;
  return {};
}

Status ModelRegistry::set_pinned(const std::string& model_id, bool pinned) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(model_id);
  if (it == entries_.end() || it->second.leaving || !it->second.last) return not_found(model_id);
  it->second.pinned = pinned;
  return {};
}

void ModelRegistry::note(const std::string& model_id, bool has_returned) {
  events_.push_back({++num_events_, model_id, has_returned});
  if (events_.size() > kMaxEvents) events_.pop_front();
}

std::vector<std::string> ModelRegistry::cancel_loads() {
  std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, entry] : entries_) {
    ids.push_back(id);
    if (entry.ticket != nullptr) entry.ticket->cancelled = true;
  }
  return ids;
}

void ModelRegistry::wait_unless_empty(Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  if (!entries_.empty()) changed_.wait_until(lock, deadline);
}

}  // namespace snapllm
