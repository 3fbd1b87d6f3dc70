// One GGUF file's metadata, read before anything else trusts the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gguf.h"
#include "snapllm/status.h"

namespace snapllm {

// Format: GGUF v2 and v3 as documented in ggml.
class GgufFile {
 public:
  // Checks that the file is a GGUF file, that it holds tensors, unless it is a part of a split
  // model, and that they lie within it. Errors: kFileNotFound, kInvalidModel.
  static Result<GgufFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return file_bytes_; }
  // Of a file that is a part of a split model: which, from 0 on, and of how many; else 0 of 1.
  int32_t part() const;
  int32_t num_parts() const;
  // Empty where there is no such string.
  std::string string(const std::string& key) const;
  // The same as it is in the file, which may be no UTF-8.
  std::string raw_string(const std::string& key) const;
  bool boolean(const std::string& key) const;
  // The largest value of an integer key, which may be an array of one value per layer;
  // `missing` when there is none.
  uint64_t integer(const std::string& key, uint64_t missing = 0) const;
  // The numbers of an array of 32-bit integers; empty where there is none.
  std::vector<int32_t> integers(const std::string& key) const;
  // A 32-bit float; `missing` when there is none.
  float real(const std::string& key, float missing = 0) const;
  bool has_tensor(const std::string& name) const;
  bool has_tensor_of(ggml_type type) const;
  struct Tensor {
    std::string name;
    ggml_type type = GGML_TYPE_F32;
  };
  std::vector<Tensor> tensor_types() const;
  // Where in the file the tensors lie, in their order, and all that comes before them.
  struct Extent {
    uint64_t offset = 0;
    uint64_t size = 0;
  };
  Extent head() const;
  std::vector<Extent> tensors() const;

  // The refusal of this file.
  Status invalid(const std::string& why) const;

 private:
  using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;
  GgufFile(std::string path, uint64_t file_bytes, GgufPtr gguf)
      : path_(std::move(path)), file_bytes_(file_bytes), gguf_(std::move(gguf)) {}

  std::string path_;
  uint64_t file_bytes_;
  GgufPtr gguf_;
};

}  // namespace snapllm
