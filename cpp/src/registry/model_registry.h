// Which models the engine knows, which of them are in memory, and which is active.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/text_backend.h"
#include "registry/governor.h"
#include "scheduler/scheduler.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"

namespace snapllm {

// A model in memory. Whoever holds the pointer (a lease) keeps it there.
struct ResidentModel {
  std::shared_ptr<const TextModel> model;
  std::shared_ptr<Scheduler> scheduler;
  ModelInfo info;  // with the facts that only loading tells
  Charge charge;
};

// A load under way; everybody who wants the model waits for it.
struct LoadTicket {
  std::atomic<bool> cancelled{false};  // by an unload, or the engine's end
  // Guarded by the registry's mutex:
  bool done = false;
  Status status;
};

// States of an id: unknown > loading > resident > (draining > evicted > loading ...) >
// leaving > unknown. An evicted model stays known with its options and counters, so that
// it can come back by itself. Thread-safe; holds no lock while anything is loaded,
// freed or computed.
class ModelRegistry {
 public:
  using Lease = std::shared_ptr<const ResidentModel>;
  using Clock = std::chrono::steady_clock;
  using EvictionId = uint64_t;  // one for each begin_eviction, never used again
  static constexpr size_t kMaxEvents = 1024;

  // The model, or else the duty to load it and to call end_load.
  struct Claim {
    std::string model_id;  // of a use: what the empty one stands for
    Lease model;
    std::shared_ptr<LoadTicket> ticket;
    ModelOptions options;
    std::optional<ModelInfo> last;  // of an earlier residency
  };

  // For a load: takes the id. Fails when it stands for another file or for other options, or is in
  // memory of a file that another one has replaced; `pinned` and `keep_alive_s` it applies, where
  // they are asked for. Waits for a load or an eviction of the same id, and fails as that load does.
  Result<Claim> claim_load(const std::string& model_id, const ModelOptions& options);
  // For a request: the model of that id, an empty one meaning the active model. Waits
  // like claim_load. Fails with kModelNotFound for an id that was never loaded.
  Result<Claim> claim_use(const std::string& model_id);
  // Ends a load begun: with its model, or with the reason why there is none.
  void end_load(const std::string& model_id, LoadTicket& ticket, Result<Lease> loaded);

  // Takes the model out, null when it is not in memory; its id stays taken until end_remove.
  // Cancels a load under way, with all who wait for it, and takes a model away from the
  // eviction that waits for its requests: they are the caller's to end.
  Result<Lease> begin_remove(const std::string& model_id);
  // Returns the counters of its earlier residencies.
  ModelStats end_remove(const std::string& model_id);

  // Sets what the loading model is going to take; false when the budget has no room.
  bool reserve(const std::string& model_id, const Charge& charge, const MemoryUse& use);
  // Sets what a model in memory takes beside its weights, where the budget has room for it.
  bool recharge(const Lease& model, uint64_t own_bytes, const MemoryUse& use);
  std::vector<Holding> holdings() const;
  // Keeps new requests away from the models; nothing (and nothing done) when one of them
  // can no longer go, or when it is busy and only idle ones are allowed.
  std::optional<EvictionId> begin_eviction(const std::vector<std::string>& model_ids,
                                           Victims allowed);
  // Waits for the model's requests to end and takes it out of the registry. Null when the
  // deadline, a cancellation or a pin comes first, and it is resident as before; null as well
  // when its unload does, and the model is the eviction's no longer.
  Lease take_idle(const std::string& model_id, EvictionId eviction, Clock::time_point deadline,
                  const std::atomic<bool>& cancelled);
  // Says that the memory of a model taken is free.
  void end_eviction(const std::string& model_id);
  // Ends an eviction for those of its models whose part was not brought to an end.
  void give_up_eviction(const std::vector<std::string>& model_ids, EvictionId eviction);

  // Takes a model out whose files were written to, though it be busy or pinned: what runs is the
  // caller's to end. Returns the counters of the residencies before; nothing when the model is not
  // the id's any more, or is leaving already.
  std::optional<ModelStats> begin_discard(const Lease& model);
  // Says that its memory is free, and what was counted with this residency.
  void end_discard(const std::string& model_id, ModelStats counted);

  // Models unused for longer than their keep-alive, and when to look again.
  std::vector<std::string> expired(Clock::time_point now, double default_keep_alive_s) const;
  std::optional<Clock::time_point> next_expiry(Clock::time_point now,
                                               double default_keep_alive_s) const;

  Status set_active(const std::string& model_id);
  std::string active() const;
  Status set_pinned(const std::string& model_id, bool pinned);

  // The model in memory of that id, if its files are what was loaded; an empty id means the active
  // one.
  Result<Lease> find(const std::string& model_id) const;
  // Models known, whether in memory or evicted, in the order in which they were first loaded.
  Result<ModelInfo> info(const std::string& model_id) const;
  std::vector<ModelInfo> infos() const;
  std::vector<ModelStats> stats() const;
  // What became of models by itself, in its order: what came after the event of that number, of
  // the last kMaxEvents.
  std::vector<ResidencyEvent> events(uint64_t after) const;
  // Of the models in memory. No leases: they do not keep a model from being evicted.
  std::vector<std::shared_ptr<Scheduler>> schedulers() const;
  // Cancels every load under way; returns the ids of all entries.
  std::vector<std::string> cancel_loads();
  // Waits for anything to change unless nothing is left.
  void wait_unless_empty(Clock::time_point deadline);

 private:
  struct Entry {
    uint64_t number = 0;  // in the order of their first loads
    ModelOptions options;
    Lease model;                         // null unless resident
    std::shared_ptr<LoadTicket> ticket;  // while it loads
    std::optional<EvictionId> draining;  // being evicted
    bool leaving = false;                // being unloaded
    bool pinned = false;
    Charge charge;
    std::optional<ModelInfo> last;  // once it has been resident
    ModelStats past;                // counters of earlier residencies
    Clock::time_point used_at = Clock::now();  // when it was last asked for, or came in
  };
  using Entries = std::map<std::string, Entry>;

  static Status not_found(const std::string& model_id);

  // REQUIRES, all below: mutex_ held
  bool is_busy(const Entry& entry) const;
  // Whether it is in memory of files that others have replaced.
  static bool is_outdated(const Entry& entry);
  // Since when nobody has used it: `now` while somebody does.
  Clock::time_point idle_since(const Entry& entry, Clock::time_point now) const;
  // When it is to be evicted; nothing where it is to stay.
  std::optional<Clock::time_point> expiry(const Entry& entry, Clock::time_point now,
                                          double default_keep_alive_s) const;
  std::optional<Result<Claim>> try_claim(Entry& entry);
  Status wait_for_change(std::unique_lock<std::mutex>& lock, const Entry& entry);
  ModelInfo describe(const std::string& model_id, const Entry& entry) const;
  std::vector<Holding> holdings_locked() const;
  // Whether a model that was loaded takes the role from the active one: from one that only
  // computes embeddings, unless a switch chose that.
  bool becomes_active(const Entry& loaded) const;
  void pass_active_on(const std::string& model_id);
  void note(const std::string& model_id, bool has_returned);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  Entries entries_;
  std::string active_;
  bool active_is_chosen_ = false;  // by set_active
  EvictionId num_evictions_ = 0;
  uint64_t num_entries_ = 0;  // that there ever were
  uint64_t num_events_ = 0;
  std::deque<ResidencyEvent> events_;
};

}  // namespace snapllm
