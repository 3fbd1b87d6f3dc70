// What the registry tells of its models, and changes nothing.
#include <algorithm>
#include <utility>

#include "registry/model_registry.h"

namespace snapllm {
namespace {

double seconds_between(ModelRegistry::Clock::time_point from, ModelRegistry::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

double keep_alive_of(const ModelOptions& options, double default_s) {
  return options.keep_alive_s < 0.0 ? default_s : options.keep_alive_s;
}

}  // namespace

Status ModelRegistry::not_found(const std::string& model_id) {
  if (model_id.empty()) return {StatusCode::kModelNotFound, "No model is loaded"};
  return {StatusCode::kModelNotFound, "Model not found: " + model_id};
}

bool ModelRegistry::is_busy(const Entry& entry) const {
  // Under the mutex a count of one means that nobody else has, or can get, a lease.
  return entry.model != nullptr &&
         (entry.model.use_count() > 1 || !entry.model->scheduler->is_idle());
}

ModelRegistry::Clock::time_point ModelRegistry::idle_since(const Entry& entry,
                                                           Clock::time_point now) const {
  if (is_busy(entry)) return now;
  if (entry.model == nullptr) return entry.used_at;
  return std::max(entry.used_at, entry.model->scheduler->idle_since());
}

std::vector<Holding> ModelRegistry::holdings_locked() const {
  std::vector<Holding> holdings;
  const auto now = Clock::now();
  for (const auto& [id, entry] : entries_) {
    if (entry.charge.weights_bytes + entry.charge.own_bytes == 0) continue;
    Holding holding;
    holding.id = id;
    holding.charge = entry.charge;
    holding.rebuild_ms = entry.last ? entry.last->load_ms : 0.0;
    holding.idle_s = seconds_between(idle_since(entry, now), now);
    holding.pinned = entry.pinned;
    holding.in_use = is_busy(entry);
    holding.has_requests = entry.model != nullptr && !entry.model->scheduler->is_idle();
    holding.moving = entry.ticket != nullptr || entry.draining || entry.leaving;
    holding.loading = entry.ticket != nullptr;
    holdings.push_back(std::move(holding));
  }
  return holdings;
}

std::vector<Holding> ModelRegistry::holdings() const {
  std::lock_guard lock(mutex_);
  return holdings_locked();
}

std::optional<ModelRegistry::Clock::time_point> ModelRegistry::expiry(
    const Entry& entry, Clock::time_point now, double default_keep_alive_s) const {
  const double keep_alive_s = keep_alive_of(entry.options, default_keep_alive_s);
  if (entry.model == nullptr || entry.pinned || keep_alive_s <= 0.0) return std::nullopt;
  return idle_since(entry, now) +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(keep_alive_s));
}

std::vector<std::string> ModelRegistry::expired(Clock::time_point now,
                                                double default_keep_alive_s) const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (const auto& [id, entry] : entries_) {
    const auto expires_at = expiry(entry, now, default_keep_alive_s);
    if (!entry.draining && expires_at && *expires_at <= now) ids.push_back(id);
  }
  return ids;
}

std::optional<ModelRegistry::Clock::time_point> ModelRegistry::next_expiry(
    Clock::time_point now, double default_keep_alive_s) const {
  std::lock_guard lock(mutex_);
  std::optional<Clock::time_point> next;
  for (const auto& [id, entry] : entries_) {
    const auto expires_at = expiry(entry, now, default_keep_alive_s);
    if (expires_at && (!next || *expires_at < *next)) next = expires_at;
  }
  return next;
}

std::string ModelRegistry::active() const {
  std::lock_guard lock(mutex_);
  return active_;
}

Result<ModelRegistry::Lease> ModelRegistry::find(const std::string& model_id) const {
  Lease found;
  {
    std::lock_guard lock(mutex_);
    const auto it = entries_.find(model_id.empty() ? active_ : model_id);
    if (it != entries_.end() && !it->second.draining && !it->second.leaving) {
      found = it->second.model;
    }
  }
  if (found == nullptr || !found->model->is_intact()) return not_found(model_id);
  return found;
}

ModelInfo ModelRegistry::describe(const std::string& model_id, const Entry& entry) const {
  ModelInfo info = *entry.last;
  info.active = model_id == active_;
  info.pinned = entry.pinned;
  info.keep_alive_s = entry.options.keep_alive_s;
  info.state = entry.leaving            ? "unloading"
               : entry.ticket != nullptr ? "loading"
               : entry.draining          ? "evicting"
               : entry.model != nullptr  ? "resident"
                                         : "evicted";
  return info;
}

Result<ModelInfo> ModelRegistry::info(const std::string& model_id) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(model_id.empty() ? active_ : model_id);
  if (it == entries_.end() || it->second.leaving || !it->second.last) return not_found(model_id);
  return describe(it->first, it->second);
}

std::vector<ModelInfo> ModelRegistry::infos() const {
  std::lock_guard lock(mutex_);
  std::vector<const Entries::value_type*> known;
  for (const auto& item : entries_) {
    if (item.second.last && !item.second.leaving) known.push_back(&item);
  }
  std::ranges::sort(known, {}, [](const auto* item) { return item->second.number; });
  std::vector<ModelInfo> infos;
  for (const auto* item : known) infos.push_back(describe(item->first, item->second));
  return infos;
}

std::vector<ResidencyEvent> ModelRegistry::events(uint64_t after) const {
  std::lock_guard lock(mutex_);
  const auto first = std::ranges::upper_bound(events_, after, {}, &ResidencyEvent::number);
  return {first, events_.end()};
}

std::vector<ModelStats> ModelRegistry::stats() const {
  std::lock_guard lock(mutex_);
  std::vector<ModelStats> all;
  for (const auto& [id, entry] : entries_) {
    if (!entry.last || entry.leaving) continue;
    ModelStats stats;
    if (entry.model != nullptr) stats = entry.model->scheduler->stats();
    stats.id = id;
    stats.resident = entry.model != nullptr;
    stats.add_counters(entry.past);
    all.push_back(std::move(stats));
  }
  return all;
}

std::vector<std::shared_ptr<Scheduler>> ModelRegistry::schedulers() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Scheduler>> all;
  for (const auto& [id, entry] : entries_) {
    if (entry.model != nullptr) all.push_back(entry.model->scheduler);
  }
  return all;
}

}  // namespace snapllm
