#include "backend/loaded_weights.h"

#include <set>
#include <string_view>
#include <utility>

#include "ggml-backend.h"
#include "llama-model.h"

namespace snapllm {

LoadedWeights::LoadedWeights(LlamaModelPtr model, MappedFiles files)
    : model_(std::move(model)), files_(std::move(files)) {
  std::set<ggml_backend_buffer_t> seen;
  for (const auto& [name, tensor] : llama_internal_get_tensor_map(model_.get())) {
    ggml_backend_buffer_t buffer = tensor->buffer;
    // ggml's name of what is neither copied nor put into another order.
    if (buffer == nullptr || std::string_view(ggml_backend_buffer_name(buffer)) != "CPU_Mapped" ||
        !seen.insert(buffer).second) {
      continue;
    }
    files_.guard(ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer));
  }
}

}  // namespace snapllm
