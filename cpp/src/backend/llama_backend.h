// Loads text models with llama.cpp.
#pragma once

#include <memory>
#include <string>

#include "backend/text_backend.h"

namespace snapllm {

class LlamaBackend : public TextBackend {
 public:
  // `max_threads` 0 = the machine's physical cores.
  explicit LlamaBackend(int32_t max_threads);
  Result<LoadedModel> load(const std::string& model_id, const ModelOptions& options,
                           uint64_t max_bytes) override;

 private:
  const int32_t max_threads_;
};

}  // namespace snapllm
