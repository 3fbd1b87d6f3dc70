// What a model's KV depends on besides the tokens.
#pragma once

#include "base/hash.h"
#include "snapllm/options.h"
#include "snapllm/status.h"

namespace snapllm {

// Of the file (its size, its first 4 MiB, which hold metadata and tensor table, and
// samples across the rest), the KV types, flash attention, whether a GPU computes, and
// the state format of this build.
Result<Hash128> kv_fingerprint(const ModelOptions& options, bool flash_attention);

}  // namespace snapllm
