// What a model's KV depends on besides the tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "snapllm/options.h"
#include "snapllm/status.h"

namespace snapllm {

// Names a GGUF file by its size and what it holds: all before the tensors, the small tensors, and
// samples of the large ones.
Result<Hash128> file_fingerprint(const std::string& path, const Hash128& parent = {});

// Names the vectors that this build's kernels, ours and ggml's, are compiled for: a sum over more
// lanes has another order, and so other last bits.
std::string_view cpu_vectors();

// Of the model's files (see file_fingerprint), the KV types, what computes attention, by which
// vectors, whether a GPU computes, and the state format of this build.
Result<Hash128> kv_fingerprint(const std::vector<std::string>& paths, const ModelOptions& options,
                               std::string_view attention,
                               std::string_view vectors = cpu_vectors());

}  // namespace snapllm
