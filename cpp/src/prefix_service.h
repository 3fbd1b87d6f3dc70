// Keeps prefixes on purpose and moves them between the tiers: the store, and the KV
// memory of the model if it is resident.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "registry/model_registry.h"
#include "scheduler/compute_thread.h"
#include "snapllm/prefix.h"
#include "store/kv_store.h"

namespace snapllm {

// Thread-safe. Calls wait for the disk, and for the compute thread between two steps.
class PrefixService {
 public:
  // `has_ended` becomes true when what runs is to end soon.
  PrefixService(KvStore& store, const ModelRegistry& registry, ComputeThread& compute,
                const std::atomic<bool>& has_ended)
      : store_(store), registry_(registry), compute_(compute), has_ended_(has_ended) {}

  Result<PrefixInfo> info(const PrefixRef& prefix);
  // Exempts its KV from eviction: what there is of it, and what is computed later.
  Status pin(const PrefixRef& prefix);
  // Waits until the prefix is safe on disk.
  Status persist(const PrefixRef& prefix);
  // Ends one exemption; what nobody else keeps is removed from all tiers. `others` are
  // prefixes of the same scope: what the prefix shares with them stays where it is.
  Status discard(const PrefixRef& prefix, std::span<const PrefixRef> others);
  // Has what nobody keeps on purpose make way on the disk, so many bytes of it.
  void make_disk_room(uint64_t bytes) { store_.make_disk_room(bytes); }
  // A demotion that fails leaves the prefix where it was.
  Status move(const PrefixRef& prefix, Tier tier, std::span<const PrefixRef> others);
  // What all of them take together, in bytes, each in the tiers up to its own: what they
  // share is counted once, what is hot once in each model's KV memory.
  Result<PrefixInfo> usage(std::span<const PrefixRef> prefixes, std::span<const Tier> tiers);
  // The states of its pieces, in order, to be written again elsewhere.
  Result<std::vector<StatePtr>> read(const PrefixRef& prefix);
  // Puts states that `read` gave of the same tokens into the store.
  Status write(const PrefixRef& prefix, std::vector<StateBytes> states);

 private:
  // Waits until what was answered so far is in the store: a finished request's KV is
  // handed over after its last output.
  void settle() { (void)store_.lock_handover(); }
  // The same, and stores what the model, if it is resident, keeps hot to be stored later.
  void settle(const ModelRegistry::Lease& lease);
  // The prefix's model, null where that is not resident. Held while its scheduler is used, so
  // that an eviction meanwhile knows of the use.
  ModelRegistry::Lease lease_of(const PrefixRef& prefix, const StoreScope& scope) const;
  // Takes it out of the KV memory of its model; `lease` is of that, or null.
  void drop_hot(const ModelRegistry::Lease& lease, const Hash128& root, const PrefixRef& prefix,
                std::span<const PrefixRef> others);

  KvStore& store_;
  const ModelRegistry& registry_;
  ComputeThread& compute_;
  const std::atomic<bool>& has_ended_;
};

// Where in the store a prefix is. Fails with kInvalidRequest where its fingerprint is no hash, or
// its kind none of KV.
Result<StoreScope> scope_of(const PrefixRef& prefix);

}  // namespace snapllm
