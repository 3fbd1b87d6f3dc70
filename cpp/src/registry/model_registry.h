// Which models are resident, and which of them is active.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "backend/text_backend.h"
#include "scheduler/scheduler.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"

namespace snapllm {

// A model in memory. Whoever holds the pointer (a lease) keeps it there.
struct ResidentModel {
  std::shared_ptr<const TextModel> model;
  std::shared_ptr<Scheduler> scheduler;
  ModelInfo info;  // with the facts that only loading tells
};

// States of an id: absent > loading > resident > absent. Thread-safe; holds no
// lock while anything is loaded or freed.
class ModelRegistry {
 public:
  using Lease = std::shared_ptr<const ResidentModel>;

  // Claims the id for a load. Returns the resident model when the same file is
  // there already, null when the caller is to load it; fails when the id is taken
  // by another file or is being loaded.
  Result<Lease> begin_load(const std::string& model_id, const std::string& path);
  // Ends a load begun: with its model, or with null when it failed.
  void end_load(const std::string& model_id, Lease model);
  // Takes the model out; running requests keep their lease.
  Result<Lease> remove(const std::string& model_id);

  Status set_active(const std::string& model_id);
  std::string active() const;
  // The model of that id; an empty id means the active one.
  Result<Lease> find(const std::string& model_id) const;
  std::vector<Lease> all() const;
  // Bytes that the resident models were planned to take.
  uint64_t resident_bytes() const;

 private:
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  std::map<std::string, Lease> resident_;
  std::set<std::string> loading_;
  std::string active_;
};

}  // namespace snapllm
