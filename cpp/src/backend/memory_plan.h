// How much context a model gets and what it will take: pure arithmetic over the
// file's header and the options.
#pragma once

#include <cstdint>

#include "backend/gguf_header.h"
#include "snapllm/options.h"
#include "snapllm/status.h"

namespace snapllm {

struct MemoryPlan {
  int32_t context_size = 0;
  int32_t kv_cells = 0;
  uint64_t weights_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t total_bytes = 0;  // with a margin for compute buffers
};

// Bytes of one KV element of the type; 0 for a type that is not supported.
double kv_element_bytes(const std::string& kv_type);

// Fits context and KV cells into `max_bytes`. Sizes the caller gave are kept;
// those left at 0 shrink with the memory there is. Fails with kOutOfMemory when
// the least useful size does not fit, naming what would be needed.
Result<MemoryPlan> plan_memory(const GgufHeader& header, const ModelOptions& options,
                               uint64_t max_bytes);

}  // namespace snapllm
