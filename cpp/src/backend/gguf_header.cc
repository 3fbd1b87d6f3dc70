#include "backend/gguf_header.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "backend/model_files.h"

namespace snapllm {
namespace {

// llama.cpp asserts on layer counts past its own table (LLAMA_MAX_LAYERS = 512).
constexpr int64_t kMaxLayers = 512;
constexpr uint64_t kMaxDimension = uint64_t{1} << 24;

}  // namespace

Result<GgufHeader> read_gguf_header(const std::string& path) {
  const auto opened = ModelFiles::open(path);
  if (!opened.ok()) return opened.status();
  const ModelFiles& files = opened.value();
  const GgufFile& file = files.first();
  GgufHeader header;
  header.paths = files.paths();
  header.file_bytes = files.num_bytes();
  header.architecture = file.string("general.architecture");
  header.name = file.string("general.name");
  if (header.architecture.empty()) return file.invalid("general.architecture is missing");
  // llama.cpp answers a prompt of it with what follows its first token.
  if (header.architecture == "cogvlm") return file.invalid("llama.cpp computes cogvlm wrongly");
  if (header.architecture == "clip") {
    return file.invalid("it is a projector (mmproj) file, which belongs to a model: its mmproj_path");
  }
  const std::string prefix = header.architecture + ".";
  const uint64_t layers = file.integer(prefix + "block_count", 0);
  if (layers == 0 || layers > kMaxLayers) {
    return file.invalid(prefix + "block_count is missing or out of range (1 to 512)");
  }
  header.num_layers = static_cast<int32_t>(layers);
  header.train_context_size = static_cast<int32_t>(
      std::min<uint64_t>(file.integer(prefix + "context_length", 0), INT32_MAX));
  const uint64_t embedding = file.integer(prefix + "embedding_length", 0);
  const uint64_t heads = file.integer(prefix + "attention.head_count", 0);
  const uint64_t kv_heads = file.integer(prefix + "attention.head_count_kv", heads);
  const uint64_t head_size = heads > 0 ? embedding / heads : 0;
  const uint64_t key_size = file.integer(prefix + "attention.key_length", head_size);
  const uint64_t value_size = file.integer(prefix + "attention.value_length", head_size);
  const uint64_t window_key_size = file.integer(prefix + "attention.key_length_swa", key_size);
  const uint64_t window_value_size = file.integer(prefix + "attention.value_length_swa", value_size);
  const std::array head_sizes = {key_size, value_size, window_key_size, window_value_size};
  if (std::max({embedding, heads, kv_heads, std::ranges::max(head_sizes)}) > kMaxDimension) {
    return file.invalid("a dimension in its header is out of range");
  }
  header.num_heads = static_cast<int32_t>(heads);
  std::ranges::transform(head_sizes, header.head_sizes.begin(),
                         [](uint64_t size) { return static_cast<int32_t>(size); });
  if (files.has_tensor("rope_factors_long.weight")) {
    header.short_context_size = static_cast<int32_t>(std::min<uint64_t>(
        file.integer(prefix + "rope.scaling.original_context_length", header.train_context_size),
        INT32_MAX));
  }
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    if (files.has_tensor_of(type)) header.types.push_back(type);
  }
  header.has_experts = file.integer(prefix + "expert_count", 0) > 0;
  header.has_latent_attention = file.integer(prefix + "attention.key_length_mla", 0) > 0;
  header.kv_elements_per_token = layers * kv_heads * std::max(key_size + value_size,
                                                                window_key_size + window_value_size);
  return header;
}

}  // namespace snapllm
