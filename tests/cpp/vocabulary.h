// A vocabulary that llama.cpp comes with.
#pragma once

#include <filesystem>

#include "backend/llama_runtime.h"
#include "llama.h"

namespace snapllm {

struct Vocabulary {
  explicit Vocabulary(const std::filesystem::path& path) {
    init_llama_runtime();
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    model = llama_model_load_from_file(path.c_str(), params);
  }
  ~Vocabulary() { llama_model_free(model); }
  llama_model* model;
};

}  // namespace snapllm
