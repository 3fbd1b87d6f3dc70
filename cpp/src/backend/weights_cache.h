// Weights in memory, one copy of a model's files however many models use it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/loaded_weights.h"
#include "snapllm/status.h"

namespace snapllm {

// Names the weights in these files, as they are now, with so many layers on a GPU.
std::string weights_key(const std::vector<std::string>& paths, int32_t gpu_layers);

// Thread-safe. Keeps nothing alive by itself.
class WeightsCache {
 public:
  using Weights = std::shared_ptr<const LoadedWeights>;

  // The weights of that key, loaded by `load` unless somebody has them. Of several
  // callers with one key one loads and the others wait; other keys do not wait.
  Result<Weights> get(const std::string& key, const std::function<Result<Weights>()>& load);

 private:
  struct Slot {
    std::mutex mutex;
    std::weak_ptr<const LoadedWeights> weights;  // guarded by mutex
  };
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;  // guarded by mutex_
};

}  // namespace snapllm
