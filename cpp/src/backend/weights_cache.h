// Weights in memory, one copy of a file however many models use it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backend/llama_text_model.h"
#include "snapllm/options.h"
#include "snapllm/status.h"

namespace snapllm {

// Names the weights that the options load: the file as it is now, and where its layers go.
std::string weights_key(const ModelOptions& options);

// Thread-safe. Keeps nothing alive by itself.
class WeightsCache {
 public:
  using Weights = std::shared_ptr<llama_model>;

  // The weights of that key, loaded by `load` unless somebody has them. Of several
  // callers with one key one loads and the others wait; other keys do not wait.
  Result<Weights> get(const std::string& key, const std::function<Result<LlamaModelPtr>()>& load);

 private:
  struct Slot {
    std::mutex mutex;
    std::weak_ptr<llama_model> weights;  // guarded by mutex
  };
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;  // guarded by mutex_
};

}  // namespace snapllm
