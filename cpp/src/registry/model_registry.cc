#include "registry/model_registry.h"

#include <utility>

namespace snapllm {
namespace {

Status not_found(const std::string& model_id) {
  if (model_id.empty()) return {StatusCode::kModelNotFound, "No model is loaded"};
  return {StatusCode::kModelNotFound, "Model not found: " + model_id};
}

}  // namespace

Result<ModelRegistry::Lease> ModelRegistry::begin_load(const std::string& model_id,
                                                       const std::string& path) {
  if (model_id.empty()) return Status(StatusCode::kInvalidRequest, "model_id must not be empty");
  std::lock_guard lock(mutex_);
  if (const auto it = resident_.find(model_id); it != resident_.end()) {
    if (it->second->info.path == path) return it->second;
    return Status(StatusCode::kInvalidRequest,
                  "model_id " + model_id + " is taken by " + it->second->info.path);
  }
  if (!loading_.insert(model_id).second) {
    return Status(StatusCode::kInvalidRequest, "model_id " + model_id + " is being loaded");
  }
  return Lease();
}

void ModelRegistry::end_load(const std::string& model_id, Lease model) {
  std::lock_guard lock(mutex_);
  loading_.erase(model_id);
  if (model == nullptr) return;
  resident_[model_id] = std::move(model);
  if (active_.empty()) active_ = model_id;
}

Result<ModelRegistry::Lease> ModelRegistry::remove(const std::string& model_id) {
  std::lock_guard lock(mutex_);
  const auto it = resident_.find(model_id);
  if (it == resident_.end()) return not_found(model_id);
  Lease model = it->second;
  resident_.erase(it);
  if (active_ == model_id) active_ = resident_.empty() ? "" : resident_.begin()->first;
  return model;
}

Status ModelRegistry::set_active(const std::string& model_id) {
  std::lock_guard lock(mutex_);
  if (resident_.count(model_id) == 0) return not_found(model_id);
  active_ = model_id;
  return {};
}

std::string ModelRegistry::active() const {
  std::lock_guard lock(mutex_);
  return active_;
}

Result<ModelRegistry::Lease> ModelRegistry::find(const std::string& model_id) const {
  std::lock_guard lock(mutex_);
  const auto it = resident_.find(model_id.empty() ? active_ : model_id);
  if (it == resident_.end()) return not_found(model_id);
  return it->second;
}

std::vector<ModelRegistry::Lease> ModelRegistry::all() const {
  std::lock_guard lock(mutex_);
  std::vector<Lease> models;
  for (const auto& [id, model] : resident_) models.push_back(model);
  return models;
}

uint64_t ModelRegistry::resident_bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [id, model] : resident_) bytes += model->info.weights_bytes + model->info.kv_bytes;
  return bytes;
}

}  // namespace snapllm
