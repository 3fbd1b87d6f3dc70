// The GGUF files that a text model lies in: one, or the parts that it was split into.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/gguf_file.h"

namespace snapllm {

// Parts are named NAME-00001-of-00004.gguf and so on, as llama.cpp's gguf-split writes and its
// loader expects them; the first may hold metadata alone.
class ModelFiles {
 public:
  // Opens and checks them all; `path` is the only one, or the first. Errors: kFileNotFound,
  // kInvalidModel.
  static Result<ModelFiles> open(const std::string& path);

  // The one with the metadata.
  const GgufFile& first() const { return files_.front(); }
  // In their order.
  const std::vector<GgufFile>& all() const { return files_; }
  std::vector<std::string> paths() const;
  uint64_t num_bytes() const;
  bool has_tensor(const std::string& name) const;
  bool has_tensor_of(ggml_type type) const;

 private:
  explicit ModelFiles(std::vector<GgufFile> files) : files_(std::move(files)) {}

  std::vector<GgufFile> files_;
};

}  // namespace snapllm
