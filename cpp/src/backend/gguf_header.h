// The facts of a model's GGUF files that decide whether and how it is loaded, read from
// their headers before llama.cpp sees them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "ggml.h"
#include "snapllm/status.h"

namespace snapllm {

struct GgufHeader {
  std::string architecture;
  std::string name;
  std::vector<std::string> paths;  // of its files: one, or those of its parts in their order
  uint64_t file_bytes = 0;         // of all of them
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t train_context_size = 0;
  // Elements of K and V of one head, and those of layers with a sliding window.
  std::array<int32_t, 4> head_sizes{};
  // KV cache elements (K and V together) of one token over all layers; an upper
  // bound where layers differ, 0 where the model keeps none.
  uint64_t kv_elements_per_token = 0;
  // What a sequence's states of Mamba's kind take over all layers.
  uint64_t state_bytes = 0;
  // Contexts that are longer than this rotate positions otherwise; 0 = all of them alike.
  int32_t short_context_size = 0;
  bool has_rope_sections = false;  // parts of a head that rotate by positions of their own
  std::vector<ggml_type> types;    // of its tensors, each once
  // A tensor of norms, biases and the like that is not of 32-bit floats; empty = none. GPUs
  // compute with it.
  std::string odd_vector;
  bool has_experts = false;
  // All heads share a key and a value of few numbers, which each has matrices of its own for.
  bool has_latent_attention = false;
};

// Reads and checks a text model's header; the path is that of its first part where it is split.
// Errors: kFileNotFound, kInvalidModel.
// Format: GGUF v2 and v3 as documented in ggml.
Result<GgufHeader> read_gguf_header(const std::string& path);

}  // namespace snapllm
