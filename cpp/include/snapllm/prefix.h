// A prompt prefix whose KV is kept on purpose, and where it is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapllm/request.h"
#include "snapllm/state_bytes.h"

namespace snapllm {

enum class Tier {
  kNone,  // not stored, or not whole
  kCold,  // on disk only
  kWarm,  // in RAM
  kHot,   // in the model's KV memory
};

// Names a prefix: also while its model is not loaded, and after a restart.
struct PrefixRef {
  std::string model_id;
  std::string fingerprint;  // of the model (ModelInfo::fingerprint)
  std::string kv_kind;      // "blocks" or "checkpoints" (ModelInfo::kv_kind)
  std::string cache_namespace;
  std::vector<Token> tokens;
};

struct PrefixInfo {
  Tier tier = Tier::kNone;
  bool is_on_disk = false;  // whole, wherever else it is
  uint64_t hot_bytes = 0;   // in the KV memory
  uint64_t ram_bytes = 0;
  uint64_t disk_bytes = 0;
};

// The KV of a prefix in pieces, as one engine gives it and another takes it.
using PrefixStates = std::vector<StatePtr>;

}  // namespace snapllm
