#include "snapllm/status.h"

namespace snapllm {

std::string_view status_code_name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return "ok";
    case StatusCode::kInvalidRequest: return "invalid_request";
    case StatusCode::kModelNotFound: return "model_not_found";
    case StatusCode::kFileNotFound: return "file_not_found";
    case StatusCode::kFileReplaced: return "model_file_replaced";
    case StatusCode::kInvalidModel: return "invalid_model";
    case StatusCode::kOutOfMemory: return "out_of_memory";
    case StatusCode::kContextLengthExceeded: return "context_length_exceeded";
    case StatusCode::kQueueFull: return "queue_full";
    case StatusCode::kGenerationFailed: return "generation_failed";
    case StatusCode::kClosed: return "closed";
    case StatusCode::kStorageFailed:
    case StatusCode::kDiskFull:
    case StatusCode::kFileDamaged: return "storage_failed";
  }
  return "generation_failed";
}

}  // namespace snapllm
