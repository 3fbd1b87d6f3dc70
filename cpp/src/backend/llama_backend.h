// Loads text models with llama.cpp.
#pragma once

#include <memory>
#include <string>

#include "backend/text_backend.h"
#include "backend/weights_cache.h"

namespace snapllm {

class LlamaBackend : public TextBackend {
 public:
  // `max_threads` 0 = the machine's physical cores.
  explicit LlamaBackend(int32_t max_threads);
  Result<MemoryPlan> plan(const ModelOptions& options, uint64_t max_bytes) override;
  Result<LoadedModel> load(const std::string& model_id, const ModelOptions& options,
                           const MemoryPlan& plan, const std::atomic<bool>& cancelled) override;
  uint64_t available_bytes() const override;

 private:
  const int32_t max_threads_;
  WeightsCache weights_;
};

}  // namespace snapllm
