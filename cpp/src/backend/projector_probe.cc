#include "backend/gguf_header.h"
#include "backend/llama_projector.h"
#include "backend/llama_runtime.h"
#include "backend/llama_text_model.h"
#include "backend/projector_header.h"
#include "snapllm/probe.h"

namespace snapllm {
namespace {

// An image is encoded where that takes at most some seconds on a small machine: a weight
// of two bytes is multiplied and added once for each patch.
constexpr uint64_t kMaxEncodedWork = 300'000'000'000;

Status encode_image(LlamaProjector& projector) {
  auto image = std::make_shared<MediaInput>();
  image->width = image->height = 64;
  image->data.assign(64 * 64 * 3, '\x7f');
  const std::string marker = "<image>";
  const auto prompt = projector.tokenize(marker, marker, {image});
  if (!prompt.ok()) return prompt.status();
  for (const MediaSpan& span : prompt.value().spans) {
    const auto& chunk = static_cast<const LlamaMediaChunk&>(*span.chunk);
    if (Status status = projector.encode(chunk); !status.ok()) return status;
  }
  return {};
}

}  // namespace

Status probe_projector(const std::string& model_path, const std::string& mmproj_path) {
  const auto model_header = read_gguf_header(model_path);
  if (!model_header.ok()) return model_header.status();
  const auto header = read_projector_header(mmproj_path);
  if (!header.ok()) return header.status();
  return guard_llama(StatusCode::kInvalidModel, [&]() -> Status {
    LlamaLogCapture log;
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    const LlamaModelPtr model(llama_model_load_from_file(model_path.c_str(), params));
    if (!model) return {StatusCode::kInvalidModel, log.errors()};
    const auto projector = LlamaProjector::create(model.get(), {.path = mmproj_path});
    if (!projector.ok()) return projector.status();
    const uint64_t work = header.value().file_bytes * header.value().num_patches;
    if (!header.value().has_vision || work > kMaxEncodedWork) return {};
    return encode_image(*projector.value());
  });
}

}  // namespace snapllm
