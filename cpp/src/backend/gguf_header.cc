#include "backend/gguf_header.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "backend/llama_runtime.h"
#include "base/utf8.h"
#include "gguf.h"

namespace snapllm {
namespace {

// llama.cpp asserts on layer counts past its own table (LLAMA_MAX_LAYERS = 512).
constexpr int64_t kMaxLayers = 512;
constexpr uint64_t kMaxDimension = uint64_t{1} << 24;

using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

Status invalid(const std::string& path, const std::string& why) {
  return {StatusCode::kInvalidModel, "Cannot load " + path + ": " + why};
}

Result<uint64_t> checked_file_size(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) {
    return Status(StatusCode::kFileNotFound,
                  "Model file not found: " + path + " (" + std::strerror(errno) + ")");
  }
  if (S_ISDIR(facts.st_mode)) {
    return Status(StatusCode::kFileNotFound, "Model path is a folder, not a file: " + path);
  }
  if (!S_ISREG(facts.st_mode)) return invalid(path, "not a regular file");
  if (access(path.c_str(), R_OK) != 0) {
    return Status(StatusCode::kFileNotFound,
                  "Model file cannot be read: " + path + " (" + std::strerror(errno) + ")");
  }
  return static_cast<uint64_t>(facts.st_size);
}

Status check_magic(const std::string& path, uint64_t file_bytes) {
  if (file_bytes == 0) return invalid(path, "the file is empty");
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(magic.data(), magic.size()) || std::memcmp(magic.data(), "GGUF", 4) != 0) {
    return invalid(path, "not a GGUF file");
  }
  return {};
}

std::string string_value(const gguf_context* gguf, const std::string& key) {
  const int64_t id = gguf_find_key(gguf, key.c_str());
  if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING) return {};
  return valid_utf8(gguf_get_val_str(gguf, id));
}

// The largest value of an integer key, which may be an array of one value per
// layer; `missing` when there is none.
uint64_t integer_value(const gguf_context* gguf, const std::string& key, uint64_t missing) {
  const int64_t id = gguf_find_key(gguf, key.c_str());
  if (id < 0) return missing;
  switch (gguf_get_kv_type(gguf, id)) {
    case GGUF_TYPE_UINT32: return gguf_get_val_u32(gguf, id);
    case GGUF_TYPE_INT32: return static_cast<uint64_t>(std::max(0, gguf_get_val_i32(gguf, id)));
    case GGUF_TYPE_UINT64: return gguf_get_val_u64(gguf, id);
    case GGUF_TYPE_UINT16: return gguf_get_val_u16(gguf, id);
    case GGUF_TYPE_ARRAY: break;
    default: return missing;
  }
  const gguf_type type = gguf_get_arr_type(gguf, id);
  if (type != GGUF_TYPE_UINT32 && type != GGUF_TYPE_INT32) return missing;
  const auto* values = static_cast<const uint32_t*>(gguf_get_arr_data(gguf, id));
  uint64_t largest = 0;
  for (size_t i = 0; i < gguf_get_arr_n(gguf, id); ++i) {
    if (values[i] <= INT32_MAX) largest = std::max<uint64_t>(largest, values[i]);
  }
  return largest;
}

Status check_tensors(const gguf_context* gguf, const std::string& path, uint64_t file_bytes) {
  const int64_t num_tensors = gguf_get_n_tensors(gguf);
  if (num_tensors == 0) return invalid(path, "it holds no tensors");
  const uint64_t data_offset = gguf_get_data_offset(gguf);
  for (int64_t i = 0; i < num_tensors; ++i) {
    const uint64_t offset = gguf_get_tensor_offset(gguf, i);
    const uint64_t size = gguf_get_tensor_size(gguf, i);
    if (data_offset > file_bytes || offset > file_bytes - data_offset ||
        size > file_bytes - data_offset - offset) {
      return invalid(path, std::string("the file is truncated (tensor ") +
                               gguf_get_tensor_name(gguf, i) + " lies past its end)");
    }
  }
  return {};
}

Result<GgufHeader> header_facts(const gguf_context* gguf, const std::string& path,
                                uint64_t file_bytes) {
  GgufHeader header;
  header.file_bytes = file_bytes;
  header.architecture = string_value(gguf, "general.architecture");
  header.name = string_value(gguf, "general.name");
  if (header.architecture.empty()) return invalid(path, "general.architecture is missing");
  const std::string prefix = header.architecture + ".";
  const uint64_t layers = integer_value(gguf, prefix + "block_count", 0);
  if (layers == 0 || layers > kMaxLayers) {
    return invalid(path, prefix + "block_count is missing or out of range (1 to 512)");
  }
  header.num_layers = static_cast<int32_t>(layers);
  header.train_context_size = static_cast<int32_t>(
      std::min<uint64_t>(integer_value(gguf, prefix + "context_length", 0), INT32_MAX));
  const uint64_t embedding = integer_value(gguf, prefix + "embedding_length", 0);
  const uint64_t heads = integer_value(gguf, prefix + "attention.head_count", 0);
  const uint64_t kv_heads = integer_value(gguf, prefix + "attention.head_count_kv", heads);
  const uint64_t head_size = heads > 0 ? embedding / heads : 0;
  const uint64_t key_size = integer_value(gguf, prefix + "attention.key_length", head_size);
  const uint64_t value_size = integer_value(gguf, prefix + "attention.value_length", head_size);
  if (std::max({embedding, heads, kv_heads, key_size, value_size}) > kMaxDimension) {
    return invalid(path, "a dimension in its header is out of range");
  }
  header.num_heads = static_cast<int32_t>(heads);
  header.kv_elements_per_token = layers * kv_heads * (key_size + value_size);
  return header;
}

}  // namespace

Result<GgufHeader> read_gguf_header(const std::string& path) {
  auto file_bytes = checked_file_size(path);
  if (!file_bytes.ok()) return file_bytes.status();
  if (Status status = check_magic(path, file_bytes.value()); !status.ok()) return status;

  init_llama_runtime();
  return guard_llama(StatusCode::kInvalidModel, [&]() -> Result<GgufHeader> {
    LlamaLogCapture log;
    const GgufPtr gguf(gguf_init_from_file(path.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}),
                       &gguf_free);
    if (!gguf) return invalid(path, "its GGUF header is damaged. " + log.errors());
    if (Status status = check_tensors(gguf.get(), path, file_bytes.value()); !status.ok()) {
      return status;
    }
    return header_facts(gguf.get(), path, file_bytes.value());
  });
}

}  // namespace snapllm
