#include "backend/gguf_header.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <numeric>

#include "backend/model_files.h"
#include "base/utf8.h"
#include "llama.h"

namespace snapllm {
namespace {

// llama.cpp asserts on layer counts past its own table (LLAMA_MAX_LAYERS = 512).
constexpr int64_t kMaxLayers = 512;
constexpr uint64_t kMaxDimension = uint64_t{1} << 24;

// Whether ggml computes nothing with it: it aborts, or calls a function that is not there.
bool is_no_weight(ggml_type type) {
  return type == GGML_TYPE_I8 || type == GGML_TYPE_I16 || type == GGML_TYPE_I32 ||
         type == GGML_TYPE_I64 || type == GGML_TYPE_F64;
}

Status check_types(const GgufFile& file) {
  for (const GgufFile::Tensor& tensor : file.tensor_types()) {
    // A table of deepseek4's holds integers: a token's experts.
    if (tensor.type == GGML_TYPE_I32 && tensor.name.ends_with("tid2eid.weight")) continue;
    if (!is_no_weight(tensor.type)) continue;
    return file.invalid("the tensor " + valid_utf8(tensor.name) + " is of type " +
                        ggml_type_name(tensor.type) + ", which no weights are");
  }
  return {};
}

// The name of a tensor that is added, multiplied element by element or convolved with, and whose
// type ggml's CPU kernels abort on; empty = none.
std::string odd_vector(const GgufFile& file) {
  constexpr std::array kEnds = {"norm.weight",
                                "_norm",
                                ".bias",
                                "token_types.weight",
                                "ssm_a",
                                "ssm_d",
                                "ssm_conv1d.weight",
                                "shortconv.conv.weight",
                                "time_mix_decay.weight",
                                "time_mix_lerp_x.weight",
                                "time_mix_lerp_fused.weight"};
  for (const GgufFile::Tensor& tensor : file.tensor_types()) {
    if (tensor.type == GGML_TYPE_F32) continue;
    const auto ends = [&](const char* end) { return tensor.name.ends_with(end); };
    if (std::ranges::any_of(kEnds, ends)) return valid_utf8(tensor.name);
  }
  return {};
}

// What ggml would find wrong in the middle of a computation, where it ends the process.
Status check_computable(const GgufFile& file, const std::string& prefix, uint64_t key_size,
                        uint64_t window_key_size) {
  for (const char* name : {"layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"}) {
    const std::string key = prefix + "attention." + name;
    if (!(file.real(key) >= 0)) return file.invalid(key + " must be 0 or more");
  }
  const auto pooling = static_cast<int32_t>(file.integer(prefix + "pooling_type"));
  if (pooling < LLAMA_POOLING_TYPE_UNSPECIFIED || pooling > LLAMA_POOLING_TYPE_RANK) {
    return file.invalid(prefix + "pooling_type is none that llama.cpp knows");
  }
  const uint64_t rotated = file.integer(prefix + "rope.dimension_count");
  const uint64_t window_rotated = file.integer(prefix + "rope.dimension_count_swa", rotated);
  const auto fits = [](uint64_t count, uint64_t size) {
    return size == 0 || (count % 2 == 0 && count <= size);
  };
  if (!fits(rotated, key_size) || !fits(window_rotated, window_key_size)) {
    return file.invalid(prefix + "rope.dimension_count must be even and at most a head's size");
  }
  const std::string key = prefix + "rope.dimension_sections";
  const std::vector<int32_t> sections = file.integers(key);
  const bool has_negative = std::ranges::any_of(sections, [](int32_t size) { return size < 0; });
  const uint64_t sum = std::accumulate(sections.begin(), sections.end(), uint64_t{0});
  if (has_negative || (key_size > 0 && sum > key_size)) {
    return file.invalid(key + " must be parts of a head's " + std::to_string(key_size));
  }
  return {};
}

uint64_t state_bytes(const ModelFiles& files, const std::string& prefix) {
  uint64_t num_layers = 0;
  for (const GgufFile& part : files.all()) {
    for (const GgufFile::Tensor& tensor : part.tensor_types()) {
      num_layers += tensor.name.ends_with(".ssm_conv1d.weight");
    }
  }
  const auto real = [&](const char* key) {
    return static_cast<double>(files.first().integer(prefix + "ssm." + key));
  };
  const double inner = real("inner_size"), state = real("state_size");
  const double columns = std::max(real("conv_kernel") - 1, 0.0);
  const double size = inner * state + columns * (inner + 2 * real("group_count") * state);
  constexpr double kMost = 1e18;
  return static_cast<uint64_t>(
      std::min(sizeof(float) * static_cast<double>(num_layers) * size, kMost));
}

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
  if (Status s = check_computable(file, prefix, key_size, window_key_size); !s.ok()) return s;
  for (const GgufFile& part : files.all()) {
    if (Status s = check_types(part); !s.ok()) return s;
    if (header.odd_vector.empty()) header.odd_vector = odd_vector(part);
  }
  const std::vector<int32_t> sections = file.integers(prefix + "rope.dimension_sections");
  header.has_rope_sections = std::ranges::any_of(sections, [](int32_t size) { return size > 0; });
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
  header.state_bytes = state_bytes(files, prefix);
  header.has_experts = file.integer(prefix + "expert_count", 0) > 0;
  header.has_latent_attention = file.integer(prefix + "attention.key_length_mla", 0) > 0;
  header.kv_elements_per_token = layers * kv_heads * std::max(key_size + value_size,
                                                                window_key_size + window_value_size);
  return header;
}

}  // namespace snapllm
