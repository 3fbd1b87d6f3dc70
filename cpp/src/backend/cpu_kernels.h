// Gives ggml's CPU backend our kernels instead of its own.
#pragma once

#include <cstdint>

namespace snapllm {

// From now on ggml's CPU backend computes flash attention over KV in binary16 by `attend`
// (kernels/attention.h), and products with the weights that `cpu_products.h` names by kernels
// of ours. To be called once in a process, before a model is loaded.
void install_cpu_kernels();

// Whether `attend` takes heads of this size; others are left to ggml.
bool has_cpu_attention(int32_t head_size);

}  // namespace snapllm
