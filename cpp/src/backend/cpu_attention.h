// Gives ggml's CPU backend our attention instead of its own.
#pragma once

#include <cstdint>

namespace snapllm {

// From now on flash attention over KV in binary16 is computed by `attend` (see
// attention/attention.h) wherever ggml computes it on the CPU. To be called once in a
// process, before a model is loaded.
void install_cpu_attention();

// Whether `attend` takes heads of these sizes; others are left to ggml.
bool has_cpu_attention(int32_t key_size, int32_t value_size);

}  // namespace snapllm
