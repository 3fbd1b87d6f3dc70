// How much context a model gets and what it will take: pure arithmetic over the
// file's header and the options.
#pragma once

#include <cstdint>

#include "backend/gguf_header.h"
#include "backend/text_backend.h"
#include "snapllm/options.h"
#include "snapllm/status.h"

namespace snapllm {

// A recurrent state is allocated for each sequence up front, so such models get
// fewer.
constexpr int32_t kMaxRecurrentSequences = 8;
// Hot prefixes beside the running sequences, where each sequence id costs memory.
constexpr int32_t kHotCheckpoints = 2;

// Bytes of one KV element of the type; 0 for a type that is not supported.
double kv_element_bytes(const std::string& kv_type);

// Fits context and KV cells into `max_bytes`. Sizes the caller gave are kept;
// those left at 0 shrink with the memory there is. Fails with kOutOfMemory when
// the least useful size does not fit, naming what would be needed. `options` say whether
// flash attention is on: kAuto counts as off. On a GPU, whose memory is there for this, there
// are cells for more conversations at once.
Result<MemoryPlan> plan_memory(const GgufHeader& header, const ModelOptions& options,
                               uint64_t max_bytes, uint64_t projector_bytes = 0,
                               bool is_on_gpu = false);

}  // namespace snapllm
