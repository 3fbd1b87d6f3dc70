// A model's weights in memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/mapped_files.h"
#include "llama.h"

namespace snapllm {

struct LlamaModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
using LlamaModelPtr = std::unique_ptr<llama_model, LlamaModelDeleter>;

class LoadedWeights {
 public:
  // Guards what the model has mapped from the files, which were opened before it was loaded.
  LoadedWeights(LlamaModelPtr model, MappedFiles files);

  llama_model* model() const { return model_.get(); }
  // False once the files were written to, or could not be read: then nothing is to be computed with
  // the weights any more, and what was computed since the last look is not theirs.
  bool are_intact() const { return files_.are_intact(); }
  bool are_at(const std::vector<std::string>& paths) const { return files_.are_at(paths); }

 private:
  const LlamaModelPtr model_;
  MappedFiles files_;  // after it: it guards nothing any more when the mappings go
};

}  // namespace snapllm
