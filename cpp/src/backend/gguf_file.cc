#include "backend/gguf_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "backend/llama_runtime.h"
#include "base/utf8.h"

namespace snapllm {
namespace {

// 16 bits each, as llama.cpp's gguf-split writes them.
constexpr const char* kPartKey = "split.no";
constexpr const char* kNumPartsKey = "split.count";

Status invalid_file(const std::string& path, const std::string& why) {
  return {StatusCode::kInvalidModel, "Cannot load " + path + ": " + why};
}

// As errno says.
Status unreadable_file(const std::string& path) {
  return {StatusCode::kFileNotFound,
          "Model file cannot be read: " + path + " (" + std::strerror(errno) + ")"};
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
  if (!S_ISREG(facts.st_mode)) return invalid_file(path, "not a regular file");
  if (access(path.c_str(), R_OK) != 0) return unreadable_file(path);
  return static_cast<uint64_t>(facts.st_size);
}

Status check_magic(const std::string& path, uint64_t file_bytes) {
  if (file_bytes == 0) return invalid_file(path, "the file is empty");
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return unreadable_file(path);  // as without a file descriptor left
  if (!file.read(magic.data(), magic.size()) || std::memcmp(magic.data(), "GGUF", 4) != 0) {
    return invalid_file(path, "not a GGUF file");
  }
  return {};
}

Status check_tensors(const gguf_context* gguf, const std::string& path, uint64_t file_bytes) {
  const int64_t num_tensors = gguf_get_n_tensors(gguf);
  const uint64_t data_offset = gguf_get_data_offset(gguf);
  for (int64_t i = 0; i < num_tensors; ++i) {
    const uint64_t offset = gguf_get_tensor_offset(gguf, i);
    const uint64_t size = gguf_get_tensor_size(gguf, i);
    if (data_offset > file_bytes || offset > file_bytes - data_offset ||
        size > file_bytes - data_offset - offset) {
      return invalid_file(path, std::string("the file is truncated (tensor ") +
                                    gguf_get_tensor_name(gguf, i) + " lies past its end)");
    }
  }
  return {};
}

}  // namespace

Status GgufFile::invalid(const std::string& why) const { return invalid_file(path_, why); }

Result<GgufFile> GgufFile::open(const std::string& path) {
  auto file_bytes = checked_file_size(path);
  if (!file_bytes.ok()) return file_bytes.status();
  if (Status status = check_magic(path, file_bytes.value()); !status.ok()) return status;

  init_llama_runtime();
  return guard_llama(StatusCode::kInvalidModel, [&]() -> Result<GgufFile> {
    LlamaLogCapture log;
    GgufPtr gguf(gguf_init_from_file(path.c_str(), {/*no_alloc=*/true, /*ctx=*/nullptr}),
                 &gguf_free);
    if (!gguf) return invalid_file(path, "its GGUF header is damaged. " + log.errors());
    if (Status status = check_tensors(gguf.get(), path, file_bytes.value()); !status.ok()) {
      return status;
    }
    GgufFile file(path, file_bytes.value(), std::move(gguf));
    if (file.num_parts() == 1 && gguf_get_n_tensors(file.gguf_.get()) == 0) {
      return file.invalid("it holds no tensors");
    }
    return file;
  });
}

int32_t GgufFile::part() const {
  if (num_parts() == 1) return 0;
  return static_cast<int32_t>(std::min<uint64_t>(integer(kPartKey), UINT16_MAX));
}

int32_t GgufFile::num_parts() const {
  return static_cast<int32_t>(std::clamp<uint64_t>(integer(kNumPartsKey), 1, UINT16_MAX));
}

std::string GgufFile::string(const std::string& key) const { return valid_utf8(raw_string(key)); }

std::string GgufFile::raw_string(const std::string& key) const {
  const int64_t id = gguf_find_key(gguf_.get(), key.c_str());
  if (id < 0 || gguf_get_kv_type(gguf_.get(), id) != GGUF_TYPE_STRING) return {};
  return gguf_get_val_str(gguf_.get(), id);
}

bool GgufFile::boolean(const std::string& key) const {
  const int64_t id = gguf_find_key(gguf_.get(), key.c_str());
  return id >= 0 && gguf_get_kv_type(gguf_.get(), id) == GGUF_TYPE_BOOL &&
         gguf_get_val_bool(gguf_.get(), id);
}

uint64_t GgufFile::integer(const std::string& key, uint64_t missing) const {
  const gguf_context* gguf = gguf_.get();
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

std::vector<int32_t> GgufFile::integers(const std::string& key) const {
  const gguf_context* gguf = gguf_.get();
  const int64_t id = gguf_find_key(gguf, key.c_str());
  if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_ARRAY) return {};
  const gguf_type type = gguf_get_arr_type(gguf, id);
  if (type != GGUF_TYPE_UINT32 && type != GGUF_TYPE_INT32) return {};
  const auto* values = static_cast<const int32_t*>(gguf_get_arr_data(gguf, id));
  return {values, values + gguf_get_arr_n(gguf, id)};
}

float GgufFile::real(const std::string& key, float missing) const {
  const int64_t id = gguf_find_key(gguf_.get(), key.c_str());
  if (id < 0 || gguf_get_kv_type(gguf_.get(), id) != GGUF_TYPE_FLOAT32) return missing;
  return gguf_get_val_f32(gguf_.get(), id);
}

std::vector<GgufFile::Tensor> GgufFile::tensor_types() const {
  const gguf_context* gguf = gguf_.get();
  std::vector<Tensor> tensors;
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
    tensors.push_back({gguf_get_tensor_name(gguf, i), gguf_get_tensor_type(gguf, i)});
  }
  return tensors;
}

bool GgufFile::has_tensor_of(ggml_type type) const {
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf_.get()); ++i) {
    if (gguf_get_tensor_type(gguf_.get(), i) == type) return true;
  }
  return false;
}

GgufFile::Extent GgufFile::head() const {
  return {0, std::min<uint64_t>(gguf_get_data_offset(gguf_.get()), file_bytes_)};
}

std::vector<GgufFile::Extent> GgufFile::tensors() const {
  const gguf_context* gguf = gguf_.get();
  std::vector<Extent> extents;
  for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
    extents.push_back({gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i),
                       gguf_get_tensor_size(gguf, i)});
  }
  return extents;
}

bool GgufFile::has_tensor(const std::string& name) const {
  return gguf_find_tensor(gguf_.get(), name.c_str()) >= 0;
}

}  // namespace snapllm
