// What is free beside the models, and how it is charged.
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "registry/residency.h"

namespace snapllm {

bool Residency::reserve(const std::string& model_id, const Charge& charge) {
  MemoryUse use = memory_use();
  std::lock_guard lock(mutex_);
  use.external_bytes = external_bytes();
  return registry_.reserve(model_id, charge, use);
}

uint64_t Residency::own_bytes(const ModelInfo& info, const TextContext& context) {
  const ContextMemory memory = context.memory();
  return memory.kv_bytes + memory.compute_bytes + info.projector_bytes;
}

Status Residency::charge_more(const Lease& model, uint64_t more_bytes,
                              const std::string& purpose) {
  for (;;) {
    if (Status status = unless_closed({}); !status.ok()) return status;
    MemoryUse use = memory_use();
    const auto holdings = registry_.holdings();
    use.budget_bytes = machine_budget(holdings, use, environment_.snapshots().bytes,
                                      backend_.available_bytes())
                           .certain_bytes;
    bool is_charged = false;
    {
      std::lock_guard lock(mutex_);
      use.external_bytes = external_bytes();
      is_charged = registry_.recharge(model, model->charge.own_bytes + more_bytes, use);
    }
    if (is_charged) {
      bound_snapshots();
      return {};
    }
    const uint64_t free = free_bytes(holdings, use);
    const uint64_t missing = more_bytes > free ? more_bytes - free : 0;
    if (const auto victims = choose_victims(holdings, missing, Victims::kIdle)) {
      evict_idle(*victims);
    } else if (!free_external()) {
      return {StatusCode::kOutOfMemory,
              explain_refusal(purpose, more_bytes, holdings, use, kSmallerContext)};
    }
  }
}

Status Residency::make_embedder(const Lease& model) {
  Scheduler& scheduler = *model->scheduler;
  const uint64_t bytes = scheduler.context().embedder_bytes();
  if (bytes == 0) return {};
  Status status = charge_more(model, bytes, "the embedding context of model " + model->info.id);
  if (!status.ok()) return status;
  compute_.run([&] {
    status = scheduler.end_status();
    if (!status.ok()) return;
    const auto made = scheduler.context().embedder();
    if (!made.ok()) status = made.status();
    // By now it is known what it takes, or that it takes nothing.
    constexpr MemoryUse kNoLimit{.budget_bytes = std::numeric_limits<uint64_t>::max()};
    registry_.recharge(model, own_bytes(model->info, scheduler.context()), kNoLimit);
  });
  bound_snapshots();
  return status;
}

bool Residency::may_get_room(const Lease& model, uint64_t more_bytes, bool may_free) const {
  MemoryUse use = memory_use();
  auto holdings = registry_.holdings();
  use.budget_bytes =
      machine_budget(holdings, use, environment_.snapshots().bytes, backend_.available_bytes())
          .certain_bytes;
  for (Holding& holding : holdings) {
    if (holding.id == model->info.id) holding.pinned = true;
    if (holding.moving && !holding.pinned) return true;  // on its way out, or soon one that can go
  }
  const auto would_fit = [&] {
    const uint64_t free = free_bytes(holdings, use);
    const uint64_t missing = more_bytes > free ? more_bytes - free : 0;
    return choose_victims(holdings, missing, Victims::kIdleAndBusy).has_value();
  };
  if (would_fit()) return true;
  use.external_bytes = 0;
  return may_free && would_fit();
}

Status Residency::set_external(const std::string& name, uint64_t bytes, const std::string& what) {
  for (;;) {
    if (Status status = unless_closed({}); !status.ok()) return status;
    MemoryUse use = memory_use();
    std::vector<Holding> holdings;
    uint64_t missing = 0;
    {
      std::lock_guard lock(mutex_);
      use.external_bytes = external_bytes();
      holdings = registry_.holdings();
      const auto entry = external_bytes_.find(name);
      const uint64_t before = entry == external_bytes_.end() ? 0 : entry->second;
      const uint64_t more = bytes > before ? bytes - before : 0;
      const uint64_t wanted =
          charged_bytes(holdings) + use.snapshot_bytes + use.external_bytes + more;
      missing = more > 0 && wanted > use.budget_bytes ? wanted - use.budget_bytes : 0;
      if (missing == 0 && bytes > 0) external_bytes_[name] = bytes;
      if (bytes == 0) external_bytes_.erase(name);
    }
    if (missing == 0) {
      bound_snapshots();
      return {};
    }
    if (const auto victims = choose_victims(holdings, missing, Victims::kIdle)) {
      evict_idle(*victims);
    } else if (!free_external()) {
      return {StatusCode::kOutOfMemory,
              explain_refusal(what.empty() ? name : what, bytes, holdings, use, /*less=*/"")};
    }
  }
}

void Residency::set_external_holder(ExternalHolder holder) {
  // The old one ends with the argument, without the lock: its end may wait for a thread
  // that waits for the lock.
  std::lock_guard lock(mutex_);
  std::swap(external_holder_, holder);
}

ExternalHolder Residency::external_holder() const {
  std::lock_guard lock(mutex_);
  return external_holder_;
}

bool Residency::free_external() {
  const auto holder = external_holder();
  return holder.give_back != nullptr && holder.give_back();
}

bool Residency::may_free_external() const {
  const auto holder = external_holder();
  return holder.may_give_back != nullptr && holder.may_give_back();
}

uint64_t Residency::external_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, held] : external_bytes_) bytes += held;
  return bytes;
}

MemoryUse Residency::memory_use() const {
  MemoryUse use;
  use.budget_bytes = options_.budget_bytes;
  {
    std::lock_guard lock(mutex_);
    use.external_bytes = external_bytes();
  }
  use.snapshot_bytes = environment_.snapshots().least_bytes;
  return use;
}

}  // namespace snapllm
