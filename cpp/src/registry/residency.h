// Brings models into memory and takes them out again, as far as the budget goes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend/text_backend.h"
#include "registry/calibration.h"
#include "registry/model_registry.h"
#include "scheduler/compute_thread.h"
#include "snapllm/external_holder.h"
#include "snapllm/options.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"

namespace snapllm {

struct ResidencyOptions {
  uint64_t budget_bytes = 0;
  double keep_alive_s = 0.0;  // 0 = as long as memory allows
  // How long a request whose model has to come back waits for others to make room.
  double max_wait_s = 60.0;
};

// Thread-safe. Only the caller of load, acquire of an evicted model, unload and close
// waits; models in memory go on computing meanwhile.
class Residency {
 public:
  using Lease = ModelRegistry::Lease;
  using Clock = ModelRegistry::Clock;
  struct Environment {
    std::function<std::shared_ptr<Scheduler>(LoadedModel)> make_scheduler;
    std::function<SnapshotMemory()> snapshots;
    std::function<void(uint64_t)> bound_snapshots;  // to so many bytes, or the least it can
  };

  // The references must outlive it; `calibrations` may be null.
  Residency(TextBackend& backend, ModelRegistry& registry, ComputeThread& compute,
            CalibrationFile* calibrations, Environment environment, ResidencyOptions options);
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  // Makes the model resident, at the cost of idle models where memory is short. Fails
  // with kOutOfMemory, before anything is allocated or evicted, when it cannot fit.
  Result<Lease> load(const std::string& model_id, const ModelOptions& options);
  // The model of that id, empty = the active one. One that was evicted comes back;
  // where memory is short that waits for busy models to become idle.
  Result<Lease> acquire(const std::string& model_id);
  // Makes the model's embedder, where it is not there yet, at the cost of idle models where memory
  // is short.
  Status make_embedder(const Lease& model);
  // The model, as `acquire` gives it, with its embedder; where memory is short that waits for busy
  // models to become idle, too.
  Result<Lease> acquire_embedding(const std::string& model_id);
  // Exempts the model from eviction, or ends that.
  Status set_pinned(const std::string& model_id, bool pinned);
  Result<ModelStats> unload(const std::string& model_id);
  // Sets what something else than a text model holds, 0 = nothing any more. Evicts idle
  // models to make room; fails with kOutOfMemory, changing nothing, when there is none, and calls
  // it `what` then; empty = by its name.
  Status set_external(const std::string& name, uint64_t bytes, const std::string& what = "");
  // Asked, on any thread, where idle text models are not enough to make room.
  void set_external_holder(ExternalHolder holder);
  MemoryStats memory() const;

  // Refuses everything from now on.
  void stop_accepting() { closed_ = true; }
  // Refuses everything from now on, ends loads, and waits for running requests, or for the
  // deadline. Returns whether none runs any more.
  bool drain(Clock::time_point deadline);
  // Ends running requests and loads, and unloads all.
  void close();

 private:
  enum class Patience { kNone, kWaitForBusy };

  // What `claim` gives, once it is no model whose files were written to since it was loaded: such a
  // one goes, with its requests.
  Result<ModelRegistry::Claim> claim_intact(
      const std::function<Result<ModelRegistry::Claim>()>& claim);
  void discard(Lease model);
  Result<Lease> bring_in(const std::string& model_id, ModelRegistry::Claim claim, Patience patience);
  Result<Lease> load_claimed(const std::string& model_id, const ModelRegistry::Claim& claim,
                             Patience patience);
  Result<MemoryPlan> make_room(const std::string& model_id, const ModelRegistry::Claim& claim,
                               Patience patience);
  // Charges what the model is going to take; false when there is no room for it any more.
  bool reserve(const std::string& model_id, const Charge& charge);
  // Whether the model could have so much more if the others became idle, and, where they `may_free`
  // it, what is held outside of the text models, too.
  bool may_get_room(const Lease& model, uint64_t more_bytes, bool may_free) const;
  // Charges what a model in memory is going to take besides; fails with kOutOfMemory.
  Status charge_more(const Lease& model, uint64_t more_bytes, const std::string& purpose);
  // Evicts what the choice says; false when it was overtaken by events.
  bool evict(const std::vector<std::string>& victims, Victims allowed, Clock::time_point deadline,
             const std::atomic<bool>& cancelled);
  // Without waiting for anything that has become busy.
  void evict_idle(const std::vector<std::string>& victims);
  void choose_threads(const TextModel& model, TextContext& context, const ModelOptions& options);
  // Ends what runs and frees the memory. Returns what the scheduler has counted.
  ModelStats drop(Lease lease, const Status& reason);
  // Returns what it has counted.
  ModelStats finish_removal(const std::string& model_id, Lease lease, const Status& reason);
  bool free_external();
  bool may_free_external() const;
  ExternalHolder external_holder() const;
  // What the model has allocated beside its weights.
  static uint64_t own_bytes(const ModelInfo& info, const TextContext& context);
  // The status, but for what the engine's end has caused.
  Status unless_closed(Status status) const;
  MemoryUse memory_use() const;
  uint64_t external_bytes() const;  // REQUIRES: mutex_ held
  // Leaves the KV kept in RAM what the models do not take.
  void bound_snapshots();
  void watch_keep_alive();
  // Has the watcher look again: something that may expire has changed.
  void wake_watcher();

  TextBackend& backend_;
  ModelRegistry& registry_;
  ComputeThread& compute_;
  CalibrationFile* const calibrations_;
  const Environment environment_;
  const ResidencyOptions options_;
  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> num_evictions_{0};
  std::atomic<uint64_t> num_reloads_{0};

  std::mutex bound_mutex_;  // held while a bound for the snapshots is worked out and set

  // Held also from a look at what is free until it is charged: of two who want the same room
  // one gets it.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_:
  std::map<std::string, uint64_t> external_bytes_;
  ExternalHolder external_holder_;
  bool stopping_ = false;
  bool recheck_ = false;

  std::thread watcher_;  // last: started when all else is there
};

}  // namespace snapllm
